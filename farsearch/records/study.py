"""A study at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from farsearch.records.results import Measurement
from farsearch.records.settings import StudySettings
from farsearch.records.trial import (
    AnyTrial,
    BaselineTrial,
    Completed,
    CompleteTrial,
    Running,
    Stopped,
    Trial,
    TrialOutcome,
    VerifiedTrial,
    Waiting,
    is_complete,
    on_front,
)

__all__ = ["SCHEMA_VERSION", "Paired", "PointKey", "StudySnapshot", "constant_answer", "point_key"]

SCHEMA_VERSION = 1
"""Version of everything that the records write. It rises when an old file could be misread."""


PointKey = int | str
"""Identity of a trial whose predictions are stored: its number, of a baseline ``METHOD-RATE``."""

Paired = Callable[[PointKey, PointKey], "float | None"]
"""Returns the standard error of the difference between two trials' metrics on the same validation rows.

None where it is unknown because the predictions of one were removed.
"""


def constant_answer(meta: Mapping[str, Any], rows: str = "validation") -> float | None:
    """Return the score of a constant answer on ``validation`` or ``dev`` rows from metadata; None if unknown."""
    answer = meta.get("constant_answer", {}).get(rows)
    return None if answer is None else float(answer["value"])


def point_key(trial: AnyTrial) -> PointKey:
    """Return the key of a trial of a search, or of a baseline."""
    if isinstance(trial, BaselineTrial):
        return f"{trial.baseline.method}-{trial.baseline.learning_rate:g}"
    return trial.number


@dataclass(frozen=True)
class StudySnapshot:
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
        paired: standard errors of differences; None where no predictions are at hand, and trials count as independent.
    """

    name: str
    settings: StudySettings
    metric_name: str
    budget_mib: float
    n_trials: int
    trials: tuple[AnyTrial, ...]
    rejected: Mapping[str, int] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[BaselineTrial[Completed], ...] = ()
    verified: tuple[VerifiedTrial[TrialOutcome], ...] = ()
    measurements: tuple[Measurement, ...] = ()
    paired: Paired | None = field(default=None, compare=False, repr=False)

    @property
    def front(self) -> tuple[Trial[Completed], ...]:
        """The trials on the Pareto front, from the least memory to the most."""
        return tuple(
            sorted(filter(on_front, self.trials), key=lambda t: (t.cost.peak_memory_mib, t.cost.wall_time_s, t.number))
        )

    @property
    def complete(self) -> tuple[CompleteTrial, ...]:
        """The complete trials, by number."""
        return tuple(filter(is_complete, self.trials))

    @property
    def ended(self) -> tuple[AnyTrial, ...]:
        """The trials that are neither queued nor in training."""
        return tuple(trial for trial in self.trials if not isinstance(trial.outcome, Waiting | Running))

    @property
    def finished(self) -> int:
        """The number of trials that count towards ``n_trials``: the complete and the stopped ones."""
        return sum(isinstance(trial.outcome, Completed | Stopped) for trial in self.trials)
