"""The files of a bundle, validated before any is used."""

import hashlib
import importlib.machinery
import json
import os
from typing import Any, Dict, NamedTuple, Optional

from ..far.display import shown, shown_text
from .config import config_problem
from .program_file import Program, check_fit, read_program
from .row_errors import json_reason
from .schema import check_base, check_phase, check_provenance
from .task import Task
from .tokenizer_file import tokenizer_problem

__all__ = [
    "SCHEMA_VERSION",
    "BundleFiles",
    "BundleProblem",
    "digest_of",
    "file_digest",
    "is_pointer",
    "open_bundle",
    "read_config",
]

SCHEMA_VERSION = 3
"""Schema version of ``far.json``."""

_LFS_POINTER = b"version https://git-lfs"

NEEDED = ("model/config.json", "model/tokenizer.json")

_MOST_BYTES = {"far.json": 1 << 24, "model/config.json": 1 << 20, "model/tokenizer.json": 1 << 26,
    "model/tokenizer_config.json": 1 << 24, "engine/program.json": 1 << 24,
}  # fmt: skip
"""Largest size of the files that are read as JSON, which takes up to thirty times as much memory."""

_MOST_GRAPH = 1 << 24
"""Largest size of a graph, which has no weights."""

_MOST_FILES = 10000


class BundleProblem(ValueError):
    """A bundle is missing, damaged, or of another schema version; the message is one line for a user."""


class BundleFiles(NamedTuple):
    """The files of a bundle, verified against their checksums.

    ``manifest`` is all of ``far.json``, ``phase`` the part of it that the FAR phase needs. ``program`` is that of a
    compiled engine, None where torch trains.
    """

    folder: str
    manifest: Dict[str, Any]
    phase: Dict[str, Any]
    program: Optional[Program] = None

    @property
    def task(self) -> Task:
        """The task that it was fine-tuned for."""
        return Task.from_dict(self.phase["task"])

    @property
    def engine(self) -> str:
        """The engine that trains it: ``torch`` or ``onnx``."""
        return str(self.phase["plan"].get("engine", "torch"))

    @property
    def origin(self) -> str:
        """What its fine-tuned model was trained on, in a line for users."""
        trial, refit = self.manifest["trial"]["number"], self.manifest.get("refit")
        if refit is None:
            return "trial {} as the search left it".format(trial)
        return "trial {} trained again on all {:,} rows, those that the search held out among them".format(
            trial, refit["rows"]
        )

    def path(self, name: str) -> str:
        """Return the path of one of its files, which is named with slashes."""
        return os.path.join(self.folder, *name.split("/"))


