"""Translate errors of a study's storage, and retry while it does not answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError

from farsearch.errors import MissingResource
from farsearch.files import disk_errors
from farsearch.study.journal import damaged

__all__ = ["StorageAway", "retry_while_away", "storage_errors"]

PATIENCE_S = 600.0
"""Seconds for which a step is retried while the storage does not answer."""

FIRST_PATIENCE_S = 60.0
"""The same for a storage that never answered this process: its address may be wrong."""

REPORT_AFTER_S = 10.0
"""Seconds after which a wait is reported."""

_PAUSES_S = (0.5, 15.0)
"""The first and the longest pause between two attempts."""

_AWAY = (OperationalError, InterfaceError, DisconnectionError)
"""Errors of a database that may answer later."""

_REFUSED_STATES = ("28", "3D", "42")
"""Classes of SQLSTATE that are permanent: user or password, the database's name, permissions."""

_REFUSALS = (
    "authentication failed",
    "pg_hba.conf",
    "no password supplied",
    "does not exist",
    "is not permitted to log in",
    "permission denied",
    "not currently accepting connections",
    "does not support SSL",
    "certificate",
    "unable to open database file",
)
"""Permanent errors as text, of SQLite and of refused connections, for which libpq has no state."""

_STARTING = ("starting up", "shutting down", "recovery", "not yet accepting connections")
"""Texts of a PostgreSQL server that will answer soon."""

T = TypeVar("T")


class StorageAway(MissingResource):
    """The database does not answer, and may answer later.

    Attributes:
        starting: the server reported that it is starting.
    """

    def __init__(self, message: str, starting: bool = False) -> None:
        super().__init__(message)
        self.starting = starting


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Translate errors of a study's storage.

    Args:
        where: the journal's path or the database's address, without its password.

    Raises:
        StorageAway: where a retry may help.
        MissingResource: for permanent errors.
    """
    try:
        with disk_errors(Path(where)):
            yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = " ".join(str(getattr(cause, "orig", None) or cause or error).split())[:160]
        if isinstance(cause, _AWAY) and not _is_refused(cause, reason):
            starting = any(text in reason for text in _STARTING)
            message = f"the storage {where} does not answer: {reason}; start it and run the same command again"
            raise StorageAway(message, starting) from error
        raise MissingResource(f"the storage {where} can't be used: {reason}; check its address and rights") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(where, error) from error


def retry_while_away(step: Callable[[], T], where: str, note: Callable[[str], None], reached: bool = True) -> T:
    """Run a step, again while the storage is away. The step must be safe to repeat.

    Args:
        note: receives one line, with the deadline, if the wait takes longer than ten seconds.
        reached: this process had an answer before, so the address is right.

    Raises:
        StorageAway: when the storage is still away at the deadline.
        MissingResource: for permanent errors.
    """
    began, pause, reported = time.monotonic(), _PAUSES_S[0], 0.0
    while True:
        try:
            with storage_errors(where):
                return step()
        except (StorageAway, UpdateFinishedTrialError) as error:
            # UpdateFinishedTrialError: the lock was lost with the storage, and another worker recovered the trial
            reached = reached or (isinstance(error, StorageAway) and error.starting)
            patience, waited = PATIENCE_S if reached else FIRST_PATIENCE_S, time.monotonic() - began
            if waited > patience:
                raise StorageAway(f"{error} (asked again for {waited:.0f} s)") from error
            if waited > REPORT_AFTER_S and reported < patience:
                reported = patience
                until = time.strftime("%H:%M:%S", time.localtime(time.time() + patience - waited))
                note(f"the storage {where} does not answer; trying again until {until}, {patience:.0f} s in all")
        time.sleep(pause)
        pause = min(2 * pause, _PAUSES_S[1])


def _is_refused(cause: BaseException, reason: str) -> bool:
    """Return whether the database rejects this user, this database or this file."""
    state = getattr(cause.orig, "sqlstate", None) if isinstance(cause, DBAPIError) else None
    if state is not None:
        return str(state).startswith(_REFUSED_STATES)
    return any(text in reason for text in _REFUSALS)
