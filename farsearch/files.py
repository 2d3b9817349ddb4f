"""Files that are whole or absent: written beside their place and moved there, so that a kill leaves no half of one."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from farsearch.errors import MissingResource

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["disk_errors", "load_tensors", "read_json", "save_tensors", "write_json", "write_text"]


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
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the place of ``path`` when the block ends well."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        # mkstemp's files, and those of safetensors, are for their owner alone; a team shares caches and bundles
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        try:
            yield temporary
            temporary.chmod(mode)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with _replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. A missing or broken file raises OSError or ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all."""
    from safetensors.torch import save_file  # torch takes seconds, and whoever writes text needs none

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        # a file with neither tensors nor metadata is read again, one with empty metadata and no tensors is not
        save_file(plain, temporary, metadata=dict(metadata) if metadata else None)


def load_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None where it is missing or damaged."""
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors
