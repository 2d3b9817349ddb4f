"""Access to Optuna's private attributes, modules and tables; no other module uses them.

Optuna is pinned to its minor release in pyproject.toml: check each function here before the pin is raised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from alembic.script import ScriptDirectory
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled
from optuna.storages._rdb.models import StudyModel, TrialModel, TrialUserAttributeModel
from optuna.storages.journal._storage import JournalOperation
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

__all__ = [
    "PARAMETER_ENTRIES",
    "Heartbeats",
    "StoredTrial",
    "allows",
    "heartbeats_of",
    "is_same",
    "newest_tables_version",
    "queued_params",
    "read_attributes",
    "rename_in_database",
    "set_trial_attr",
    "state_counts",
    "storage_of",
    "stored_state",
    "user_attrs_of_studies",
]

PARAMETER_ENTRIES = tuple(
    f'{{"op_code":{operation.value},'.encode()
    for operation in (
        JournalOperation.SET_TRIAL_PARAM,
        JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
        JournalOperation.SET_TRIAL_SYSTEM_ATTR,
    )
)
"""First bytes of the journal entries that only a sampler reads."""


@dataclass(frozen=True)
class StoredTrial:
    """The part of Optuna's trial that a record is read from."""

    number: int
    state: TrialState
    datetime_start: datetime | None
    user_attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heartbeats:
    """Heartbeats of a study's trials, recorded in its database.

    Attributes:
        interval_s: seconds between two heartbeats of a running trial.
    """

    storage: BaseHeartbeat
    study_id: int
    interval_s: float

    def record(self, trial: Trial | FrozenTrial) -> None:
        """Record a heartbeat of a running trial, at the database's time."""
        self.storage.record_heartbeat(trial._trial_id)

    def stale_ids(self) -> set[int]:
        """Return the ids of running trials without a heartbeat in the grace period."""
        return set(self.storage._get_stale_trial_ids(self.study_id))

    def is_stale(self, trial: FrozenTrial, stale_ids: Iterable[int]) -> bool:
        """Return whether a trial is among these ids."""
        return trial._trial_id in stale_ids


def heartbeats_of(study: Study) -> Heartbeats | None:
    """Return the heartbeats of a study; None where its storage records none."""
    storage = study._storage
    if not isinstance(storage, BaseHeartbeat) or not is_heartbeat_enabled(storage):
        return None
    return Heartbeats(storage, study._study_id, float(storage.get_heartbeat_interval() or 0))


def is_same(one: Study, other: Study) -> bool:
    """Return whether two objects are the same study of one opened storage, which may be wrapped in a cache."""
    first, second = (getattr(study._storage, "_backend", study._storage) for study in (one, other))
    return one._study_id == other._study_id and first is second


def storage_of(study: Study) -> BaseStorage:
    """Return the storage that a study was loaded from."""
    return study._storage


def set_trial_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Set a user attribute of a trial that was read from the study."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def stored_state(study: Study, trial: Trial) -> TrialState:
    """Return the state that a trial has in the storage now."""
    return study._storage.get_trial(trial._trial_id).state


def queued_params(trial: FrozenTrial) -> dict[str, Any] | None:
    """Return the parameters with which a trial was enqueued; None for a trial that was not."""
    params: dict[str, Any] | None = trial.system_attrs.get("fixed_params")
    return params


def allows(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a numeric distribution has ``value`` in its range and on its grid."""
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def user_attrs_of_studies(storage: BaseStorage) -> dict[str, Mapping[str, Any]]:
    """Return the user attributes of every study in a storage, by the study's name."""
    return {study.study_name: study.user_attrs for study in storage.get_all_studies()}


def newest_tables_version() -> str:
    """Return the version of the database tables that the installed Optuna needs."""
    scripts = Path(optuna.storages.__file__).with_name("_rdb") / "alembic"
    return str(ScriptDirectory(str(scripts)).get_current_head())


def state_counts(study: Study) -> list[tuple[TrialState, int, datetime | None, datetime | None]]:
    """Count the trials of a study by state.

    Returns:
        Rows of a state, a number of trials, their latest start and their latest end in local time. A state may be in
        several rows.
    """
    database = _database_of(study._storage)
    if database is None:
        return [(t.state, 1, t.datetime_start, t.datetime_complete) for t in study.get_trials(deepcopy=False)]
    trials = TrialModel.__table__.c
    latest = (sqlalchemy.func.max(trials.datetime_start), sqlalchemy.func.max(trials.datetime_complete))
    query = (
        sqlalchemy.select(TrialModel.state, sqlalchemy.func.count(), *latest)
        .where(TrialModel.study_id == study._study_id)
        .group_by(TrialModel.state)
    )
    with database.engine.connect() as connection:
        rows = connection.execute(query).all()
    return [(state, count, _local(started), _local(ended)) for state, count, started, ended in rows]


def read_attributes(study: Study, names: Sequence[str]) -> Sequence[StoredTrial | FrozenTrial]:
    """Read the trials of a study by number; from a database only their states and these user attributes."""
    database = _database_of(study._storage)
    if database is None:
        return study.get_trials(deepcopy=False)
    attribute, start = TrialUserAttributeModel, TrialModel.__table__.c.datetime_start
    query = (
        sqlalchemy.select(TrialModel.number, TrialModel.state, start, attribute.key, attribute.value_json)
        .outerjoin(attribute, (attribute.trial_id == TrialModel.trial_id) & attribute.key.in_(names))
        .where(TrialModel.study_id == study._study_id)
        .order_by(TrialModel.number)
    )
    trials: dict[int, StoredTrial] = {}
    with database.engine.connect() as connection:
        for number, state, started, key, value in connection.execute(query):
            trial = trials.setdefault(number, StoredTrial(number, state, _local(started)))
            if key is not None:
                trial.user_attrs[key] = json.loads(value)
    return list(trials.values())


def rename_in_database(storage: BaseStorage, names: Iterable[tuple[str, str]]) -> bool:
    """Rename studies, given as (old, new), in one transaction; return False where the storage is no database."""
    database = _database_of(storage)
    if database is None:
        return False
    with database.engine.begin() as connection:
        for old, new in names:
            rename = sqlalchemy.update(StudyModel).where(StudyModel.study_name == old)
            connection.execute(rename.values(study_name=new))
    return True


def _database_of(storage: BaseStorage) -> RDBStorage | None:
    backend = getattr(storage, "_backend", None)  # load_study wraps a database in a cache
    return backend if isinstance(backend, RDBStorage) else None


def _local(time: datetime | None) -> datetime | None:
    """Convert a time of the tables, which is in UTC, to the local time that a trial has."""
    return None if time is None else time.replace(tzinfo=timezone.utc).astimezone().replace(tzinfo=None)
