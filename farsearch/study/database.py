"""Studies in a database: its address, its connections, and Optuna's storage."""

from __future__ import annotations

import warnings
import weakref
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Engine

from farsearch.addresses import database_url
from farsearch.errors import BadInput
from farsearch.study.optuna_adapter import newest_tables_version

__all__ = ["close_with", "is_postgres", "lock_engine", "open_database", "tables_version"]

_PATIENT = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Defaults of libpq's parameters: a vanished server is detected within a minute."""

_STALE_AFTER = 3
"""Heartbeats that a worker may miss before its trial is stale."""

_STORAGE_SESSION = ("SET TIME ZONE 'UTC'",)
"""Heartbeats are stored without a time zone, so all hosts must use the same one."""

_LOCK_SESSION = (
    # wait for a lock without a limit
    "SET statement_timeout = 0",
    "SET lock_timeout = 0",
    # release the lock of a vanished host within a minute, not within the hours of most systems
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)


def is_postgres(url: str) -> bool:
    """Return whether this is the address of a PostgreSQL server."""
    return database_url(url).drivername.partition("+")[0] in ("postgresql", "postgres")


def open_database(url: str, heartbeat_s: int) -> RDBStorage:
    """Open Optuna's storage in a database, and create its tables where they do not exist.

    Args:
        heartbeat_s: seconds between the heartbeats of a running trial. A trial that missed three of them is stale, by
            the database's clock.
    """
    address = _address(url)
    with warnings.catch_warnings():
        # heartbeats are marked experimental; Optuna is pinned to its minor release
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            address.render_as_string(hide_password=False),
            engine_kwargs={"connect_args": _connect_arguments(address)},
            heartbeat_interval=heartbeat_s,
            grace_period=_STALE_AFTER * heartbeat_s,
        )
    if is_postgres(url):
        _begin_sessions(storage.engine, _STORAGE_SESSION)
        storage.engine.dispose()  # the connection that made the tables has no session settings
    close_with(storage, storage.engine)
    return storage


def tables_version(url: str, timeout_s: int) -> tuple[str | None, str]:
    """Return the version of Optuna's tables in a database, and the one that this Optuna needs, without creating any.

    Args:
        timeout_s: for an answer of PostgreSQL.

    Returns:
        None as the first version where there are no tables yet.
    """
    address = _address(url)
    wanted = newest_tables_version()
    if address.drivername.startswith("sqlite") and not Path(address.database or "").exists():
        return None, wanted
    arguments = _connect_arguments(address)
    engine = sqlalchemy.create_engine(
        address, connect_args={**arguments, "connect_timeout": timeout_s} if arguments else {}
    )
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return None, wanted
            version = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
            return None if version is None else str(version), wanted
    finally:
        engine.dispose()


def lock_engine(url: str) -> Engine:
    """Return an engine for connections that hold locks in a PostgreSQL server."""
    address = _address(url)
    arguments = _connect_arguments(address)
    engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT", pool_pre_ping=True, connect_args=arguments)
    _begin_sessions(engine, _LOCK_SESSION)
    return engine


def close_with(owner: object, engine: Engine) -> None:
    """Close the connections when their owner is collected, at the latest when the process ends."""
    weakref.finalize(owner, engine.dispose)


def _address(url: str) -> URL:
    """Return the address with the driver for PostgreSQL, whose default depends on the version of SQLAlchemy.

    Raises:
        BadInput: for a text that is no address, and for a database in memory, which no other process can read.
    """
    address = database_url(url)
    if address.drivername in ("postgresql", "postgres"):
        return address.set(drivername="postgresql+psycopg")
    if address.drivername.startswith("sqlite") and address.database in (None, "", ":memory:"):
        raise BadInput(f"--storage {url} keeps the studies in memory, where they are lost; give sqlite:///FILE")
    return address


def _connect_arguments(address: URL) -> dict[str, Any]:
    if address.drivername != "postgresql+psycopg":
        return {}
    return {name: value for name, value in _PATIENT.items() if name not in address.query}


def _begin_sessions(engine: Engine, statements: tuple[str, ...]) -> None:
    """Run these statements in each new connection."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def begin(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()
