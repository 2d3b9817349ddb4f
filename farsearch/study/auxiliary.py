"""Auxiliary studies of a study: finished trainings, each added atomically and once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

from optuna.study import Study
from optuna.trial import TrialState, create_trial

from farsearch.cost.pricer import Cost
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.study.snapshot import snapshot_of, trial_record
from farsearch.study.store import Store

__all__ = ["AuxiliaryWatcher", "add_once", "records_by_key"]

Key = Callable[[TrialRecord], Hashable]
"""Returns the identity of a training: an auxiliary study has at most one of each."""


class AuxiliaryWatcher(Protocol):
    """Callbacks for the trainings of an auxiliary study."""

    def training_started(self, title: str, number: int, total: int, cost: Cost) -> None:
        """The training ``number`` of ``total`` starts, counted from 1."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A training step is done."""

    def note(self, text: str) -> None:
        """An event for the log."""

    def training_ended(self, record: TrialRecord, auxiliary: StudySnapshot) -> None:
        """A training is stored in the auxiliary study, whose content is ``auxiliary``."""


def records_by_key(auxiliary: Study, key: Key) -> dict[Hashable, TrialRecord]:
    """Return the trainings of an auxiliary study by their identity."""
    return {key(record): record for record in map(trial_record, auxiliary.get_trials(deepcopy=False))}


def add_once(auxiliary: Study, store: Store, record: TrialRecord, key: Key) -> tuple[TrialRecord, StudySnapshot]:
    """Append a training idempotently; return the stored record and a snapshot of the auxiliary study."""
    complete = record.state == "complete"
    values = [record.metric, record.peak_memory_mib, record.wall_time_s]
    trial = create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        values=[float(value or 0.0) for value in values] if complete else None,
        user_attrs={"record": record.to_dict()},
    )

    def step() -> tuple[TrialRecord, StudySnapshot]:
        with store.lock(auxiliary.study_name):
            if key(record) not in records_by_key(auxiliary, key):
                auxiliary.add_trial(trial)
            return records_by_key(auxiliary, key)[key(record)], snapshot_of(auxiliary)

    return store.ask(step)
