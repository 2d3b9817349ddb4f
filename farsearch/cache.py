"""The cache folder: what lies in it, how large it may grow, and what goes first.

::

    .farsearch/cache/priming/KEY/about.json                 what the job is
                                 5.safetensors              the model after 5 steps, and its scores
                                 5.optimizer                the optimizer then, for a longer priming to go on from
                                 5.lock                     held by the worker that runs the 5 steps
                     baselines/KEY/METHOD-RATE.json         what a baseline's training gave
                                   METHOD-RATE.safetensors  its predictions
                                   METHOD-RATE.lock

A file's time of change is set anew whenever it is used, so that it tells the order of use to all processes. The folder
belongs to one machine, and so does its clock. Whoever reads from it bears that a file is gone, and makes it again; a
file that is mapped stays readable after its removal. Studies keep what they need in their own folders.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from farsearch.errors import MissingResource
from farsearch.files import disk_errors, leftovers, read_json, remove, write_json

__all__ = [
    "BOUND_MIB",
    "KINDS",
    "CachedFile",
    "CachedJob",
    "cached_jobs",
    "clear",
    "describe",
    "touch",
    "trim",
    "unused",
]

BOUND_MIB = 4096.0
"""What all primings together may take. MiniLM's have 87 MiB and twice that for the optimizer, BERT-base's 418 MiB."""

KINDS: Mapping[str, str] = {"primings": "priming", "baselines": "baselines"}
"""What is cached, and the sub-folder that it lies in."""

_ABOUT = "about.json"
_LOCK = "lock"


@dataclass(frozen=True)
class CachedFile:
    """One file.

    Attributes:
        last_used: seconds since 1970, by this machine's clock.
        linked: a study has the same file, so that its removal here frees no disk.
    """

    path: Path
    size_mib: float
    last_used: float
    linked: bool


@dataclass(frozen=True)
class CachedJob:
    """The files of one job.

    Attributes:
        kind: one of ``KINDS``.
        about: what the files depend on, as whoever made the folder described it; empty where nobody did.
    """

    kind: str
    folder: Path
    about: Mapping[str, Any]
    files: tuple[CachedFile, ...]

    @property
    def size_mib(self) -> float:
        """Of all files."""
        return sum(file.size_mib for file in self.files)

    @property
    def last_used(self) -> float:
        """Of the file that was used last, in seconds since 1970."""
        return max(file.last_used for file in self.files)


def describe(folder: Path, about: Mapping[str, Any]) -> None:
    """Say beside a job's files what they depend on. What is there already stays."""
    path = folder / _ABOUT
    if not path.exists():
        with disk_errors(path), filelock.FileLock(path.with_suffix(".lock")):
            write_json(path, {"schema_version": 1, **about})


def touch(*paths: Path) -> None:
    """Note that files are used, the last one last. A file that is gone, or is another user's, is no matter."""
    for path in paths:
        now = time.time_ns()  # the system's own stamp is too coarse to tell two uses apart
        with contextlib.suppress(OSError):
            os.utime(path, ns=(now, now))


def trim(root: Path, bound_mib: float, spare: Collection[Path] = ()) -> None:
    """Remove the least recently used files of all jobs below ``root`` until they take no more than ``bound_mib``.

    Args:
        spare: what was just written, which stays even where it is larger than the bound by itself.

    What killed writers left goes in any case. A folder that can't be trimmed is no reason to end a trial.
    """
    with contextlib.suppress(OSError), filelock.FileLock(root / _LOCK):
        _sweep(root)
        files = [file for folder in _folders(root) for file in _files(folder)]
        size = sum(file.size_mib for file in files)
        for file in sorted(files, key=lambda file: (file.last_used, file.path)):
            if size <= bound_mib:
                break
            if file.path not in spare:
                remove(file.path)
                size -= 0.0 if file.path.exists() else file.size_mib


def cached_jobs(cache: Path) -> list[CachedJob]:
    """What the cache holds, the most recently used job first."""
    jobs = []
    for kind, name in KINDS.items():
        for folder in _folders(cache / name):
            files = tuple(_files(folder))
            if files:
                jobs.append(CachedJob(kind, folder, _about(folder), files))
    return sorted(jobs, key=lambda job: job.last_used, reverse=True)


def unused(jobs: Iterable[CachedJob], kinds: Collection[str], days: float = 0.0) -> list[CachedFile]:
    """The files of some kinds that were not used in the last ``days``."""
    last = time.time() - days * 86400
    return [file for job in jobs if job.kind in kinds for file in job.files if not days or file.last_used < last]


def clear(cache: Path, kinds: Collection[str], files: Iterable[CachedFile]) -> None:
    """Remove files of the cache, and what killed writers left among those of their kinds.

    Locks and descriptions stay: a worker may be about to take the one, and the other are small.

    Raises:
        MissingResource: when a file can't be removed.
    """
    for kind in kinds:
        root = cache / KINDS[kind]
        if root.is_dir():
            with disk_errors(root), filelock.FileLock(root / _LOCK):
                _sweep(root)
    for file in files:
        remove(file.path)
        if file.path.exists():
            raise MissingResource(f"{file.path} can't be removed; check the folder's permissions")


def _folders(root: Path) -> list[Path]:
    """The jobs' folders. A link is none: nothing outside of the cache is ever removed."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _files(folder: Path) -> Iterator[CachedFile]:
    """A job's files, without locks, descriptions and what is being written."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            left_out = entry.name.startswith(".") or entry.name.endswith(".lock") or entry.name == _ABOUT
            # another worker may remove it meanwhile
            with contextlib.suppress(FileNotFoundError):
                if not left_out and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    size, linked = status.st_size / 2**20, status.st_nlink > 1
                    yield CachedFile(folder / entry.name, size, status.st_mtime, linked)


def _about(folder: Path) -> Mapping[str, Any]:
    try:
        about = read_json(folder / _ABOUT)
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _sweep(root: Path) -> None:
    """Remove what killed writers left. Whoever writes a file holds its lock, and the dead hold none."""
    for folder in _folders(root):
        for path, name in leftovers(folder):
            lock = filelock.FileLock((folder / name).with_suffix(".lock"))
            with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
                remove(path)
