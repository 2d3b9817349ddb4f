"""Whether trials can be told apart, and the choices that a front has without noise.

Pure functions of a snapshot. The error of a difference is paired by row where the predictions of both trials are at
hand (``StudySnapshot.paired``), because rows that are hard for both cancel; otherwise the trials count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farsearch.records import (
    Completed,
    CompleteTrial,
    FarConfig,
    PricedTrial,
    StudySnapshot,
    Trial,
    TrialOutcome,
    point_key,
)

__all__ = [
    "SAME_COST",
    "Difference",
    "Lead",
    "costs_no_more",
    "difference",
    "full_fine_tuning_of",
    "is_no_better",
    "leads",
    "ratios",
    "trains_everything",
]

_ERRORS = 2.0
"""A difference of at most so many of its standard errors is within noise."""

SAME_COST = 0.02
"""Memories or times that differ by a smaller share are the same: predictions are not that exact."""


@dataclass(frozen=True)
class Difference:
    """The difference of two trials' metrics.

    Attributes:
        error: its standard error over the draw of the validation rows.
        paired: the error is that of the rows' differences; otherwise the root of the sum of both errors' squares.
    """

    value: float
    error: float
    paired: bool

    @property
    def known(self) -> bool:
        """Whether the error says something: it is 0 for a difference of one or two rows."""
        return self.error > 0 or self.value == 0

    @property
    def within_noise(self) -> bool:
        """Whether the difference is at most two of its errors."""
        return self.known and abs(self.value) <= _ERRORS * self.error


@dataclass(frozen=True)
class Lead:
    """A choice of the front: a trial, and those that cost more and that only noise, or nothing, makes better."""

    trial: Trial[Completed]
    behind: tuple[Trial[Completed], ...]


def difference(snapshot: StudySnapshot, trial: CompleteTrial, other: CompleteTrial) -> Difference:
    """Return the metric of ``trial`` minus that of ``other``."""
    value = trial.outcome.metric - other.outcome.metric
    paired = None if snapshot.paired is None else snapshot.paired(point_key(trial), point_key(other))
    if paired is not None:
        return Difference(value, paired, True)
    return Difference(value, math.hypot(trial.outcome.metric_error, other.outcome.metric_error), False)


def costs_no_more(trial: CompleteTrial, other: CompleteTrial) -> bool:
    """Return whether ``trial`` takes no more memory and no more time than ``other``, up to ``SAME_COST``."""
    most = 1 + SAME_COST
    return (
        trial.cost.peak_memory_mib <= most * other.cost.peak_memory_mib
        and trial.cost.wall_time_s <= most * other.cost.wall_time_s
    )


def is_no_better(snapshot: StudySnapshot, trial: CompleteTrial, other: CompleteTrial) -> bool:
    """Return whether the metric of ``trial`` is not above that of ``other`` by more than noise."""
    found = difference(snapshot, trial, other)
    return found.value <= 0 or found.within_noise


def leads(snapshot: StudySnapshot, front: Sequence[Trial[Completed]] | None = None) -> tuple[Lead, ...]:
    """Return the choices of the front, from the least memory to the most.

    Args:
        front: the members to choose from; None for all.

    Going from the cheapest (memory times time) to the most expensive, a trial stands behind the first leader that costs
    no more than it and that its metric does not exceed by more than noise; otherwise it is a leader itself.
    """
    front = snapshot.front if front is None else front
    costs = np.array([[trial.cost.peak_memory_mib, trial.cost.wall_time_s] for trial in front]).reshape(-1, 2)
    costs = np.log(np.maximum(costs, np.finfo(np.float64).tiny))
    order = np.lexsort((np.array([trial.number for trial in front]), costs.sum(axis=1)))
    behind: dict[int, list[Trial[Completed]]] = {}
    for i in map(int, order):
        known = np.fromiter(behind, dtype=np.intp, count=len(behind))
        able = known[(costs[known] <= costs[i] + math.log1p(SAME_COST)).all(axis=1)]
        leader = next((int(j) for j in able if is_no_better(snapshot, front[i], front[int(j)])), None)
        if leader is None:
            behind[i] = []
        else:
            behind[leader].append(front[i])
    return tuple(Lead(front[i], tuple(sorted(behind[i], key=lambda t: t.number))) for i in sorted(behind))


def full_fine_tuning_of(snapshot: StudySnapshot) -> CompleteTrial | None:
    """Return full fine-tuning, which everything is compared with: the baseline, else the best such trial, else None."""
    baseline = next((trial for trial in snapshot.baselines if trial.baseline.method == "full"), None)
    if baseline is not None:
        return baseline
    trials = [trial for trial in snapshot.complete if isinstance(trial, Trial) and trains_everything(trial.config)]
    return max(trials, key=lambda trial: (trial.outcome.metric, -trial.number), default=None)


def trains_everything(config: FarConfig) -> bool:
    """Return whether a configuration is full fine-tuning, at any learning rate."""
    canonical = config.canonical()
    units = (*canonical.frozen_fractions, *canonical.frozen_heads)
    frozen = (*units, canonical.frozen_embeddings, canonical.frozen_attention_layers)
    return not any(frozen) and not config.priming_epochs


def ratios(trial: PricedTrial[TrialOutcome], other: CompleteTrial) -> tuple[float, float]:
    """Return memory and time of ``trial`` as shares of those of ``other``; NaN where that has none."""
    pairs = (
        (trial.cost.peak_memory_mib, other.cost.peak_memory_mib),
        (trial.cost.wall_time_s, other.cost.wall_time_s),
    )
    memory, time = (mine / theirs if theirs else math.nan for mine, theirs in pairs)
    return memory, time
