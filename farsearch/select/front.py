"""The Pareto front of trials."""

from __future__ import annotations

import math
from collections.abc import Iterable

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


def pareto_front(trials: Iterable[AnyTrial]) -> set[int]:
    """Return the numbers of the complete, feasible trials that no other dominates; of equal ones all."""
    costs = {trial.number: cost for trial in trials if (cost := objectives(trial)) is not None}
    numbers = list(costs)
    return {numbers[i] for i in non_dominated(list(costs.values()))}
