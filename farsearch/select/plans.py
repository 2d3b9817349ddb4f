"""The study as it would be under another step plan: a training is priced under all exact ones, which learn the same.

Nothing is priced here: a derived trial has another plan, peak, time and energy, and the metric that was measured.
"""

from __future__ import annotations

import dataclasses

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.goals import GOALS, Goal, best_plan
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.select.front import pareto_front

__all__ = ["under_plan"]


def under_plan(snapshot: StudySnapshot, plan: str) -> StudySnapshot:
    """The study with each trial under the plan that is named, or under the one that serves a goal best.

    A trial that runs under that plan already stays as it is. One that was not priced under it is on no front.

    Args:
        plan: ``memory``, ``time``, ``balanced``, or what a plan keeps: ``store``, ``recompute``,
            ``store+checkpointing``; of several that keep it, the one that serves the study's own goal.

    Raises:
        BadInput: where no trial was priced under that plan.
    """
    names = list(dict.fromkeys(_key(price.plan.summary) for trial in snapshot.trials for price in trial.plans))
    if plan not in GOALS and _key(plan) not in names:
        known = [*GOALS, *names]
        raise BadInput(f"no trial of {snapshot.name} was priced under the plan {shown(plan)}; give {', '.join(known)}")
    if not names:
        raise BadInput(f"no trial of {snapshot.name} was priced under other plans; choose one without --plan")
    trials = [_derived(trial, plan, snapshot.settings.plan) for trial in snapshot.trials]
    front = pareto_front(trials)
    marked = tuple(dataclasses.replace(trial, on_front=trial.number in front) for trial in trials)
    return dataclasses.replace(snapshot, trials=marked)


def _key(name: str) -> str:
    """A plan's summary as one word."""
    return name.replace(" + ", "+").replace(" ", "-")


def _derived(trial: TrialRecord, plan: str, goal: Goal) -> TrialRecord:
    """The trial under that plan, or not feasible where it has no price for it."""
    named = [price for price in trial.plans if plan in GOALS or _key(price.plan.summary) == _key(plan)]
    if not named:
        return dataclasses.replace(trial, feasible=None)
    best = best_plan(
        [price.peak_memory_mib for price in named],
        [price.wall_time_s for price in named],
        [price.feasible for price in named],
        next((known for known in GOALS if known == plan), goal),
    )
    found = named[int(best)]
    if found.plan == trial.plan:
        return trial
    # the breakdowns and ranges are those of the plan that they were made for; power does not depend on the plan
    joules = trial.energy_j and trial.wall_time_s and trial.energy_j * found.wall_time_s / trial.wall_time_s
    return dataclasses.replace(
        trial,
        plan=found.plan,
        peak_memory_mib=found.peak_memory_mib,
        wall_time_s=found.wall_time_s,
        feasible=found.feasible,
        energy_j=joules,
        peak_memory_range_mib=None,
        wall_time_range_s=None,
        memory={},
        time={},
    )
