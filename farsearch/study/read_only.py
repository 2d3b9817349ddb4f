"""Studies for a process that only reads them: without what Optuna's samplers need and a reader does not.

A trial's record says everything about it, so its parameters, which make up most of a journal's entries and of a
database's rows, are left where they are. A study of ten thousand trials is read in a third of the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._rdb.models import TrialModel, TrialUserAttributeModel
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from farsearch.study.journal import damaged
from farsearch.study.names import SIBLINGS
from farsearch.study.store import Store, storage_errors

__all__ = ["ReadingStore", "StoredTrial", "StudyUse", "reading", "stored_trials"]

_ATTRIBUTES = ("record", "reason", "rejected")
"""What a snapshot is made of."""

_SKIPPED = tuple(
    f'{{"op_code":{operation.value},'.encode()
    for operation in (
        JournalOperation.SET_TRIAL_PARAM,
        JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
        JournalOperation.SET_TRIAL_SYSTEM_ATTR,
    )
)
"""How the journal's entries begin that nothing here is made from."""


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Read a study in here: Python does not look for garbage among half a million objects that all stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass(frozen=True)
class StudyUse:
    """What a study is about and how far it is.

    Attributes:
        n_trials: how many it is to have.
        last_used: when a trial of it last began or ended, by the clock of the host that trained it.
    """

    name: str
    device: str
    n_trials: int
    trained: int
    running: int
    last_used: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        last = None if self.last_used is None else self.last_used.isoformat(timespec="seconds")
        return {**dataclasses.asdict(self), "last_used": last}


def _local(time: datetime | None) -> datetime | None:
    """Return a time of Optuna's tables, which are in UTC, in this machine's time zone, as a trial has it."""
    return None if time is None else time.replace(tzinfo=timezone.utc).astimezone().replace(tzinfo=None)


def _counts(study: Study) -> tuple[Counter[TrialState], datetime | None]:
    """Trials by state, and when one last began or ended."""
    backend = getattr(study._storage, "_backend", None)  # Optuna wraps a database in a cache
    if isinstance(backend, RDBStorage):
        trials = TrialModel.__table__.c
        query = (
            sqlalchemy.select(
                TrialModel.state,
                sqlalchemy.func.count(),
                sqlalchemy.func.max(trials.datetime_start),
                sqlalchemy.func.max(trials.datetime_complete),
            )
            .where(TrialModel.study_id == study._study_id)
            .group_by(TrialModel.state)
        )
        with backend.engine.connect() as connection:
            rows = [(state, count, *map(_local, times)) for state, count, *times in connection.execute(query)]
    else:
        rows = [
            (trial.state, 1, trial.datetime_start, trial.datetime_complete)
            for trial in study.get_trials(deepcopy=False)
        ]
    counts: Counter[TrialState] = Counter()
    for state, count, *_ in rows:
        counts[state] += count
    return counts, max((time for row in rows for time in row[2:] if time is not None), default=None)


class ReadingStore(Store):
    """The studies of a working directory or a database, for commands that change nothing."""

    def _open(self) -> BaseStorage:
        return super()._open() if self.url is not None else _open_journal(self._journal)

    def uses(self) -> list[StudyUse]:
        """What every study is about and how far it is, the latest last."""
        if not self.exists():
            return []
        with storage_errors(self.where):
            return [self._use(self.load(name)) for name in self.names()]

    def _use(self, study: Study) -> StudyUse:
        siblings = [self.sibling(study.study_name, kind) for kind in SIBLINGS]
        counts, last = _counts(study)
        times = [last, *(_counts(one)[1] for one in siblings if one is not None)]
        attrs = study.user_attrs
        return StudyUse(
            name=study.study_name,
            device=str(attrs["settings"].get("device", "")),
            n_trials=int(attrs.get("n_trials", 0)),
            trained=counts[TrialState.COMPLETE] + counts[TrialState.PRUNED],
            running=counts[TrialState.RUNNING],
            last_used=max((time for time in times if time is not None), default=None),
        )


def _open_journal(path: Path) -> JournalStorage:
    try:
        return JournalStorage(_ReadJournal(str(path)))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise damaged(str(path), error) from error


class _ReadJournal(JournalFileBackend):
    """Gives Optuna the journal's entries without those that it does not need here. Nothing can be appended."""

    _read = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """What was written since the last call, whatever its number: the entries that were left out count for none."""
        with open(self._file_path, "rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._read += len(line)
                if not line.startswith(_SKIPPED):
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Nobody who reads writes."""
        raise AssertionError("this journal was opened for reading")


@dataclass(frozen=True)
class StoredTrial:
    """The part of Optuna's trial that a record is read from."""

    number: int
    state: TrialState
    user_attrs: dict[str, Any] = field(default_factory=dict)


def stored_trials(study: Study) -> Sequence[StoredTrial | FrozenTrial]:
    """The trials of a study by number; from a database only what a record is read from."""
    backend = getattr(study._storage, "_backend", None)  # Optuna wraps a database in a cache
    if not isinstance(backend, RDBStorage):
        return study.get_trials(deepcopy=False)
    attribute = TrialUserAttributeModel
    query = (
        sqlalchemy.select(TrialModel.number, TrialModel.state, attribute.key, attribute.value_json)
        .outerjoin(attribute, (attribute.trial_id == TrialModel.trial_id) & attribute.key.in_(_ATTRIBUTES))
        .where(TrialModel.study_id == study._study_id)
        .order_by(TrialModel.number)
    )
    trials: dict[int, StoredTrial] = {}
    with backend.engine.connect() as connection:
        for number, state, key, value in connection.execute(query):
            trial = trials.setdefault(number, StoredTrial(number, state))
            if key is not None:
                trial.user_attrs[key] = json.loads(value)
    return list(trials.values())
