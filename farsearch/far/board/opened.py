"""A bundle's files, checked before anything of them is used."""

import hashlib
import json
import os
from typing import Any, Dict, NamedTuple

from .task import Task

__all__ = ["SCHEMA_VERSION", "BundleProblem", "Opened", "digest_of", "file_digest", "open_bundle"]

SCHEMA_VERSION = 3
"""Of ``far.json``."""

NEEDED = ("model/config.json", "model/tokenizer.json")

_PHASE = {
    "layout", "learners", "frozen_embeddings", "frozen_attention_layers", "frozen_bottom_layers", "learning_rate",
    "epochs", "batch_size", "seed", "max_length", "plan", "task", "segments", "tokenizer", "predicted", "weights",
}  # fmt: skip
"""Keys of what the FAR phase needs."""

_PLAN = {
    "optimizer", "micro_batch_size", "feed_forward", "attention", "dropout", "layer_norm", "frozen_dtype",
    "checkpointing", "optimizer_kernel", "optimizer_step",
}  # fmt: skip
"""Keys of a step plan."""


class BundleProblem(ValueError):
    """A bundle that is no bundle, damaged, or of another version; one line for a user."""


class Opened(NamedTuple):
    """A bundle whose files are as they were written.

    ``says`` is all of ``far.json``, ``phase`` the part of it that the FAR phase needs.
    """

    folder: str
    says: Dict[str, Any]
    phase: Dict[str, Any]

    @property
    def task(self) -> Task:
        """What is learned of what rows."""
        return Task.from_dict(self.phase["task"])

    def path(self, name: str) -> str:
        """One of its files."""
        return os.path.join(self.folder, *name.split("/"))


def file_digest(path: str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def digest_of(says: Dict[str, Any]) -> str:
    """SHA-256 of what ``far.json`` says beside its own ``digest``."""
    rest = {key: value for key, value in says.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def open_bundle(folder: str) -> Opened:
    """Read ``far.json`` and check all files that it names.

    Raises:
        BundleProblem: one line that names what is wrong and what helps.
    """
    says = _read(folder)
    version = says.get("schema_version") if isinstance(says, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleProblem(
            "{} has schema version {!r}, this version reads {}; use the farsearch that made it, or export it again"
            .format(folder, version, SCHEMA_VERSION)
        )  # fmt: skip
    if says.get("digest") != digest_of(says):
        raise BundleProblem("{}/far.json differs from its own digest; copy it again, or export it again".format(folder))
    _check_files(folder, says.get("sha256"))
    phase = says.get("phase")
    if not isinstance(phase, dict) or set(phase) != _PHASE:
        wrong = sorted(map(str, set(phase) ^ _PHASE))[0] if isinstance(phase, dict) else "phase"
        raise BundleProblem("{}/far.json has a missing or unknown key {!r}; export it again".format(folder, wrong))
    opened = Opened(folder, says, phase)
    try:
        _check_phase(phase, says["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleProblem("{}/far.json does not say a bundle: {}; export it again".format(folder, error)) from error
    return opened


def _read(folder: str) -> Any:
    path = os.path.join(folder, "far.json")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise BundleProblem(
            "{} is no bundle: far.json can't be read; make one with farsearch export".format(folder)
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleProblem("{} is damaged: {}; copy it again, or export it again".format(path, error)) from error


def _check_files(folder: str, checksums: Any) -> None:
    for name in NEEDED:
        if not isinstance(checksums, dict) or name not in checksums:
            raise BundleProblem("{}/far.json lists no {}; export the bundle again".format(folder, name))
    root = os.path.realpath(folder)
    for name in sorted(checksums):
        path = os.path.realpath(os.path.join(root, name))
        if os.path.isabs(name) or not path.startswith(root + os.sep):
            raise BundleProblem(
                "{}/far.json names {!r}, which is outside the bundle; do not use it".format(folder, name)
            )
        if not os.path.isfile(path):
            raise BundleProblem("{} lacks {}; copy the whole folder, or export it again".format(folder, name))
        if file_digest(path) != checksums[name]:
            raise BundleProblem(
                "{}/{} differs from its checksum; copy it again, or export it again".format(folder, name)
            )
    for part in ("model", "far"):
        _check_nothing_else(root, part, checksums)


def _check_nothing_else(root: str, part: str, checksums: Dict[str, Any]) -> None:
    """What is loaded from a folder must be what was written there. Python's own caches are no part of it."""
    for path, folders, files in os.walk(os.path.join(root, part)):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for file in files:
            name = os.path.relpath(os.path.join(path, file), root).replace(os.sep, "/")
            if name not in checksums:
                raise BundleProblem("{} has {}, which far.json does not list; remove it".format(root, name))


def _check_phase(phase: Dict[str, Any], checksums: Dict[str, Any]) -> None:
    """The parts that later steps would misread; what they refuse themselves is left to them."""
    learners, count = phase["learners"], sum(len(layer["blocks"]) for layer in phase["layout"]["layers"])
    if not isinstance(learners, list) or len(learners) != count:
        raise ValueError("learners must have one entry for each of the {} feed-forward blocks".format(count))
    for i, chosen in enumerate(learners):
        if chosen is not None and not (isinstance(chosen, list) and all(type(k) is int for k in chosen)):
            raise ValueError("the learners of block {} must be whole numbers".format(i))
    task = Task.from_dict(phase["task"])
    if task.kind.endswith("classification") and len(task.labels) < 2:
        raise ValueError("it needs at least two labels")
    if not isinstance(phase["segments"], bool):
        raise ValueError("segments must be true or false")
    for name in ("batch_size", "max_length"):
        if type(phase[name]) is not int or phase[name] < 1:
            raise ValueError("{} must be a whole number above 0".format(name))
    for name in ("learning_rate", "epochs"):
        if not isinstance(phase[name], (int, float)) or not 0 < phase[name] < 1e9:
            raise ValueError("{} must be a number above 0".format(name))
    for name in ("start", "tuned"):
        if phase["weights"][name] not in checksums:
            raise ValueError("its weights {!r} are not listed".format(phase["weights"][name]))
    missing = sorted(_PLAN - set(phase["plan"]))
    if missing:
        raise ValueError("its plan has no {!r}".format(missing[0]))
    if not phase["predicted"]["peaks"] or not phase["predicted"]["step_s"]:
        raise ValueError("it predicts nothing")
