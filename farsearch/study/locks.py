"""Locks by name, released when their holder ends: among the processes of one host, and among hosts."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import filelock
import sqlalchemy
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError

from farsearch.files import disk_errors
from farsearch.study.database import close_with, lock_engine

__all__ = ["DatabaseLocks", "FileLocks", "Locks"]


class Locks(Protocol):
    """Locks by name. A lock is released when its holder ends, however it ends."""

    def hold(self, name: str, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold a lock while the block runs. It is not reentrant.

        Args:
            name: parts with slashes, like a path.
            wait: until the lock is free; otherwise the block receives at once whether it holds the lock.
        """


class FileLocks:
    """Locks in files, for the processes of one host.

    Args:
        folder: created with the first lock, like the folders of the names' parts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a lock, see ``Locks``."""
        path = self._folder / f"{name}.lock"
        lock = filelock.FileLock(path)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except filelock.Timeout:
                held = False
            else:
                held = True
        try:
            yield held
        finally:
            lock.release()


class DatabaseLocks:
    """Locks in a PostgreSQL server, for workers on any host.

    Each lock is held by its own session and released when that ends: with the process, the network, or the server.
    The loss of a lock is detected at the end of its block.
    """

    def __init__(self, url: str) -> None:
        self._engine = lock_engine(url)
        close_with(self, self._engine)

    @contextmanager
    def hold(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a lock, see ``Locks``.

        Raises:
            SQLAlchemyError: when the server does not answer, or the lock was lost meanwhile. Another holder may then
                have interfered with the block.
        """
        key = _key(name)
        with self._engine.connect() as connection:
            held = _call(connection, "pg_advisory_lock" if wait else "pg_try_advisory_lock", key) is not False
            if not held:
                yield False
                return
            try:
                yield True
            except BaseException:
                # this error is more informative than one of the release
                with contextlib.suppress(SQLAlchemyError):
                    _release(connection, name, key)
                raise
            _release(connection, name, key)


def _call(connection: Connection, function: str, key: int) -> object:
    return connection.execute(sqlalchemy.text(f"SELECT {function}(:key)"), {"key": key}).scalar()


def _release(connection: Connection, name: str, key: int) -> None:
    try:
        released = _call(connection, "pg_advisory_unlock", key)
    except BaseException:
        connection.invalidate()  # ends the session, which releases the lock
        raise
    if not released:
        raise DisconnectionError(f"the lock {name} was lost")


def _key(name: str) -> int:
    """Return the number of 64 bits by which PostgreSQL identifies the lock."""
    return int.from_bytes(hashlib.sha256(f"farsearch/{name}".encode()).digest()[:8], "big", signed=True)
