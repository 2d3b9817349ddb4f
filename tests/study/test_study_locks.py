"""Contract of a study's locks, for locks in files and in PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from farsearch.errors import MissingResource
from farsearch.study.locks import DatabaseLocks, FileLocks, Locks
from farsearch.study.store import Store
from tests.services import Postgres

HOLD = """
    import sys, time
    from pathlib import Path
    from farsearch.study.store import Store
    home, url, name = sys.argv[1:]
    locks = Store(Path(home), url or None).locks
    try:
        with locks.hold(name):
            print("held", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def store(storage: str | None, tmp_path: Path) -> Store:
    """Return a store on each storage."""
    return Store(tmp_path, storage)


@contextmanager
def process(store: Store, name: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a lock or waits for it."""
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(store.home), store.url or "", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    """Return the process's next line."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def is_free(locks: Locks, name: str) -> bool:
    """Return whether the lock is free."""
    with locks.hold(name, wait=False) as held:
        return held


def test_each_storage_has_its_own_kind_of_lock(store: Store) -> None:
    """A journal's locks are files; a server has locks of its own, so that they work across hosts."""
    assert isinstance(store.locks, FileLocks if store.url is None else DatabaseLocks)


def test_lock_is_exclusive(store: Store, tmp_path: Path) -> None:
    """While it is held, neither this process nor another store acquires it; afterwards both can."""
    other = Store(tmp_path, store.url).locks
    with store.locks.hold("a/b") as held:
        assert held
        assert not is_free(store.locks, "a/b")
        assert not is_free(other, "a/b")
        assert is_free(other, "a/c")
    assert is_free(other, "a/b")
    assert is_free(store.locks, "a/b")


def test_lock_is_released_after_an_error(store: Store) -> None:
    """An error in the block is propagated unchanged."""
    with pytest.raises(KeyError, match="mine"), store.locks.hold("a"):
        raise KeyError("mine")
    assert is_free(store.locks, "a")


def test_waiting_process_acquires_the_released_lock(store: Store) -> None:
    """It waits until the holder is done."""
    order = []

    def second() -> None:
        with store.locks.hold("a"):
            order.append("second")

    with store.locks.hold("a"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_lock_is_released_when_its_process_ends(store: Store) -> None:
    """A killed holder leaves no lock behind."""
    with process(store, "a") as child:
        assert line(child) == "held"
        assert not is_free(store.locks, "a")
        child.kill()
        child.wait()
        with store.locks.hold("a") as held:
            assert held


def test_waiting_can_be_interrupted(store: Store) -> None:
    """Ctrl-C ends the waiting, and the interrupted process does not get the lock later."""
    with ExitStack() as stack:
        stack.enter_context(store.locks.hold("a"))
        child = stack.enter_context(process(store, "a"))
        # no output while it waits: signal until it reacts
        while child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(1)
            except subprocess.TimeoutExpired:
                continue
        assert child.stdout is not None
        assert "held" not in child.stdout.read()
    assert is_free(store.locks, "a")


def test_lock_file_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(MissingResource, match="can't be written"), FileLocks(tmp_path).hold("a/b"):
        pass


@pytest.mark.service
def test_lost_lock_is_reported_at_the_end_of_its_block(own_postgres: Postgres) -> None:
    """A restart of the server releases all locks.

    Waiting and later processes get a lock from the restarted server.
    """
    locks, seen = DatabaseLocks(own_postgres.url), []

    def restart() -> None:
        with locks.hold("a"):
            own_postgres.stop()
            own_postgres.start()
            seen.append(is_free(DatabaseLocks(own_postgres.url), "a"))

    with pytest.raises(SQLAlchemyError):
        restart()
    assert seen == [True]
    assert is_free(locks, "a")
    own_postgres.stop()
    with pytest.raises(SQLAlchemyError), locks.hold("a"):
        pass
