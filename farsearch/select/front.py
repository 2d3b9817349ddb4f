"""Which trials no other dominates."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from farsearch.records import StudySnapshot, TrialRecord

__all__ = ["Objectives", "costs_of", "members", "objectives", "pareto_front"]

Objectives = tuple[float, float, float]
"""The three objectives as costs: the negative metric, peak memory in MiB, time on the device in seconds."""


def objectives(trial: TrialRecord) -> Objectives | None:
    """The costs of a trial that can be on a front: complete, feasible, all three objectives numbers. Else None."""
    if trial.state != "complete" or not trial.feasible:
        return None
    if trial.metric is None or trial.peak_memory_mib is None or trial.wall_time_s is None:
        return None
    costs = (-trial.metric, trial.peak_memory_mib, trial.wall_time_s)
    return costs if all(map(math.isfinite, costs)) else None


def costs_of(trial: TrialRecord) -> Objectives:
    """The costs of a trial that is on a front."""
    costs = objectives(trial)
    assert costs is not None
    return costs


def members(snapshot: StudySnapshot) -> list[TrialRecord]:
    """The trials on the front, from the least memory to the most."""
    return [trial for trial in snapshot.front if objectives(trial) is not None]


def pareto_front(trials: Iterable[TrialRecord]) -> set[int]:
    """Numbers of the complete, feasible trials that no other one dominates; trials with equal objectives are all kept.

    One trial dominates another when it is at least as good in all three objectives and better in one. The trials are
    swept in order of the first cost with a staircase of the other two, so 10,000 take a fraction of a second.
    """
    costs = {trial.number: cost for trial in trials if (cost := objectives(trial)) is not None}
    front: set[Objectives] = set()
    # The staircase: of what came before, memory rising and time falling, so everything that is above it is dominated.
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
