"""Explain a choice: the reason, and the differences to its neighbours on the front, within or beyond noise."""

from __future__ import annotations

from collections.abc import Sequence

from farsearch.comparison import costs_no_more, difference, is_no_better
from farsearch.formatting import human_difference, human_memory, human_metric, human_time, idle_words
from farsearch.records import BaselineTrial, Completed, CompleteTrial, StudySnapshot

__all__ = ["figures", "reason", "rivals"]


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
    derived: bool = False,
    beside: Sequence[CompleteTrial] = (),
) -> str:
    """Return lines of text: why this trial, and the comparison with its neighbours on the front.

    A further line names a baseline that is as good for less and that no trial of a search can be, since it is no
    configuration of FAR.

    Args:
        derived: the trial's plan is not the one that the study chose.
        beside: further trials to compare with.
    """
    plan = f" under the plan {trial.plan.summary} (derived)" if derived else ""
    first = f"Trial {trial.number}{plan}: {why} ({figures(snapshot, trial)})."
    lines = [
        first,
        _neighbours(snapshot, trial, beside),
        *(_rival(snapshot, other) for other in rivals(snapshot, trial)),
    ]
    return "\n".join(lines)


def rivals(snapshot: StudySnapshot, trial: CompleteTrial) -> list[BaselineTrial[Completed]]:
    """Return the baselines without a configuration of FAR that learned, cost no more than a trial and are no worse."""
    return [
        other
        for other in snapshot.baselines
        if other.config is None
        and other.outcome.learned is not False
        and costs_no_more(other, trial)
        and is_no_better(snapshot, trial, other)
    ]


def _rival(snapshot: StudySnapshot, other: BaselineTrial[Completed]) -> str:
    return (
        f"{other.baseline.title} costs no more and is as good ({figures(snapshot, other)}); it is no configuration of "
        "FAR, so export can't write it."
    )


def _neighbours(snapshot: StudySnapshot, trial: CompleteTrial, beside: Sequence[CompleteTrial]) -> str:
    """Compare with the members of the front with the next smaller and the next larger memory."""
    front = [other for other in snapshot.front if other.number != trial.number]
    below = [other for other in front if other.cost.peak_memory_mib <= trial.cost.peak_memory_mib]
    above = front[len(below) :]
    shown = {other.number: other for other in (*below[-1:], *above[:1], *beside) if other.number != trial.number}
    if not shown:
        return "The front has no other trial."
    comparisons = "; ".join(_compared(snapshot, trial, other) for other in shown.values())
    return f"Beside it on the front: {comparisons}."


def _compared(snapshot: StudySnapshot, trial: CompleteTrial, other: CompleteTrial) -> str:
    found = difference(snapshot, other, trial)
    memory = other.cost.peak_memory_mib - trial.cost.peak_memory_mib
    time = other.cost.wall_time_s - trial.cost.wall_time_s
    basis = "paired" if found.paired else "taken as independent"
    noise = f"{'within' if found.within_noise else 'beyond'} noise, {basis}" if found.known else "noise unknown"
    return (
        f"trial {other.number} with {human_memory(memory, signed=True)}, {human_time(time, signed=True)}, "
        f"{human_difference(snapshot.metric_name, found.value, found.error)} ({noise})"
    )
