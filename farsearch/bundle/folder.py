"""The folder of a bundle: whole or absent, with checksums of all that is in it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farsearch.errors import BadInput
from farsearch.files import disk_errors

__all__ = ["BUNDLE_SCHEMA", "digest_of", "sha256_of", "whole_folder"]

BUNDLE_SCHEMA = 1


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(data: Mapping[str, Any]) -> str:
    """SHA-256 of what ``far.json`` says beside its own ``digest``."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A working folder beside ``out`` that takes its place when the block ends well: a kill leaves no half of one.

    Raises:
        BadInput: when ``out`` is a file, or a folder with something in it.
        MissingResource: when the disk refuses.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} exists and is not empty; name a new folder, or remove it first")
    work = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with disk_errors(out):
        work.mkdir(parents=True)
        try:
            yield work
            if out.is_dir():
                out.rmdir()
            os.replace(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
