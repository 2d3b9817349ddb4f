"""The Pareto front of trials."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

from farsearch.records import StudySnapshot, TrialRecord

__all__ = ["Objectives", "costs_of", "members", "objectives", "pareto_front", "undominated"]

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
    """Return the numbers of the feasible complete trials that no other dominates, including equal ones."""
    return undominated({trial.number: costs for trial in trials if (costs := objectives(trial)) is not None})


def undominated(costs: Mapping[int, Objectives]) -> set[int]:
    """Return the numbers whose costs no other dominates, including equal ones.

    One point dominates another when it is at least as good in all three objectives and better in one. The points are
    swept in order of the first cost with a staircase of the other two, so 10,000 take a fraction of a second.
    """
    front: set[Objectives] = set()
    # The staircase of earlier points, memory rising and time falling: points above it are dominated.
    memories: list[float] = []
    times: list[float] = []
    for cost in sorted(set(costs.values())):
        _, memory, time = cost
        i = bisect_right(memories, memory)
        if i > 0 and times[i - 1] <= time:
            continue
        front.add(cost)
        first = bisect_left(memories, memory)
        last = first
        while last < len(times) and times[last] >= time:
            last += 1
        memories[first:last], times[first:last] = [memory], [time]
    return {number for number, cost in costs.items() if cost in front}
