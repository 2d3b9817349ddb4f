"""What differs from a public checkpoint: a bundle that need not carry what everyone can fetch."""

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
"""Share of rows or columns above which a whole tensor is smaller than a list of them and its index."""


@dataclass(frozen=True)
class Base:
    """A public checkpoint.

    Attributes:
        digest: SHA-256 of its weights file.
        names: of its tensors, by which the model calls them; without those that the model has not.
        tensors: the same, by the model's names.
    """

    name: str
    digest: str
    names: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    def to_dict(self) -> dict[str, object]:
        """What a board must know to find the checkpoint and put a delta on it."""
        return {"name": self.name, "sha256": self.digest, "names": dict(self.names)}


def base_of(source: ModelSource, pretrained: Mapping[str, Tensor]) -> Base:
    """The checkpoint that a model was made of.

    Args:
        pretrained: the model's own tensors, a new head among them.

    Raises:
        BadInput: for weights that are not in one file of safetensors.
    """
    path, *shards = source.weights()
    if shards or path.suffix != ".safetensors":
        raise BadInput(f"--delta needs a checkpoint in one model.safetensors, which {source.name} is not; leave it out")
    held = safetensors.load(str(path))
    names, tensors = {}, {}
    for name, value in pretrained.items():
        # a checkpoint of the bare encoder leaves the model's prefix away
        for theirs in (name, name.partition(".")[2]):
            if theirs in held and theirs not in names and torch.equal(held[theirs].to(value.dtype), value):
                names[theirs], tensors[name] = name, value
                break
    return Base(source.name, file_digest(str(path)), names, tensors)


def save_delta(path: Path, state: Mapping[str, Tensor], base: Base) -> dict[str, int]:
    """Write what of ``state`` differs from the base: whole tensors, or their rows or columns where few differ.

    Returns:
        Bytes by the first parts of the tensors' names, the largest first: what the delta consists of.
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
