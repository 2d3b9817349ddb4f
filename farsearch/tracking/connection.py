"""The way to an MLflow database or server: opening it, its lock, its errors in our words, and its own interface."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient, environment_variables
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.telemetry import set_telemetry_client
from sqlalchemy.exc import SQLAlchemyError

from farsearch.addresses import is_server, shown_address
from farsearch.errors import BadInput, MissingResource
from farsearch.tracking.database import (
    artifact_root,
    database_of,
    is_sqlite,
    move_artifacts,
    prepare,
    sqlite_uri,
    wait_for_writers,
)

__all__ = ["UI_ENVIRONMENT", "Connection", "connect", "is_there", "ui_command"]

_LOCK_SECONDS = 120.0
"""How long a sync waits for another one; that of a single trial takes a fraction of a second."""
_BUSY_SECONDS = 30.0
"""How long a program that locks the database itself is waited for; MLflow's own patience is shorter."""
_ALIVE_SECONDS = 5.0

UI_ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",
}
"""What ``ui_command`` is to find in its environment, or MLflow starts eight more processes and talks to others."""


@dataclass(frozen=True)
class Connection:
    """One MLflow database or server.

    Attributes:
        uri: as MLflow is given it, with an absolute path.
        database: the file of a SQLite database; None for a server.
        file: which file stood under that name when it was opened.
    """

    client: MlflowClient
    uri: str
    database: Path | None
    file: tuple[int, int] | None

    @contextlib.contextmanager
    def reading(self) -> Iterator[MlflowClient]:
        """The client, with MLflow's errors as MissingResource."""
        self.check()
        with _boundary(self.uri):
            yield self.client

    @contextlib.contextmanager
    def writing(self, patience_s: float = _LOCK_SECONDS) -> Iterator[MlflowClient]:
        """The same, one process at a time where the database is a file: several would make each run twice.

        Args:
            patience_s: how long another process is waited for.
        """
        with self.reading():
            if self.database is None:
                yield self.client
                return
            with _lock(self.database, patience_s):
                wait_for_writers(self.database, min(patience_s, _BUSY_SECONDS))
                yield self.client

    def check(self) -> None:
        """Raises MissingResource within seconds where the server does not answer or the database is not there."""
        if self.database is None:
            _check_server(self.uri)
        elif _identity(self.database) != self.file:
            raise _removed(self.uri)

    def artifacts_of(self, run: Run) -> ArtifactRepository:
        """Where the artifacts of a run are. MLflow's client remembers it by the run's id, which a copy has too."""
        return get_artifact_repository(run.info.artifact_uri, self.uri)

    def artifact_location(self, name: str) -> str | None:
        """Where an experiment's artifacts go: beside the database; None lets a server choose.

        The path is absolute, because MLflow makes it so: it would take a relative one from wherever it is started.
        ``database`` corrects it after a move.
        """
        return None if self.database is None else (artifact_root(self.database) / name).as_uri()


def connect(uri: str) -> Connection:
    """The MLflow at ``uri``: ``sqlite:///FILE``, created where it is not there yet, or ``http(s)://HOST:PORT``.

    Raises:
        BadInput: for another kind of address.
        MissingResource: where the server does not answer or the database can't be used.
    """
    _set_defaults()
    if is_sqlite(uri):
        return _connect_sqlite(database_of(uri))
    if is_server(uri):
        if "@" in uri.split("/")[2]:
            raise BadInput(
                f"tracking URI {shown_address(uri)} names a user; leave that to MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment"
            )
        _check_server(uri)
        return Connection(MlflowClient(tracking_uri=uri), uri, None, None)
    raise BadInput(
        f"tracking URI {shown_address(uri)!r} is neither sqlite:///FILE nor http(s)://HOST:PORT; give one of these"
    )


def is_there(uri: str) -> bool:
    """Whether there is something to open: a server, or a database that exists. Asking makes nothing."""
    return not is_sqlite(uri) or database_of(uri).exists()


def ui_command(uri: str, port: int) -> list[str]:
    """The command that shows the mirror at ``uri`` in a browser, on this machine alone, without an access log.

    Raises:
        BadInput: for a server, which has its own interface.
    """
    if not is_sqlite(uri):
        raise BadInput(
            f"tracking URI {shown_address(uri)!r} is a server and shows its own interface; open that address in a "
            "browser"
        )
    database = database_of(uri)
    options = {
        "--backend-store-uri": sqlite_uri(database),
        "--registry-store-uri": sqlite_uri(database),
        "--artifacts-destination": artifact_root(database).as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--uvicorn-opts": "--log-level warning",
    }
    return [sys.executable, "-m", "mlflow", "ui", *(word for option in options.items() for word in option)]


def _set_defaults() -> None:
    """MLflow is told in its own variables, which win where the user has set them, to keep to itself.

    No usage data goes to third parties, no links and bars are printed between our data, and a server that is gone is
    given up after seconds instead of minutes: the study goes on and the next sync catches up.
    """
    defaults = {
        environment_variables.MLFLOW_DISABLE_TELEMETRY: True,
        environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR: False,
        environment_variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: True,
        environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES: 2,
    }
    for variable, value in defaults.items():
        if not variable.is_set():
            variable.set(value)
    set_telemetry_client()


def _connect_sqlite(database: Path) -> Connection:
    uri = sqlite_uri(database)
    with _boundary(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
        with _lock(database):
            # MLflow would try for minutes: it repeats every failure to open a database.
            prepare(database, _BUSY_SECONDS)
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
            move_artifacts(database, _BUSY_SECONDS)
            return Connection(client, uri, database, _identity(database))


def _removed(uri: str) -> MissingResource:
    """MLflow keeps a file open, so a process whose database was taken away would go on writing to what is gone."""
    return MissingResource(f"MLflow's database {uri} was removed or replaced meanwhile; farsearch sync rebuilds it")


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file stands under this name; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_server(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ALIVE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers: a proxy may keep /health to itself
    except (OSError, ValueError) as error:
        raise MissingResource(
            f"MLflow server {uri} does not answer ({_first_line(error)}); start it or give another address"
        ) from error


def _lock(database: Path, patience_s: float = _LOCK_SECONDS) -> FileLock:
    return FileLock(f"{database}.lock", timeout=patience_s)


@contextlib.contextmanager
def _boundary(uri: str) -> Iterator[None]:
    """Vendors' errors become one line of ours, and their logs, which repeat them with a traceback, are silent."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except Timeout as error:
        raise MissingResource(
            f"MLflow at {uri} is held by another process, a sync perhaps; try again when that is done"
        ) from error
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise _unusable(uri, _first_line(error)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _unusable(uri: str, reason: str) -> MissingResource:
    """The error of a database or server that refuses, and what to do about it. Experiments are only in there."""
    if "database is locked" in reason:
        return MissingResource(
            f"MLflow's database {uri} is locked by another program, such as a database browser or a backup; close it "
            "and run the same command again"
        )
    if "out-of-date database schema" in reason:
        return MissingResource(
            f"MLflow's database {uri} was made by an older MLflow; make a copy of it, then run: mlflow db upgrade "
            f"{shlex.quote(uri)}"
        )
    if "not a database" in reason or "malformed" in reason:
        return MissingResource(
            f"MLflow's database {uri} can't be read ({reason}); restore it from a copy, or give another tracking URI, "
            "which farsearch sync fills"
        )
    return MissingResource(f"MLflow at {uri} can't be used ({reason}); when that is solved, farsearch sync catches up")


def _first_line(error: BaseException) -> str:
    """What went wrong in the vendor's words, without SQL, links and traceback."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()[:200]
