"""Auxiliary studies of a study: finished trainings, each added atomically and once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from optuna.study import Study
from optuna.trial import TrialState, create_trial

from farsearch.records import BaselineTrial, Cost, StudySnapshot, TrialOutcome, VerifiedTrial, result_of, trial_to_dict
from farsearch.study.snapshot import snapshot_of, trial_record
from farsearch.study.store import Store

__all__ = ["AuxiliaryTrial", "AuxiliaryWatcher", "add_once", "trials_by_key"]

AuxiliaryTrial = BaselineTrial[TrialOutcome] | VerifiedTrial[TrialOutcome]


class AuxiliaryWatcher(Protocol):
    """Callbacks for the trainings of an auxiliary study."""

    def training_started(self, title: str, number: int, total: int, cost: Cost) -> None:
        """The training ``number`` of ``total`` starts, counted from 1."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A training step is done."""

    def note(self, text: str) -> None:
        """An event for the log."""

    def training_ended(self, record: AuxiliaryTrial, auxiliary: StudySnapshot) -> None:
        """A training is stored in the auxiliary study, whose content is ``auxiliary``."""


def trials_by_key(auxiliary: Study) -> dict[Hashable, AuxiliaryTrial]:
    """Return the trainings of an auxiliary study by their identity."""
    trials = map(trial_record, auxiliary.get_trials(deepcopy=False))
    return {trial.key: trial for trial in trials if isinstance(trial, BaselineTrial | VerifiedTrial)}


def add_once(auxiliary: Study, store: Store, added: AuxiliaryTrial) -> tuple[AuxiliaryTrial, StudySnapshot]:
    """Append a training idempotently; return the stored one and a snapshot of the auxiliary study."""
    result, cost = result_of(added), added.cost
    trial = create_trial(
        state=TrialState.COMPLETE if result else TrialState.PRUNED,
        values=[result.metric, cost.peak_memory_mib, cost.wall_time_s] if result else None,
        user_attrs={"record": trial_to_dict(added)},
    )

    def step() -> tuple[AuxiliaryTrial, StudySnapshot]:
        with store.lock(auxiliary.study_name):
            if added.key not in trials_by_key(auxiliary):
                auxiliary.add_trial(trial)
            return trials_by_key(auxiliary)[added.key], snapshot_of(auxiliary)

    return store.ask(step)
