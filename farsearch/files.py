"""Files that are whole or absent: written beside their place and moved there, so that a kill leaves no half of one."""

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
"""Names of what is being written: whose place it takes, the process, a draw."""


MADE_BY = "Made by farsearch"
"""Stands in the first bytes of files that are written where a user says, so that farsearch may replace them."""

_MARKS = (MADE_BY.encode(), b"This file is part of farsearch")
_HEAD = 4096


def check_new_file(path: Path, suffix: str) -> None:
    """Refuse to write a file of another type, or in the place of one that farsearch did not make.

    Raises:
        BadInput: when the name does not end in ``suffix``, or there is something else under that name.
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
    """Translate what the disk refuses into one line: full, read-only, not permitted."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read the output has gone: that is no matter of the disk
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
    """Yield a temporary path on the same disk, which replaces ``path`` when the block ends without an error.

    It lies in a folder of its own, beside its place: safetensors makes files of names of its own choice next to what it
    writes, and after a kill they would tell nobody whose they were.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        folder.mkdir()
        temporary = folder / path.name
        try:
            # the files of safetensors are for their owner alone; a team shares caches and bundles
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            move_into_place(temporary, path)
        finally:
            remove(folder)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a complete file or folder on the same disk, replacing the target; a file's data is on the disk before."""
    if source.is_file():
        with source.open("rb+") as file:
            os.fsync(file.fileno())
    os.replace(source, target)


def leftovers(folder: Path) -> Iterator[tuple[Path, str]]:
    """What writers that were killed left in ``folder``, and what live ones are at.

    Yields:
        Its path, and the name whose place it was to take. Who knows that nobody writes that name now may remove it.
    """
    for path in folder.glob(".*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is not None:
            yield path, found["name"]


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it. What is gone already, or can't be removed, stays so."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, data: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. A missing or broken file raises OSError or ValueError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all."""
    from safetensors.torch import save_file  # torch takes seconds, and whoever writes text needs none

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # a file with neither tensors nor metadata is read again, one with empty metadata and no tensors is not
        save_file(plain, temporary, metadata=dict(metadata) if metadata else None)


def load_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None where it is missing, damaged or may not be read.

    They are mapped, not read: pages come from the disk when they are looked at, and outlive the file's removal.
    """
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors
