"""Deltas: the differences of a model from its public checkpoint, so that a bundle can omit common tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from farsearch.errors import BadInput
from farsearch.far import safetensors
from farsearch.files import save_tensors
from farsearch.models.source import ModelSource
from farsearch.runtime.bundle_files import file_digest
from farsearch.runtime.torch_engine.model import DELTA

__all__ = ["Base", "base_of", "save_delta"]

_MOST = 0.5
"""Share of changed rows or columns above which the whole tensor is stored."""


@dataclass(frozen=True)
class Base:
    """A public checkpoint.

    Attributes:
        digest: SHA-256 of its weights file.
        names: names in the model by the checkpoint's names, for the tensors that the model has.
        tensors: these tensors by their names in the model.
    """

    name: str
    digest: str
    names: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    def to_dict(self) -> dict[str, object]:
        """Return the record of the checkpoint in ``far.json``."""
        return {"name": self.name, "sha256": self.digest, "names": dict(self.names)}


def base_of(source: ModelSource, pretrained: Mapping[str, Tensor]) -> Base:
    """Return the checkpoint of a model.

    Args:
        pretrained: the model's tensors, with a new head.

    Raises:
        BadInput: for weights that are not in one safetensors file.
    """
    path, *shards = source.weights()
    if shards or path.suffix != ".safetensors":
        raise BadInput(f"`delta` needs a checkpoint in one model.safetensors, which {source.name} is not; leave it out")
    stored = safetensors.load(str(path))
    names, tensors = {}, {}
    for name, value in pretrained.items():
        # a checkpoint of the bare encoder omits the model's prefix
        for theirs in (name, name.partition(".")[2]):
            if theirs in stored and theirs not in names and torch.equal(stored[theirs].to(value.dtype), value):
                names[theirs], tensors[name] = name, value
                break
    return Base(source.name, file_digest(str(path)), names, tensors)


def save_delta(path: Path, state: Mapping[str, Tensor], base: Base) -> dict[str, int]:
    """Write the differences of ``state`` from the base: whole tensors, or rows or columns if few differ.

    Returns:
        Bytes by tensor name, the largest first.
    """
    delta: dict[str, Tensor] = {}
    for name, value in state.items():
        delta.update(_difference(name, value, base.tensors.get(name)))
    save_tensors(path, delta)
    sizes: dict[str, int] = {}
    for key, value in delta.items():
        part = key.removeprefix(DELTA).partition("/")[2]
        sizes[part] = sizes.get(part, 0) + value.numel() * value.element_size()
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _difference(name: str, value: Tensor, old: Tensor | None) -> dict[str, Tensor]:
    if old is None or old.shape != value.shape:
        return {f"{DELTA}whole/{name}": value}
    differs = old != value
    if not bool(differs.any()):
        return {}
    for dim, kind in enumerate(("rows", "columns")[: value.dim()]):
        other = [i for i in range(value.dim()) if i != dim]
        changed = differs.any(dim=other[0]) if other else differs
        index = changed.nonzero().flatten()
        if value.dim() <= 2 and len(index) <= _MOST * value.shape[dim]:
            return {
                f"{DELTA}index-{kind}/{name}": index.to(torch.int32),
                f"{DELTA}{kind}/{name}": value.index_select(dim, index),
            }
    return {f"{DELTA}whole/{name}": value}
