"""Explain a choice: the reason, and the differences to its neighbours on the front, within or beyond noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from farsearch.formatting import human_difference, human_memory, human_metric, human_time, idle_words
from farsearch.records import CompleteTrial, StudySnapshot

__all__ = ["Paired", "figures", "reason"]

Paired = Callable[[int, int], float | None]
"""Returns the standard error of the difference between two trials' metrics, by number, on the same validation rows.

None where it is unknown because the predictions of one were removed.
"""

_NOISE = 2.0
"""A difference of at most so many of its standard errors is within noise."""


def figures(snapshot: StudySnapshot, trial: CompleteTrial) -> str:
    """Return the three objectives of a trial as a text."""
    metric = human_metric(snapshot.metric_name, trial.outcome.metric, trial.outcome.metric_error)
    idle = idle_words(trial)
    metric = f"{metric}, {idle}" if idle else metric
    return f"{metric}, {human_memory(trial.cost.peak_memory_mib)}, {human_time(trial.cost.wall_time_s)}"


def reason(
    snapshot: StudySnapshot,
    trial: CompleteTrial,
    why: str,
    paired: Paired | None = None,
    derived: bool = False,
    beside: Sequence[CompleteTrial] = (),
) -> str:
    """Return two lines: why this trial, and the comparison with its neighbours on the front.

    Args:
        paired: standard errors of differences; without it trials are assumed independent, which the text states.
        derived: the trial's plan is not the one that the study chose.
        beside: further trials to compare with.
    """
    plan = f" under the plan {trial.plan.summary} (derived)" if derived else ""
    first = f"Trial {trial.number}{plan}: {why} ({figures(snapshot, trial)})."
    return f"{first}\n{_neighbours(snapshot, trial, paired, beside)}"


def _neighbours(
    snapshot: StudySnapshot, trial: CompleteTrial, paired: Paired | None, beside: Sequence[CompleteTrial]
) -> str:
    """Compare with the members of the front with the next smaller and the next larger memory."""
    front = [other for other in snapshot.front if other.number != trial.number]
    below = [other for other in front if other.cost.peak_memory_mib <= trial.cost.peak_memory_mib]
    above = front[len(below) :]
    shown = {other.number: other for other in (*below[-1:], *above[:1], *beside) if other.number != trial.number}
    if not shown:
        return "The front has no other trial."
    comparisons = "; ".join(_compared(snapshot, trial, other, paired) for other in shown.values())
    return f"Beside it on the front: {comparisons}."


def _compared(snapshot: StudySnapshot, trial: CompleteTrial, other: CompleteTrial, paired: Paired | None) -> str:
    metric = other.outcome.metric - trial.outcome.metric
    memory = other.cost.peak_memory_mib - trial.cost.peak_memory_mib
    time = other.cost.wall_time_s - trial.cost.wall_time_s
    error, basis = _error(trial, other, paired)
    # an error of 0 with a difference: one or two rows, too few for a statement
    known = error > 0 or metric == 0
    noise = f"{_verdict(metric, error)} noise, {basis}" if known else "noise unknown"
    return (
        f"trial {other.number} with {human_memory(memory, signed=True)}, {human_time(time, signed=True)}, "
        f"{human_difference(snapshot.metric_name, metric, error)} ({noise})"
    )


def _verdict(difference: float, error: float) -> str:
    return "within" if abs(difference) <= _NOISE * error else "beyond"


def _error(trial: CompleteTrial, other: CompleteTrial, paired: Paired | None) -> tuple[float, str]:
    """Return the standard error of the difference of two metrics, and how it was determined."""
    error = None if paired is None else paired(trial.number, other.number)
    if error is not None:
        return error, "paired"
    return math.hypot(trial.outcome.metric_error, other.outcome.metric_error), "taken as independent"
