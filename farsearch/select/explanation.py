"""Explain a choice: the reason, and the differences to its neighbours on the front, within or beyond noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from farsearch.formatting import human_difference, human_memory, human_metric, human_time, idle_words
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.select.front import members

__all__ = ["Paired", "figures", "reason"]

Paired = Callable[[int, int], float | None]
"""Returns the standard error of the difference between two trials' metrics, by number, on the same validation rows.

None where it is unknown because the predictions of one were removed.
"""

_NOISE = 2.0
"""A difference of at most so many of its standard errors is within noise."""


def figures(snapshot: StudySnapshot, trial: TrialRecord) -> str:
    """Return the three objectives of a trial as a text."""
    metric = human_metric(snapshot.metric_name, trial.metric, trial.metric_error)
    idle = idle_words(trial)
    metric = f"{metric}, {idle}" if idle else metric
    return f"{metric}, {human_memory(trial.peak_memory_mib)}, {human_time(trial.wall_time_s)}"


def reason(
    snapshot: StudySnapshot,
    trial: TrialRecord,
    why: str,
    paired: Paired | None = None,
    derived: bool = False,
    beside: Sequence[TrialRecord] = (),
) -> str:
    """Return two lines: why this trial, and the comparison with its neighbours on the front.

    Args:
        paired: standard errors of differences; without it trials are assumed independent, which the text states.
        derived: the trial's plan is not the one that the study chose.
        beside: further trials to compare with.
    """
    plan = f" under the plan {trial.plan.summary} (derived)" if derived and trial.plan is not None else ""
    first = f"Trial {trial.number}{plan}: {why} ({figures(snapshot, trial)})."
    return f"{first}\n{_neighbours(snapshot, trial, paired, beside)}"


def _neighbours(
    snapshot: StudySnapshot, trial: TrialRecord, paired: Paired | None, beside: Sequence[TrialRecord]
) -> str:
    """Compare with the members of the front with the next smaller and the next larger memory."""
    front = [other for other in members(snapshot) if other.number != trial.number]
    memory = trial.peak_memory_mib or 0.0
    below = [other for other in front if (other.peak_memory_mib or 0.0) <= memory]
    above = [other for other in front if (other.peak_memory_mib or 0.0) > memory]
    shown = {other.number: other for other in (*below[-1:], *above[:1], *beside) if other.number != trial.number}
    if not shown:
        return "The front has no other trial."
    comparisons = "; ".join(_compared(snapshot, trial, other, paired) for other in shown.values())
    return f"Beside it on the front: {comparisons}."


def _compared(snapshot: StudySnapshot, trial: TrialRecord, other: TrialRecord, paired: Paired | None) -> str:
    metric = (other.metric or 0.0) - (trial.metric or 0.0)
    memory = (other.peak_memory_mib or 0.0) - (trial.peak_memory_mib or 0.0)
    time = (other.wall_time_s or 0.0) - (trial.wall_time_s or 0.0)
    error, basis = _error(trial, other, paired)
    # an error of 0 with a difference: one or two rows, too few for a statement
    known = error is not None and (error > 0 or metric == 0)
    noise = f"{_verdict(metric, error or 0.0)} noise, {basis}" if known else "noise unknown"
    return (
        f"trial {other.number} with {human_memory(memory, signed=True)}, {human_time(time, signed=True)}, "
        f"{human_difference(snapshot.metric_name, metric, error)} ({noise})"
    )


def _verdict(difference: float, error: float) -> str:
    return "within" if abs(difference) <= _NOISE * error else "beyond"


def _error(trial: TrialRecord, other: TrialRecord, paired: Paired | None) -> tuple[float | None, str]:
    """Return the standard error of the difference of two metrics, and how it was determined."""
    error = None if paired is None else paired(trial.number, other.number)
    if error is not None:
        return error, "paired"
    if trial.metric_error is None or other.metric_error is None:
        return None, ""
    return math.hypot(trial.metric_error, other.metric_error), "taken as independent"
