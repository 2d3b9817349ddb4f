"""Choosing from a study: its Pareto front, and one trial of it by intent, with the reason. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from farsearch.errors import BadInput, NoFeasibleTrial
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.tables import human_difference, human_memory, human_metric, human_time

__all__ = ["Choice", "Objectives", "Preference", "choose", "choose_trial", "objectives", "pareto_front"]

Preference = Literal["knee", "accuracy", "memory", "time"]

Objectives = tuple[float, float, float]
"""The three objectives as costs: the negative metric, peak memory in MiB, time on the device in seconds."""

_NOISE = 2.0
"""A difference under so many standard errors of it is within noise."""


@dataclass(frozen=True)
class Choice:
    """A chosen trial.

    Attributes:
        reason: two lines: why this one, and what its neighbours on the front would cost or gain.
    """

    trial: TrialRecord
    reason: str


def objectives(trial: TrialRecord) -> Objectives | None:
    """The costs of a trial that can be on a front: complete, feasible, all three objectives numbers. Else None."""
    if trial.state != "complete" or not trial.feasible:
        return None
    if trial.metric is None or trial.peak_memory_mib is None or trial.wall_time_s is None:
        return None
    costs = (-trial.metric, trial.peak_memory_mib, trial.wall_time_s)
    return costs if all(map(math.isfinite, costs)) else None


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


def choose(snapshot: StudySnapshot, prefer: Preference) -> Choice:
    """The trial of the front that serves an intent best.

    ``knee`` is the compromise: each objective is brought to 0 (best on the front) … 1 (worst on the front), and the
    point nearest to 0, 0, 0 is taken; of equally near ones the one that is primed least, then the one that needs the
    least memory, then the first. ``accuracy``, ``memory`` and ``time`` take the best in that objective; of several,
    the one that is better in the others.

    Raises:
        NoFeasibleTrial: when the front is empty.
        BadInput: for an unknown preference.
    """
    front = _front(snapshot)
    if not front:
        raise NoFeasibleTrial(f"study {snapshot.name} has no trial on its front to choose from; run more trials first")
    if prefer == "knee":
        distances = _distances(front)
        trial = min(front, key=lambda t: (distances[t.number], _primed(t), t.peak_memory_mib, t.number))
        return Choice(
            trial, _reason(snapshot, trial, f"nearest to the best of all three objectives among {len(front)}")
        )
    if prefer not in _ORDERS:
        raise BadInput(f"preference {prefer!r} is unknown; it must be knee, {', '.join(_ORDERS)}")
    order, why = _ORDERS[prefer]
    trial = min(front, key=lambda t: (*order(_costs(t)), t.number))
    return Choice(trial, _reason(snapshot, trial, f"{why} of {len(front)} on the front"))


_ORDERS: dict[str, tuple[Callable[[Objectives], Objectives], str]] = {
    "accuracy": (lambda c: c, "best metric"),
    "memory": (lambda c: (c[1], c[0], c[2]), "least memory"),
    "time": (lambda c: (c[2], c[0], c[1]), "least time"),
}


def choose_trial(snapshot: StudySnapshot, number: int) -> Choice:
    """The trial of that number, on the front or not, with what the front offers beside it.

    Raises:
        BadInput: when there is no such trial, or it was not trained to its end.
    """
    trial = next((trial for trial in snapshot.trials if trial.number == number), None)
    if trial is None:
        known = f"0 to {max(t.number for t in snapshot.trials)}" if snapshot.trials else "none yet"
        raise BadInput(f"trial {number} is not in study {snapshot.name}; it has {known}")
    if trial.state != "complete":
        reason = f" ({trial.reason})" if trial.reason else ""
        raise BadInput(f"trial {number} is {trial.state}{reason} and has no result; choose a complete one")
    if trial.on_front:
        return Choice(trial, _reason(snapshot, trial, "asked for, on the front"))
    return Choice(trial, _reason(snapshot, trial, f"asked for, {_why_not(snapshot, trial)}"))


def _front(snapshot: StudySnapshot) -> list[TrialRecord]:
    """Members of the front, from the least memory to the most."""
    return [trial for trial in snapshot.front if objectives(trial) is not None]


def _costs(trial: TrialRecord) -> Objectives:
    costs = objectives(trial)
    assert costs is not None
    return costs


def _distances(front: Sequence[TrialRecord]) -> dict[int, float]:
    """Euclidean distance to the ideal point by trial, objectives scaled by their range on the front.

    Rounded to nine digits, so that points that are equally near but for the order of an addition count as equal.
    """
    columns = list(zip(*(_costs(trial) for trial in front), strict=True))
    lows = [min(column) for column in columns]
    spans = [max(column) - min(column) for column in columns]
    return {trial.number: round(math.hypot(*map(_share, _costs(trial), lows, spans)), 9) for trial in front}


def _share(value: float, low: float, span: float) -> float:
    return (value - low) / span if span > 0 else 0.0


def _primed(trial: TrialRecord) -> float:
    """How long a trial was primed: in steps where they are known, else in epochs."""
    if trial.priming is not None:
        return trial.priming.steps
    return trial.config.priming_epochs if trial.config is not None else 0.0


def _why_not(snapshot: StudySnapshot, trial: TrialRecord) -> str:
    """Why a complete trial is not on the front."""
    if not trial.feasible:
        return "not on the front because it does not fit the device or the study's bounds"
    costs = objectives(trial)
    better = [t.number for t in _front(snapshot) if costs is not None and all(map(_le, _costs(t), costs))]
    return (
        f"not on the front: trial {better[0]} is as good or better in all three objectives"
        if better
        else "off the front"
    )


def _le(a: float, b: float) -> bool:
    return a <= b


def _reason(snapshot: StudySnapshot, trial: TrialRecord, why: str) -> str:
    figures = ", ".join(
        [
            human_metric(snapshot.metric_name, trial.metric, trial.metric_error),
            human_memory(trial.peak_memory_mib),
            human_time(trial.wall_time_s),
        ]
    )
    return f"Trial {trial.number}: {why} ({figures}).\n{_neighbours(snapshot, trial)}"


def _neighbours(snapshot: StudySnapshot, trial: TrialRecord) -> str:
    """What the members of the front with the next smaller and the next larger memory would cost or gain."""
    front = [other for other in _front(snapshot) if other.number != trial.number]
    memory = trial.peak_memory_mib or 0.0
    below = [other for other in front if (other.peak_memory_mib or 0.0) <= memory]
    above = [other for other in front if (other.peak_memory_mib or 0.0) > memory]
    beside = [*below[-1:], *above[:1]]
    if not beside:
        return "The front has no other trial."
    told = "; ".join(_compared(snapshot, trial, other) for other in beside)
    return f"Beside it on the front: {told}."


def _compared(snapshot: StudySnapshot, trial: TrialRecord, other: TrialRecord) -> str:
    metric = (other.metric or 0.0) - (trial.metric or 0.0)
    memory = (other.peak_memory_mib or 0.0) - (trial.peak_memory_mib or 0.0)
    time = (other.wall_time_s or 0.0) - (trial.wall_time_s or 0.0)
    return (
        f"trial {other.number} with {human_memory(memory, signed=True)}, {human_time(time, signed=True)}, "
        f"{human_difference(snapshot.metric_name, metric)} ({_noise(trial, other)})"
    )


def _noise(trial: TrialRecord, other: TrialRecord) -> str:
    """Whether the metrics differ by more than twice the standard error of their difference, taken as independent."""
    if trial.metric_error is None or other.metric_error is None:
        return "noise unknown"
    error = math.hypot(trial.metric_error, other.metric_error)
    difference = abs((other.metric or 0.0) - (trial.metric or 0.0))
    return "within noise" if difference <= _NOISE * error else "beyond noise"
