"""A study at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farsearch.json_records import Record
from farsearch.records.settings import StudySettings
from farsearch.records.trial import Measurement, TrialRecord

__all__ = ["SCHEMA_VERSION", "StudySnapshot"]

SCHEMA_VERSION = 1
"""Version of everything that the records write. It rises when an old file could be misread."""


@dataclass(frozen=True)
class StudySnapshot(Record):
    """The content of a study at one moment: the data of mirrors, reports and choices.

    Attributes:
        metric_name: name of the task's metric.
        rejected: proposals that were not trained, counted by reason.
        budget_mib: lower estimate of the memory that the device has for a process, the bound of feasible trials.
        meta: metadata, not part of the fingerprint: versions, command, model size, data source.
        baselines: the best trial of each baseline method on validation, among those that learned if any did. Their
            numbers are those of the auxiliary study.
        verified: the trainings of ``verify``, one per point and seed, numbered in their auxiliary study.
        measurements: measurements of boards with bundles of this study, in order of arrival.
    """

    name: str
    settings: StudySettings
    metric_name: str
    budget_mib: float
    n_trials: int
    trials: tuple[TrialRecord, ...]
    rejected: Mapping[str, int] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[TrialRecord, ...] = ()
    verified: tuple[TrialRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials on the Pareto front, from the least memory to the most."""
        members = [trial for trial in self.trials if trial.on_front]
        return tuple(sorted(members, key=lambda t: (t.peak_memory_mib or 0.0, t.wall_time_s or 0.0, t.number)))

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The complete trials, by number."""
        return tuple(trial for trial in self.trials if trial.state == "complete")
