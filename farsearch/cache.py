"""The cache folder: its layout, its size limit, and the removal of the least recently used files.

::

    .farsearch/cache/priming/KEY/about.json                 the job
                                 5.safetensors              the model after 5 steps, and its scores
                                 5.optimizer                the optimizer then, for a longer priming to continue
                                 5.lock                     held by the worker that runs the 5 steps
                     baselines/KEY/METHOD-RATE.json         results of a baseline's training
                                   METHOD-RATE.safetensors  its predictions
                                   METHOD-RATE.lock
                     traces/KEY/TABLE.npz                   traced layers of a model under one plan
                                TABLE.lock                  held by the worker that traces

The modification time of a file is its last use, for all processes. The folder belongs to one machine with one clock. A
reader must expect that a file is missing, and make it again; a mapped file stays readable after its removal. Studies
retain the files that they need in their own folders.
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
"""Size limit of all primings. One of MiniLM has 87 MiB and twice that for the optimizer, one of BERT-base 418 MiB."""

KINDS: Mapping[str, str] = {"primings": "priming", "baselines": "baselines", "traces": "traces"}
"""Kinds of cached files, and their sub-folders."""

_ABOUT = "about.json"
_LOCK = "lock"


@dataclass(frozen=True)
class CachedFile:
    """One file.

    Attributes:
        last_used: seconds since 1970, by this machine's clock.
        linked: a study has the same file, so that its removal frees no disk space.
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
        about: description of the job from ``describe``; empty without one.
    """

    kind: str
    folder: Path
    about: Mapping[str, Any]
    files: tuple[CachedFile, ...]

    @property
    def size_mib(self) -> float:
        """Total of all files."""
        return sum(file.size_mib for file in self.files)

    @property
    def last_used(self) -> float:
        """Latest use of a file, in seconds since 1970."""
        return max(file.last_used for file in self.files)


def describe(folder: Path, about: Mapping[str, Any]) -> None:
    """Write a description of a job to its folder, unless it has one."""
    path = folder / _ABOUT
    if not path.exists():
        with disk_errors(path), filelock.FileLock(path.with_suffix(".lock")):
            write_json(path, {"schema_version": 1, **about})


def touch(*paths: Path) -> None:
    """Record the use of files, in order; missing files and those of other users are ignored."""
    for path in paths:
        now = time.time_ns()  # the system's own timestamp is too coarse to order two uses
        with contextlib.suppress(OSError):
            os.utime(path, ns=(now, now))


def trim(root: Path, bound_mib: float, spare: Collection[Path] = ()) -> None:
    """Remove the least recently used files of all jobs in ``root`` until they take at most ``bound_mib``.

    Incomplete files of killed writers are always removed. Errors of the disk are ignored.

    Args:
        spare: files that stay, even if they exceed the bound alone.
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
    """Return the jobs with files in the cache, the most recently used first."""
    jobs = []
    for kind, name in KINDS.items():
        for folder in _folders(cache / name):
            files = tuple(_files(folder))
            if files:
                jobs.append(CachedJob(kind, folder, _about(folder), files))
    return sorted(jobs, key=lambda job: job.last_used, reverse=True)


def unused(jobs: Iterable[CachedJob], kinds: Collection[str], days: float = 0.0) -> list[CachedFile]:
    """Return the files of these kinds that were not used in the last ``days``."""
    last = time.time() - days * 86400
    return [file for job in jobs if job.kind in kinds for file in job.files if not days or file.last_used < last]


def clear(cache: Path, kinds: Collection[str], files: Iterable[CachedFile]) -> None:
    """Remove files of the cache, and incomplete files of killed writers of these kinds.

    Locks stay, because a worker may be about to acquire one, and descriptions, which are small.

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
    """Return the jobs' folders, without links, so that nothing outside of the cache is removed."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _files(folder: Path) -> Iterator[CachedFile]:
    """Yield a job's files, without locks, descriptions and incomplete files."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            skipped = entry.name.startswith(".") or entry.name.endswith(".lock") or entry.name == _ABOUT
            # another worker may remove it meanwhile
            with contextlib.suppress(FileNotFoundError):
                if not skipped and entry.is_file(follow_symlinks=False):
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
    """Remove incomplete files of killed writers: a live writer holds the lock of its file."""
    for folder in _folders(root):
        for path, name in leftovers(folder):
            lock = filelock.FileLock((folder / name).with_suffix(".lock"))
            with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
                remove(path)
