"""Connection to an MLflow database or server: opening, locking, translated errors, and its user interface."""

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
"""Timeout of a sync that waits for another one; a single trial takes a fraction of a second."""
_BUSY_SECONDS = 30.0
"""Timeout for a program that locks the database itself; longer than MLflow's own."""
_ALIVE_SECONDS = 5.0

UI_ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",
}
"""Environment of ``ui_command``: without it MLflow starts eight more processes and sends telemetry."""


@dataclass(frozen=True)
class Connection:
    """One MLflow database or server.

    Attributes:
        uri: as passed to MLflow, with an absolute path.
        database: the file of a SQLite database; None for a server.
        file: device and inode of the database when it was opened.
    """

    client: MlflowClient
    uri: str
    database: Path | None
    file: tuple[int, int] | None

    @contextlib.contextmanager
    def reading(self) -> Iterator[MlflowClient]:
        """Yield the client; MLflow's errors become MissingResource."""
        self.check()
        with _boundary(self.uri):
            yield self.client

    @contextlib.contextmanager
    def writing(self, patience_s: float = _LOCK_SECONDS) -> Iterator[MlflowClient]:
        """Yield the client under a lock if the database is a file: several processes would create each run twice.

        Args:
            patience_s: timeout for another process.
        """
        with self.reading():
            if self.database is None:
                yield self.client
                return
            with _lock(self.database, patience_s):
                wait_for_writers(self.database, min(patience_s, _BUSY_SECONDS))
                yield self.client

    def check(self) -> None:
        """Raise MissingResource within seconds if the server does not answer or the database is missing."""
        if self.database is None:
            _check_server(self.uri)
        elif _identity(self.database) != self.file:
            raise _removed(self.uri)

    def artifacts_of(self, run: Run) -> ArtifactRepository:
        """Return the artifacts of a run. MLflow's client caches them by the run's id, which a copy shares."""
        return get_artifact_repository(run.info.artifact_uri, self.uri)

    def artifact_location(self, name: str) -> str | None:
        """Return the folder of an experiment's artifacts, beside the database; None lets a server choose.

        The path is absolute, because MLflow would resolve a relative one in its own working directory. ``database``
        corrects it after a move.
        """
        return None if self.database is None else (artifact_root(self.database) / name).as_uri()


def connect(uri: str) -> Connection:
    """Connect to ``sqlite:///FILE``, which is created if it is missing, or ``http(s)://HOST:PORT``.

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
    """Return whether the address is a server or an existing database. Creates nothing."""
    return not is_sqlite(uri) or database_of(uri).exists()


def ui_command(uri: str, port: int) -> list[str]:
    """Return the command that serves the mirror at ``uri`` on this machine alone, without an access log.

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
    """Set MLflow's variables, unless the user did: no telemetry, no links and progress bars between our output.

    An unreachable server fails after seconds instead of minutes: the study continues and the next sync catches up.
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
            # MLflow would retry a failure to open a database for minutes
            prepare(database, _BUSY_SECONDS)
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
            move_artifacts(database, _BUSY_SECONDS)
            return Connection(client, uri, database, _identity(database))


def _removed(uri: str) -> MissingResource:
    """Return the error of a removed database: MLflow keeps its file open and would write to the deleted one."""
    return MissingResource(f"MLflow's database {uri} was removed or replaced meanwhile; farsearch sync rebuilds it")


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None if it is missing."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_server(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ALIVE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers: a proxy may hide /health
    except (OSError, ValueError) as error:
        raise MissingResource(
            f"MLflow server {uri} does not answer ({_first_line(error)}); start it or give another address"
        ) from error


def _lock(database: Path, patience_s: float = _LOCK_SECONDS) -> FileLock:
    return FileLock(f"{database}.lock", timeout=patience_s)


@contextlib.contextmanager
def _boundary(uri: str) -> Iterator[None]:
    """Translate vendors' errors into one line, and silence their logs, which repeat them with a traceback."""
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
    """Return the error of an unusable database or server, with a suggestion that loses no experiments."""
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
    """Return the vendor's message without SQL, links and traceback."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()[:200]
