"""Optuna's journal in a file with atomic appends, also when the process is killed or the disk is full."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import filelock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from farsearch.errors import MissingResource

__all__ = ["damaged", "open_journal"]


def open_journal(path: Path) -> JournalStorage:
    """Open the journal ``path``, and create it where it does not exist.

    Raises:
        MissingResource: when it is not a journal, or damaged.
    """
    try:
        return JournalStorage(_Journal(path))
    # errors of Optuna's reader and replay for a line that is no entry
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise damaged(str(path), error) from error


def damaged(where: str, error: Exception) -> MissingResource:
    """Return the error for a journal that can't be read."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return MissingResource(
        f"the journal {where} is damaged ({reason}); restore it from a copy, or start in another folder"
    )


class _KernelLock(JournalFileOpenLock):
    """A lock of the kernel, released when its process ends or is killed.

    Optuna's own locks outlive a killed process by half a minute.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class _Journal(JournalFileBackend):
    """A journal with atomic appends.

    A kill or a full disk can leave half an entry. The next one would continue its line, and Optuna would reject the
    whole file; so an incomplete line is removed before an append, and after one that failed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._kernel_lock = path, _KernelLock(path.with_suffix(".lock"))
        super().__init__(str(path), self._kernel_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append the entries, all or none."""
        self._kernel_lock.acquire()  # Optuna acquires it again below, which a FileLock allows
        try:
            size = _cut_half_entry(self._path)
            try:
                super().append_logs(logs)
            except OSError:
                os.truncate(self._path, size)
                raise
        finally:
            self._kernel_lock.release()


def _cut_half_entry(journal: Path) -> int:
    """Truncate the file after its last line end, and return its size."""
    with journal.open("rb+") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 16))
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return end
