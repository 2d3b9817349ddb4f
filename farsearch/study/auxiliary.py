"""What a study has beside it: studies to which finished trainings are added whole, each once.

A kill at any moment leaves a training there or not.
"""

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
"""What a auxiliary has at most one training of."""


class AuxiliaryWatcher(Protocol):
    """Hears how the trainings of a auxiliary go on."""

    def training_started(self, title: str, number: int, total: int, cost: Cost) -> None:
        """The training number ``number`` of ``total`` begins, counted from 1."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A training step is done."""

    def note(self, text: str) -> None:
        """Something took time or went another way."""

    def training_ended(self, record: TrialRecord, auxiliary: StudySnapshot) -> None:
        """A training is kept in the auxiliary study, whose state is ``auxiliary``."""


def records_by_key(auxiliary: Study, key: Key) -> dict[Hashable, TrialRecord]:
    """The trainings of a auxiliary."""
    return {key(record): record for record in map(trial_record, auxiliary.get_trials(deepcopy=False))}


def add_once(auxiliary: Study, store: Store, record: TrialRecord, key: Key) -> tuple[TrialRecord, StudySnapshot]:
    """Add a training, unless another process was faster. It as it is there, and the auxiliary."""
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
