"""The results of a study's trials, as the known-cost sampler models them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.trial import FrozenTrial

from farsearch.floor import metric_floor
from farsearch.hypervolume import Array
from farsearch.pareto import non_dominated

__all__ = ["History", "most_telling"]

_UNKNOWN = 0.1
"""Standard error of a metric where it is not recorded, by the deviation of the metrics."""

_DEPTH = 0.5
"""Metrics are raised to so far below the floor, as a share of what the best one is above it."""


@dataclass(frozen=True)
class History:
    """Results of trials.

    Attributes:
        metric: ``[trials]``. costs: memory and time, ``[trials, 2]``.
        error: standard error of a metric. constant: metric of a constant answer; None where it is not recorded.
    """

    metric: Array
    costs: Array
    error: float
    constant: float | None

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], constant: float | None) -> History:
        """Return the results of complete trials."""
        values = np.array([trial.values for trial in trials], dtype=float)
        errors = [trial.user_attrs.get("record", {}).get("metric_error") for trial in trials]
        known = [error for error in errors if error]  # that of a constant answer can be 0
        error = float(np.median(known)) if known else _UNKNOWN * float(values[:, 0].std())
        return cls(values[:, 0], values[:, 1:], error, constant)

    def with_trials(self, metric: Array, costs: Array) -> History:
        """Return the history with more trials."""
        return replace(self, metric=np.append(self.metric, metric), costs=np.vstack([self.costs, costs]))

    @property
    def front(self) -> list[int]:
        """Indices of the trials that no other dominates, in order; of equal trials all."""
        return sorted(non_dominated(np.column_stack([-self.metric, self.costs])).tolist())

    def floor(self, metric: Array) -> float:
        """Return the metric that a point has to exceed, if these are the trials' metrics; the lowest if unknown."""
        return max(metric_floor(float(metric.max()), self.error, self.constant), float(metric.min()))

    @property
    def lifted(self) -> Array:
        """The metrics, raised to below the floor: how badly a training failed carries no information.

        Otherwise it would stretch the scale on which the good trainings differ.
        """
        best, floor = float(self.metric.max()), self.floor(self.metric)
        return np.maximum(self.metric, floor - _DEPTH * (best - floor))


def most_telling(trials: list[FrozenTrial], most: int, draw: np.random.Generator) -> list[FrozenTrial]:
    """Return at most ``most`` trials: half of them of the front, and a draw of the others."""
    if len(trials) <= most:
        return trials
    front = History.of(trials, None).front[: most // 2]
    others = np.setdiff1d(np.arange(len(trials)), front)
    chosen = draw.choice(others, size=most - len(front), replace=False)
    return [trials[i] for i in sorted([*front, *chosen.tolist()])]
