"""What a study's storage refuses, in our words, and how long one that does not answer is asked again."""

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
"""How long a storage that does not answer is asked again."""

FIRST_PATIENCE_S = 60.0
"""The same for one that this process never reached: its address may be wrong."""

SAY_AFTER_S = 10.0
"""A shorter wait is not mentioned."""

_PAUSES_S = (0.5, 15.0)
"""The first and the longest pause between two attempts."""

_AWAY = (OperationalError, InterfaceError, DisconnectionError)
"""Errors of a database that may answer a little later."""

_REFUSED_STATES = ("28", "3D", "42")
"""Classes of SQLSTATE that do not pass: the user or the password, the database's name, what the user may do."""

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
"""The same in the words of PostgreSQL, which libpq gives without a state where a connection is refused, and SQLite."""

_STARTING = ("starting up", "shutting down", "recovery", "not yet accepting connections")
"""What a PostgreSQL server says that will answer soon."""

T = TypeVar("T")


class StorageAway(MissingResource):
    """The database does not answer now, and may a little later.

    Attributes:
        starting: it said itself that it will.
    """

    def __init__(self, message: str, starting: bool = False) -> None:
        super().__init__(message)
        self.starting = starting


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Translate what the study's storage refuses.

    Args:
        where: the journal's path or the database's address, without its password.

    Raises:
        StorageAway: where trying again may help.
        MissingResource: where it does not.
    """
    try:
        with disk_errors(Path(where)):
            yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = " ".join(str(getattr(cause, "orig", None) or cause or error).split())[:160]
        if isinstance(cause, _AWAY) and not _is_refused(cause, reason):
            starting = any(words in reason for words in _STARTING)
            message = f"the storage {where} does not answer: {reason}; start it and run the same command again"
            raise StorageAway(message, starting) from error
        raise MissingResource(f"the storage {where} can't be used: {reason}; check its address and rights") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(where, error) from error


def retry_while_away(step: Callable[[], T], where: str, note: Callable[[str], None], reached: bool = True) -> T:
    """Do a step, again as long as the storage is away. It must be safe to repeat.

    Args:
        note: told once what is waited for and until when, if that takes longer than ten seconds.
        reached: this process had an answer before, so the address is right.

    Raises:
        StorageAway: where the storage is still away when the patience ends.
        MissingResource: where it refuses.
    """
    began, pause, told = time.monotonic(), _PAUSES_S[0], 0.0
    while True:
        try:
            with storage_errors(where):
                return step()
        except (StorageAway, UpdateFinishedTrialError) as error:
            # the second: the turn was lost with the storage, and another worker recovered this one's trial
            reached = reached or (isinstance(error, StorageAway) and error.starting)
            patience, waited = PATIENCE_S if reached else FIRST_PATIENCE_S, time.monotonic() - began
            if waited > patience:
                raise StorageAway(f"{error} (asked again for {waited:.0f} s)") from error
            if waited > SAY_AFTER_S and told < patience:
                told = patience
                until = time.strftime("%H:%M:%S", time.localtime(time.time() + patience - waited))
                note(f"the storage {where} does not answer; trying again until {until}, {patience:.0f} s in all")
        time.sleep(pause)
        pause = min(2 * pause, _PAUSES_S[1])


def _is_refused(cause: BaseException, reason: str) -> bool:
    """Whether the database answered that it does not want this user, this database or this file."""
    state = getattr(cause.orig, "sqlstate", None) if isinstance(cause, DBAPIError) else None
    if state is not None:
        return str(state).startswith(_REFUSED_STATES)
    return any(words in reason for words in _REFUSALS)
