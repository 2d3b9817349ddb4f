"""The Pareto front of trials."""

from __future__ import annotations

import math
from collections.abc import Iterable

from farsearch.floor import metric_floor
from farsearch.pareto import non_dominated
from farsearch.records import AnyTrial, CompleteTrial, is_complete

__all__ = ["Objectives", "costs_of", "objectives", "pareto_front"]

Objectives = tuple[float, float, float]
"""The three objectives as costs: the negative metric, peak memory in MiB, time on the device in seconds."""


def objectives(trial: AnyTrial) -> Objectives | None:
    """Return the costs of a feasible complete trial with finite objectives; None where it can't be on a front."""
    if not is_complete(trial) or not trial.cost.feasible:
        return None
    costs = costs_of(trial)
    return costs if all(map(math.isfinite, costs)) else None


def costs_of(trial: CompleteTrial) -> Objectives:
    """Return the objectives of a complete trial as costs."""
    return -trial.outcome.metric, trial.cost.peak_memory_mib, trial.cost.wall_time_s


def pareto_front(trials: Iterable[AnyTrial], constant: float | None = None) -> set[int]:
    """Return the numbers of the complete, feasible trials that no other dominates; of equal ones the lowest.

    Args:
        constant: metric of a constant answer on the same rows. Trials that are not above ``metric_floor`` are then left
            out: what costs next to nothing and learned next to nothing is no choice. Where none is above it, all stay.
    """
    able = {trial.number: (trial, cost) for trial in trials if (cost := objectives(trial)) is not None}
    best = min(able.values(), key=lambda pair: pair[1], default=None)
    if best is not None and constant is not None:
        error = best[0].outcome.metric_error if is_complete(best[0]) else 0.0
        floor = metric_floor(-best[1][0], error, constant)
        able = {number: pair for number, pair in able.items() if -pair[1][0] > floor} or able
    numbers = sorted(able)
    return {numbers[i] for i in non_dominated([able[number][1] for number in numbers], distinct=True)}
