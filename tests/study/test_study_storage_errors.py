"""Retries while a storage does not answer, and permanent errors."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from farsearch.errors import MissingResource
from farsearch.study.storage_errors import StorageAway, retry_while_away
from farsearch.study.store import Store
from tests.factories import make_settings
from tests.journey import until
from tests.services import Postgres, free_port

META = {"metric": "accuracy", "budget_mib": 1.0}


def failing(times: int, text: str = "Connection refused") -> Callable[[], str]:
    """Return a step that fails a number of times because the database does not answer."""
    left = [times]

    def step() -> str:
        if left[0]:
            left[0] -= 1
            raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception(text))
        return "done"

    return step


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace waits of minutes by tenths of a second."""
    for name, value in {
        "PATIENCE_S": 1.0,
        "FIRST_PATIENCE_S": 0.2,
        "REPORT_AFTER_S": 0.05,
        "_PAUSES_S": (0.02, 0.05),
    }.items():
        monkeypatch.setattr(f"farsearch.study.storage_errors.{name}", value)


def test_short_outage_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is repeated until it succeeds, without a note within ten seconds."""
    monkeypatch.setattr("farsearch.study.storage_errors._PAUSES_S", (0.001, 0.001))
    notes: list[str] = []
    assert retry_while_away(failing(4), "db", notes.append) == "done"
    assert notes == []


@pytest.mark.usefixtures("hasty")
def test_longer_outage_is_reported_once_with_its_end() -> None:
    """One note names the storage, the deadline, and the total time."""
    notes: list[str] = []
    assert retry_while_away(failing(9), "db", notes.append) == "done"
    assert len(notes) == 1
    assert re.fullmatch(r"the storage db does not answer; trying again until \d\d:\d\d:\d\d, 1 s in all", notes[0])


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("reached", "text", "least_s"), [
    (True, "Connection refused", 1.0),
    (False, "Connection refused", 0.2),
    (False, "FATAL: the database system is starting up", 1.0),
])  # fmt: skip
def test_retries_end_at_a_deadline(reached: bool, text: str, least_s: float) -> None:
    """It is shorter for an address that never answered and may be wrong, unless the server is starting."""
    began = time.monotonic()
    with pytest.raises(StorageAway, match=rf"the storage db does not answer: {text}; .*\(asked again for \d+ s\)"):
        retry_while_away(failing(10**6, text), "db", lambda _: None, reached)
    assert time.monotonic() - began >= least_s


def test_permanent_errors_are_not_retried() -> None:
    """A rejected request ends at once, whatever the deadline."""
    step = failing(1, 'FATAL:  password authentication failed for user "me"')
    with pytest.raises(MissingResource, match="the storage db can't be used: FATAL") as caught:
        retry_while_away(step, "db", lambda _: None)
    assert not isinstance(caught.value, StorageAway)


@pytest.mark.service
def test_store_opens_when_its_database_starts(own_postgres: Postgres, tmp_path: Path) -> None:
    """The database was down at the first attempt; name, tables and study exist after its start."""
    own_postgres.stop()
    notes: list[str] = []
    store = Store(tmp_path, own_postgres.url, note=notes.append)
    starting = threading.Timer(1.0, own_postgres.start)
    starting.start()
    try:
        store.check("s", make_settings())
        assert store.reached
    finally:
        starting.join()
    own_postgres.stop()
    starting = threading.Timer(1.0, own_postgres.start)
    starting.start()
    try:
        study = store.open("s", make_settings(), META)
    finally:
        starting.join()
    assert store.names() == ["s"]
    assert store.ask(lambda: study.user_attrs["meta"]) == META


@pytest.mark.service
def test_connection_rejected_by_postgresql_is_not_retried(tmp_path: Path) -> None:
    """A wrong password, user or database, no password, and missing TLS end at once, each with its reason."""
    server = Postgres(password="right")
    try:
        place = f"127.0.0.1:{server.port}"
        for address, reason in {
            f"postgresql://farsearch:wrong@{place}/study_1": "password authentication failed",
            f"postgresql://nobody:wrong@{place}/study_1": "password authentication failed",
            f"postgresql://farsearch:right@{place}/other": 'database "other" does not exist',
            f"postgresql://farsearch@{place}/study_1": "no password supplied",
            f"postgresql://farsearch:right@{place}/study_1?sslmode=require": "does not support SSL",
        }.items():
            notes: list[str] = []
            with pytest.raises(MissingResource, match=reason) as caught:
                Store(tmp_path, address, note=notes.append).names()
            assert type(caught.value) is MissingResource
            assert notes == []
            assert ":right" not in str(caught.value)
            assert ":wrong" not in str(caught.value)
        (server.log.parent / "data" / "pg_hba.conf").write_text("host all farsearch 127.0.0.1/32 reject\n")
        os.kill(server.pid, signal.SIGHUP)  # it reloads the file asynchronously
        address = f"postgresql://farsearch:right@{place}/study_1"
        until(lambda: "pg_hba.conf" in refusal(Store(tmp_path, address, note=lambda _: None)))
    finally:
        server.remove()


def refusal(store: Store) -> str:
    """Return the reason why the storage can't be used, or an empty string."""
    try:
        store.names()
    except MissingResource as error:
        return "" if isinstance(error, StorageAway) else str(error)
    return ""


def test_readers_do_not_wait(tmp_path: Path) -> None:
    """Without notes the first refused connection is an error."""
    with pytest.raises(StorageAway, match=r"does not answer: .*refused"):
        Store(tmp_path, f"postgresql://me@127.0.0.1:{free_port()}/db").names()
