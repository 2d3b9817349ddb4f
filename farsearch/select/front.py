"""The Pareto front of trials."""

from __future__ import annotations

import math
from collections.abc import Iterable

from farsearch.pareto import non_dominated
from farsearch.records import StudySnapshot, TrialRecord

__all__ = ["Objectives", "costs_of", "members", "objectives", "pareto_front"]

Objectives = tuple[float, float, float]
"""The three objectives as costs: the negative metric, peak memory in MiB, time on the device in seconds."""


def objectives(trial: TrialRecord) -> Objectives | None:
    """Return the costs of a feasible complete trial with finite objectives; None where it can't be on a front."""
    if trial.state != "complete" or not trial.feasible:
        return None
    if trial.metric is None or trial.peak_memory_mib is None or trial.wall_time_s is None:
        return None
    costs = (-trial.metric, trial.peak_memory_mib, trial.wall_time_s)
    return costs if all(map(math.isfinite, costs)) else None


def costs_of(trial: TrialRecord) -> Objectives:
    """Return the costs of a trial on a front."""
    costs = objectives(trial)
    assert costs is not None
    return costs


def members(snapshot: StudySnapshot) -> list[TrialRecord]:
    """Return the trials on the front, from the least memory to the most."""
    return [trial for trial in snapshot.front if objectives(trial) is not None]


def pareto_front(trials: Iterable[TrialRecord]) -> set[int]:
    """Return the numbers of the complete, feasible trials that no other dominates; of equal ones all."""
    costs = {trial.number: cost for trial in trials if (cost := objectives(trial)) is not None}
    numbers = list(costs)
    return {numbers[i] for i in non_dominated(list(costs.values()))}
