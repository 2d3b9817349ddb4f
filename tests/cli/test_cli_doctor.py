"""``farsearch doctor``: findings with suggestions, without side effects, within seconds."""

from __future__ import annotations

import http.server
import importlib.util
import os
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from farsearch import doctor
from farsearch.cache import BOUND_MIB
from tests.journey import call
from tests.services import Postgres

CHECKS = ["python", "torch", "devices", "storage", "tracking", "hub", "disk", "cache", "extras"]


def found(folder: Path, check: str, *options: object) -> dict[str, Any]:
    """Return one finding, after a check of the exit code and the number of problems."""
    done = call(folder, "doctor", "--json", *options)
    checks = done.json["checks"]
    assert [each["check"] for each in checks] == CHECKS
    problems = [each for each in checks if each["state"] == "problem"]
    assert done.json["problems"] == len(problems)
    assert done.code == (5 if problems else 0)
    return dict(next(each for each in checks if each["check"] == check))


def test_a_fresh_folder_has_no_problem_and_stays_empty(tmp_path: Path) -> None:
    """Without a network the output names the combinations that still work."""
    done = call(tmp_path, "doctor")
    assert done.code == 0
    assert not list(tmp_path.iterdir())
    lines = [line for line in done.out.splitlines() if not line.startswith(" ")]
    assert [line.split()[1] for line in lines] == CHECKS
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert "offline: HF_HUB_OFFLINE is set" in done.out
    assert "--task reviews with --model minilm" in done.out
    assert found(tmp_path, "python")["state"] == "ok"


def test_a_finished_study_has_no_problem_and_is_not_changed(finished_study: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert found(folder, "storage")["text"].startswith("journal .farsearch/studies.journal")
    assert "1 experiments" in found(folder, "tracking")["text"] or "2 experiments" in found(folder, "tracking")["text"]
    assert found(folder, "cache")["text"].startswith("primings take ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_broken_journal_and_a_broken_database_are_problems(tmp_path: Path) -> None:
    """Each comes with a suggestion, and neither file is changed."""
    home = tmp_path / ".farsearch"
    home.mkdir()
    (home / "studies.journal").write_bytes(b"\x00\x01")
    (tmp_path / "mlflow.db").write_text("no database")
    journal, database = found(tmp_path, "storage"), found(tmp_path, "tracking")
    assert (journal["state"], database["state"]) == ("problem", "problem")
    assert "restore it from a copy" in journal["suggestion"]
    assert "restore it from a copy" in database["suggestion"]
    assert (tmp_path / "mlflow.db").read_text() == "no database"


def test_a_read_only_folder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the answer of the system is replaced."""
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and allowed(path, mode))
    storage = found(tmp_path, "storage")
    assert storage["state"] == "problem"
    assert str(tmp_path) in storage["text"]
    assert "permissions" in storage["suggestion"]


def test_a_broken_profile_is_named(tmp_path: Path) -> None:
    devices = tmp_path / ".farsearch" / "devices"
    devices.mkdir(parents=True)
    (devices / "mine.toml").write_text("name = 'other'")
    finding = found(tmp_path, "devices")
    assert finding["state"] == "problem"
    assert "mine.toml" in finding["text"]


@pytest.mark.parametrize(("free_mib", "state"), [(100.0, "problem"), (3000.0, "warning"), (100_000.0, "ok")])
def test_free_space_is_compared_with_the_bound_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: float, state: str
) -> None:
    """Less than a model needs is a problem, less than the cache may grow to a warning."""
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free_mib * 2**20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = found(tmp_path, "disk")
    assert finding["state"] == state
    assert f"{BOUND_MIB / 1024:.1f} GiB more" in finding["text"]
    assert bool(finding["suggestion"]) == (state != "ok")


def test_more_threads_than_cores_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 1000)
    finding = found(tmp_path, "torch")
    assert finding["state"] == "warning"
    assert "OMP_NUM_THREADS=" in finding["suggestion"]


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server.getsockname()[1]


def test_silent_servers_time_out(tmp_path: Path, silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, MLflow server and hub take about two seconds each."""
    monkeypatch.setattr(doctor, "hub_problem", lambda _: time.sleep(60))
    call(tmp_path, "doctor")  # so that no import counts
    started = time.monotonic()
    tracking = found(tmp_path, "tracking", "--tracking-uri", f"http://127.0.0.1:{silent}",
                     "--storage", f"postgresql://me:s3cret@127.0.0.1:{silent}/studies")  # fmt: skip
    assert time.monotonic() - started < 15
    assert tracking["state"] == "problem"
    assert "farsearch sync catches up" in tracking["suggestion"]


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    finding = found(tmp_path, "storage", "--storage", "postgresql://me:s3cret@127.0.0.1:9/studies")
    assert finding["state"] == "problem"
    assert "postgresql://me:***@127.0.0.1:9/studies does not answer" in finding["text"]
    assert "s3cret" not in str(finding)


def test_tables_of_another_version_are_a_problem(tmp_path: Path) -> None:
    """A missing database is no problem and is not created."""
    url = f"sqlite:///{tmp_path}/studies.db"
    assert "makes its tables" in found(tmp_path, "storage", "--storage", url)["text"]
    assert not list(tmp_path.iterdir())
    assert call(tmp_path, "studies", "list", "--storage", url).code == 0
    assert "tables are of Optuna's version" in found(tmp_path, "storage", "--storage", url)["text"]
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v1.0'")
    connection.close()
    finding = found(tmp_path, "storage", "--storage", url)
    assert finding["state"] == "problem"
    assert "version v1.0" in finding["text"]


def test_any_answer_of_a_server_is_ok(tmp_path: Path) -> None:
    """An address of an unknown scheme is a problem."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert found(tmp_path, "tracking", "--tracking-uri", f"http://127.0.0.1:{server.server_port}")["state"] == "ok"
        server.shutdown()
    assert found(tmp_path, "tracking", "--tracking-uri", "ftp://host")["state"] == "problem"


def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a problem only if an option needs them."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "psycopg" else find(name))
    finding = found(tmp_path, "extras")
    assert finding["state"] == "ok"
    assert "postgres" in finding["suggestion"]
    asked = found(tmp_path, "storage", "--storage", "postgresql://me@127.0.0.1:9/studies")
    assert (asked["state"], asked["suggestion"]) == ("problem", "pip install 'farsearch[postgres]'")


@pytest.mark.service
def test_a_reachable_database_is_ok_and_not_changed(tmp_path: Path, postgres: Postgres) -> None:
    finding = found(tmp_path, "storage", "--storage", postgres.url)
    assert finding["state"] == "ok"
    assert "makes its tables" in finding["text"]
    engine = sqlalchemy.create_engine(postgres.url.replace("postgresql:", "postgresql+psycopg:"))
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()
    assert call(tmp_path, "studies", "list", "--storage", postgres.url).code == 0
    assert "tables are of Optuna's version" in found(tmp_path, "storage", "--storage", postgres.url)["text"]
