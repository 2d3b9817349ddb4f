"""Locks by name that go with whoever holds them: among the processes of one host, and among hosts."""

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
    """Locks by name. One that its holder did not give back goes when the holder does."""

    def hold(self, name: str, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold a lock while the block runs; it can't be taken twice.

        Args:
            name: parts with slashes, like a path.
            wait: until it can be had. Otherwise the block is told at once whether it has it.
        """


class FileLocks:
    """Locks in files, for the processes of one host.

    Args:
        folder: made when the first lock is taken, like those of the names' parts.
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

    Each is held by a session of its own and goes when that ends: with the process, the network, or the server. Whoever
    lost a lock in the middle of its block is told at the end of the block.
    """

    def __init__(self, url: str) -> None:
        self._engine = lock_engine(url)
        close_with(self, self._engine)

    @contextmanager
    def hold(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a lock, see ``Locks``.

        Raises:
            SQLAlchemyError: when the server does not answer, or the lock was lost meanwhile. What was done in the block
                may then have met what another holder did.
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
                # the error that is on its way says more than one of the release
                with contextlib.suppress(SQLAlchemyError):
                    _release(connection, name, key)
                raise
            _release(connection, name, key)


def _call(connection: Connection, function: str, key: int) -> object:
    return connection.execute(sqlalchemy.text(f"SELECT {function}(:key)"), {"key": key}).scalar()


def _release(connection: Connection, name: str, key: int) -> None:
    try:
        kept = _call(connection, "pg_advisory_unlock", key)
    except BaseException:
        connection.invalidate()  # the lock goes with the session
        raise
    if not kept:
        raise DisconnectionError(f"the lock {name} was lost")


def _key(name: str) -> int:
    """PostgreSQL knows locks by numbers of 64 bits."""
    return int.from_bytes(hashlib.sha256(f"farsearch/{name}".encode()).digest()[:8], "big", signed=True)
