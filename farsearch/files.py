"""Atomic writes: a file is written to a temporary name and renamed, so that a kill leaves no incomplete file."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from farsearch.errors import BadInput, MissingResource

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MADE_BY",
    "check_new_file",
    "disk_errors",
    "leftovers",
    "link_or_copy",
    "load_tensors",
    "move_into_place",
    "read_json",
    "remove",
    "replacing",
    "save_tensors",
    "write_bytes",
    "write_json",
    "write_text",
]

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.[0-9a-f]{8}")
"""Names of temporary folders: target, process id, random digits."""


MADE_BY = "Made by farsearch"
"""Mark in the first bytes of files at paths of users, which farsearch may then replace."""

_MARKS = (MADE_BY.encode(), b"This file is part of farsearch")
_HEAD = 4096


def check_new_file(path: Path, suffix: str) -> None:
    """Check that a path has a suffix, and is new or a file that farsearch made.

    Raises:
        BadInput: when the path does not end in ``suffix``, or belongs to another file.
    """
    if path.suffix.lower() != suffix:
        raise BadInput(f"{str(path)!r} has to end in {suffix}; give such a name")
    if not os.path.lexists(path):
        return
    with disk_errors(path):
        head = b""
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(_HEAD)
    if not any(mark in head for mark in _MARKS):
        raise BadInput(f"{path} exists and was not made by farsearch, so it is not replaced; give another name")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate errors of the disk: full, read-only, not permitted.

    Raises:
        MissingResource: in place of ``OSError`` and ``SafetensorError``.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of the output has ended: not an error of the disk
    except (OSError, safetensors.SafetensorError) as error:
        text = str(error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in text or "os error 28" in text:
            raise MissingResource(
                f"the disk is full: {path.name} can't be written in {path.parent}; free some space and run the same "
                "command again, finished trials are kept"
            ) from error
        raise MissingResource(
            f"{path} can't be written: {getattr(error, 'strerror', None) or text}; check the folder's permissions"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is atomically renamed to ``path`` when the block ends without an error.

    It is in its own folder next to ``path``: safetensors makes further temporary files of its own next to its target,
    which could not be attributed after a kill.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        folder.mkdir()
        temporary = folder / path.name
        try:
            # files of safetensors are readable by their owner alone, but a team shares caches and bundles
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            move_into_place(temporary, path)
        finally:
            remove(folder)


def move_into_place(source: Path, target: Path) -> None:
    """Atomically rename a complete file or folder on the same disk; a file is synced first and replaces its target."""
    if source.is_file():
        with source.open("rb+") as file:
            os.fsync(file.fileno())
    os.replace(source, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file or folder another name by a symbolic link; copy it where this user may make none, as on Windows."""
    try:
        os.symlink(source.absolute(), target, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


def leftovers(folder: Path) -> Iterator[tuple[Path, str]]:
    """Find the temporary folders of killed and of live writers in ``folder``.

    Yields:
        The path, and the name of its target. Remove it only if no live process writes that target.
    """
    for path in folder.glob(".*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None:
            yield path, match["name"]


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content. Errors are ignored."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, data: Any) -> None:
    """Write JSON with sorted keys atomically."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        OSError, ValueError: for a missing or invalid file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors atomically."""
    from safetensors.torch import save_file  # torch takes seconds to import

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # without tensors, safetensors can read a file without metadata, but not one with empty metadata
        save_file(plain, temporary, metadata=dict(metadata) if metadata else None)


def load_tensors(path: Path) -> dict[str, Tensor] | None:
    """Map the tensors of a file; None where it is missing, damaged or not readable.

    Pages are read from the disk on access, and stay readable after the file's removal.
    """
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors
