"""MLflow's SQLite database as a file: its address, checks of it, and the artifacts beside it.

MLflow stores absolute addresses of artifacts, which are wrong after a folder is copied or moved. They are corrected
whenever a database is opened at another place, so that a copy reads and writes its own artifacts, and MLflow's own
client and server find them too. The tables are those of MLflow 3.17, which pyproject.toml pins.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from farsearch.errors import BadInput, MissingResource
from farsearch.files import replacing

__all__ = ["artifact_root", "database_of", "is_sqlite", "move_artifacts", "prepare", "sqlite_uri", "wait_for_writers"]

_SCHEMES = ("sqlite:///", "sqlite+pysqlite:///")
_ROOT = "mlartifacts"
_VIEW_TAG = "mlflow.sharedViewState.farsearch-%"
"""Tag of the experiments that farsearch created, see ``views``."""

_LOCATIONS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns with addresses below that of an experiment."""


def is_sqlite(uri: str) -> bool:
    """Return whether an address is that of a SQLite database."""
    return uri.startswith(_SCHEMES)


def sqlite_uri(database: Path) -> str:
    """Return the address of a database in a folder of any name.

    Raises:
        BadInput: for a name that SQLAlchemy 2.0 can't write in an address.
    """
    path = database.as_posix()
    plain = f"sqlite:///{path}"
    escaped = URL.create("sqlite", database=path).render_as_string(hide_password=False)
    if make_url(escaped).database != path:
        raise BadInput(
            f"{path!r} has a '?', which SQLAlchemy {sqlalchemy.__version__} can't write in an address; rename the "
            "folder, or give another tracking URI"
        )
    # MLflow creates the folder of an address that begins with sqlite:///, without decoding its escapes
    return plain if escaped == plain else escaped.replace("sqlite:", "sqlite+pysqlite:", 1)


def database_of(uri: str) -> Path:
    """Return the file of a SQLite address, with links resolved: artifacts are beside the file itself.

    Raises:
        BadInput: for an address that names no file.
    """
    try:
        url = make_url(uri)
    except ArgumentError as error:
        raise BadInput(f"tracking URI {uri!r} is not an address; give sqlite:///FILE") from error
    if not url.database or url.database == ":memory:":
        raise BadInput(f"tracking URI {uri!r} names no file; give sqlite:///FILE")
    if "?" in uri:
        raise BadInput(
            f"tracking URI {uri!r} has options after a '?', which are not supported; write a '?' in a name as %3F"
        )
    return Path(url.database).resolve()


def artifact_root(database: Path) -> Path:
    """Return the folder of the artifacts of a database."""
    return database.parent / _ROOT


def prepare(database: Path, patience_s: float) -> None:
    """Create a missing database, and refuse one that MLflow should not write to.

    Call it under the database's lock: processes that create the tables at the same time damage it.

    Args:
        patience_s: timeout for another program that locks the database.

    Raises:
        MissingResource: when the file is something else, or the database of a newer MLflow.
        sqlite3.Error: when it is locked or damaged.
    """
    if database.exists() and not database.is_file():
        raise MissingResource(f"{database} is not a file, so it can't be MLflow's database; give another tracking URI")
    if not database.exists() or _is_empty(database, patience_s):
        _create(database)
    with _opened(database, patience_s) as connection:
        _check_schema(database, connection)


def wait_for_writers(database: Path, patience_s: float) -> None:
    """Wait until no other program writes to the database.

    Raises:
        sqlite3.OperationalError: when one still does after ``patience_s``.
    """
    with _opened(database, patience_s) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def _opened(database: Path, patience_s: float) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database, timeout=patience_s, isolation_level=None)) as connection:
        yield connection


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _is_empty(database: Path, patience_s: float) -> bool:
    with _opened(database, patience_s) as connection:
        return not _tables(connection)


def _create(database: Path) -> None:
    """Create the tables in a temporary file and rename it, so that a kill leaves no incomplete database."""
    with replacing(database) as temporary:
        _initialize(temporary)
        with _opened(temporary, 0.0) as connection:
            # MLflow's default experiment would store its artifacts in the working directory of this process
            location = f"{artifact_root(database).as_uri()}/0"
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (location,))
    # this process may have connections to an earlier file of that name
    _disconnect(sqlite_uri(database))


_empty: list[bytes] = []
"""The first empty database of this process: MLflow makes one in seconds, by all its migrations."""


def _initialize(database: Path) -> None:
    if _empty:
        database.write_bytes(_empty[0])
        return
    uri = sqlite_uri(database)
    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    finally:
        _disconnect(uri)
    _empty.append(database.read_bytes())


def _disconnect(uri: str) -> None:
    """Close MLflow's pooled connections to a database."""
    engine = SqlAlchemyStore._engine_map.get(uri)
    if engine is not None:
        engine.dispose()


def _check_schema(database: Path, connection: sqlite3.Connection) -> None:
    """Refuse a database of another program, to which MLflow would add its tables, and one of a newer MLflow."""
    tables = _tables(connection)
    if "experiments" not in tables:
        raise MissingResource(
            f"{database} is a database of another program (its tables: {', '.join(sorted(tables)[:3])}); give another "
            "tracking URI"
        )
    if "alembic_version" not in tables:
        return
    versions = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    for (version,) in connection.execute("SELECT version_num FROM alembic_version"):
        if not any(versions.glob(f"{version}_*.py")):
            raise MissingResource(
                f"{database} was made by a newer MLflow than {mlflow.__version__} (schema {version}); upgrade "
                "farsearch and MLflow, or give another tracking URI, which farsearch sync fills"
            )


def move_artifacts(database: Path, patience_s: float) -> None:
    """Correct the addresses of farsearch's artifacts after the database was copied or moved.

    Raises:
        sqlite3.OperationalError: when another program still writes to it after ``patience_s``.
    """
    with _opened(database, patience_s) as connection:
        _move_artifacts(artifact_root(database).as_uri(), connection)


def _move_artifacts(root: str, connection: sqlite3.Connection) -> None:
    ours = connection.execute(
        "SELECT experiment_id, artifact_location FROM experiments WHERE experiment_id = 0 OR experiment_id IN "
        "(SELECT experiment_id FROM experiment_tags WHERE key LIKE ?)",
        (_VIEW_TAG,),
    ).fetchall()
    moved = []
    for experiment, location in ours:
        above, _, name = (location or "").rstrip("/").rpartition("/")
        if above.startswith("file:") and above.rpartition("/")[2] == _ROOT and above != root:
            moved.append((experiment, f"{above}/{name}", f"{root}/{name}"))
    if not moved:
        return
    connection.execute("BEGIN IMMEDIATE")
    for experiment, old, new in moved:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment))
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                f"WHERE substr({column}, 1, length(:old) + 1) = :old || '/'",
                {"old": old, "new": new},
            )
    connection.execute("COMMIT")