def file_digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def is_pointer(path: str) -> bool:
    """Return whether a file is a Git LFS pointer, which stands for the file until it is pulled."""
    with open(path, "rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def digest_of(manifest: Dict[str, Any]) -> str:
    """Return the SHA-256 of ``far.json`` without its own ``digest``."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def open_bundle(folder: str) -> BundleFiles:
    """Read ``far.json`` and verify all files that it lists.

    Raises:
        BundleProblem: in one line, with a suggestion.
    """
    manifest = _read(folder, "far.json")
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleProblem(
            "{} has schema version {}, this version reads {}; use the farsearch that made it, or export it again"
            .format(folder, shown(version), SCHEMA_VERSION)
        )  # fmt: skip
    if manifest.get("digest") != digest_of(manifest):
        raise BundleProblem("{}/far.json differs from its own digest; copy it again, or export it again".format(folder))
    _check_files(folder, manifest.get("sha256"))
    try:
        check_phase(manifest.get("phase"), manifest["sha256"])
        check_base(manifest.get("base"))
        check_provenance(manifest)
    except ValueError as error:
        raise BundleProblem(
            "{}/far.json does not describe a bundle: {}; export it again".format(folder, error)
        ) from error
    _check_model(folder, manifest["sha256"])
    bundle = BundleFiles(folder, manifest, manifest["phase"])
    return bundle._replace(program=_program(bundle)) if bundle.engine == "onnx" else bundle


def read_config(bundle: BundleFiles) -> Dict[str, Any]:
    """Return the parsed ``config.json`` of a bundle's model, which is checked when the bundle is opened."""
    values: Dict[str, Any] = _read(bundle.folder, "model/config.json")
    return values


def _program(bundle: BundleFiles) -> Program:
    """The program of a compiled engine, which fits the phase and whose graphs are listed and of bounded size."""
    folder, checksums = bundle.folder, bundle.manifest["sha256"]
    if bundle.manifest.get("base") is not None:
        raise BundleProblem("{}/far.json: a compiled engine is no delta; export the bundle again".format(folder))
    try:
        program = read_program(_read(folder, "engine/program.json"))
        check_fit(program, bundle.phase["weights"]["names"], bundle.task.kind, bundle.phase["segments"])
        for name in program.graphs:
            file = "engine/" + name
            if file not in checksums or os.path.getsize(bundle.path(file)) > _MOST_GRAPH:
                raise ValueError("{} is not listed, or has more than {:,} bytes".format(shown(file), _MOST_GRAPH))
    except BundleProblem:
        raise
    except ValueError as error:
        raise BundleProblem("{}/engine/program.json: {}; export the bundle again".format(folder, error)) from error
    return program


def _read(folder: str, name: str) -> Any:
    """Read one of the bundle's JSON files, which is bounded in size."""
    path = os.path.join(folder, *name.split("/"))
    try:
        size = os.path.getsize(path)
        if size > _MOST_BYTES[name]:
            raise BundleProblem(
                "{} has {:,} bytes; at most {:,} are read: do not use it".format(path, size, _MOST_BYTES[name])
            )
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise BundleProblem(
            "{} is no bundle: {} can't be read; make one with farsearch export".format(folder, name)
        ) from error
    except BundleProblem:
        raise
    except (ValueError, RecursionError) as error:
        raise BundleProblem(
            "{} is damaged: {}; copy it again, or export it again".format(path, json_reason(error))
        ) from error


def _check_files(folder: str, checksums: Any) -> None:
    for name in NEEDED:
        if not isinstance(checksums, dict) or name not in checksums:
            raise BundleProblem("{}/far.json lists no {}; export the bundle again".format(folder, name))
    if len(checksums) > _MOST_FILES:
        raise BundleProblem(
            "{}/far.json lists {} files; at most {} are read".format(folder, len(checksums), _MOST_FILES)
        )
    root = os.path.realpath(folder)
    for name in sorted(checksums):
        if "\0" in name or len(name) > 1000:
            raise BundleProblem("{}/far.json names {}, which is no file; do not use it".format(folder, shown(name)))
        path = os.path.realpath(os.path.join(root, name))
        if os.path.isabs(name) or not path.startswith(root + os.sep):
            raise BundleProblem(
                "{}/far.json names {}, which is outside the bundle; do not use it".format(folder, shown(name))
            )
        if not os.path.isfile(path):
            raise BundleProblem(
                "{} lacks {}; copy the whole folder, or export it again".format(folder, shown_text(name))
            )
        if file_digest(path) != checksums[name]:
            problem = "differs from its checksum; copy it again, or export it again"
            if is_pointer(path):
                problem = "is a Git LFS pointer, not the file itself; run git lfs pull in its folder"
            raise BundleProblem("{}/{} {}".format(folder, shown_text(name), problem))
    for part in ("model", "engine", "far", "runtime"):
        _check_nothing_else(root, part, checksums)
    _check_no_modules(root, checksums)


def _check_nothing_else(root: str, part: str, checksums: Dict[str, Any]) -> None:
    """Check that a folder has no unlisted file, apart from Python's caches."""
    for path, folders, files in os.walk(os.path.join(root, part)):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for file in files:
            _refuse_unlisted(root, os.path.join(path, file), checksums)


def _check_no_modules(root: str, checksums: Dict[str, Any]) -> None:
    """Check that nothing unlisted can be imported from the folder, which may hold a user's rows and trained models."""
    endings = tuple(importlib.machinery.all_suffixes()) + (".pth",)
    for name in sorted(os.listdir(root)):
        path = os.path.join(root, name)
        inside = sorted(os.listdir(path)) if os.path.isdir(path) and name != "__pycache__" else []
        for file in [path] if os.path.isfile(path) else [os.path.join(path, name) for name in inside]:
            if file.endswith(endings):
                _refuse_unlisted(root, file, checksums)


def _refuse_unlisted(root: str, path: str, checksums: Dict[str, Any]) -> None:
    name = os.path.relpath(path, root).replace(os.sep, "/")
    if name not in checksums:
        raise BundleProblem("{} has {}, which far.json does not list; remove it".format(root, shown_text(name)))


def _check_model(folder: str, checksums: Dict[str, Any]) -> None:
    """Check that the model's settings name no foreign code, and no sizes beyond any model's."""
    for name in sorted(checksums):
        part, _, file = name.partition("/")
        if part != "model":
            continue
        if file.endswith(tuple(importlib.machinery.all_suffixes())):
            raise BundleProblem(
                "{} lists {}, which is code; a model has none: do not use it".format(folder, shown(name))
            )
        if file in ("config.json", "tokenizer_config.json"):
            _check_settings(folder, name)
    problem = tokenizer_problem(_read(folder, "model/tokenizer.json"))
    if problem:
        raise BundleProblem("{}/model/tokenizer.json: {}; do not use it".format(folder, problem))


def _check_settings(folder: str, name: str) -> None:
    values = _read(folder, name)
    problem = config_problem(values) if name == "model/config.json" else None
    if isinstance(values, dict) and "auto_map" in values:
        problem = "auto_map names foreign code, which is never run; save the model without it"
    if problem:
        raise BundleProblem("{}/{}: {}".format(folder, name, problem))
