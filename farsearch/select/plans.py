"""Derive a study under another step plan: each trial has its cost under all exact plans, which learn the same.

A derived trial has another plan, peak, time and energy, and its measured metric.
"""

from __future__ import annotations

import dataclasses

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.goals import GOALS, Goal, best_plan
from farsearch.records import AnyTrial, StudySnapshot, Trial, constant_answer
from farsearch.select.front import pareto_front

__all__ = ["under_plan"]


def under_plan(snapshot: StudySnapshot, plan: str) -> StudySnapshot:
    """Return the study with each trial under a named plan, or under the best plan for a goal.

    A trial without a cost under that plan is on no front.

    Args:
        plan: a goal (``memory``, ``time``, ``balanced``), or the summary of a plan: ``store``, ``recompute``,
            ``store+checkpointing``; of several such plans, the best one for the study's goal.

    Raises:
        BadInput: when no trial has a cost under that plan.
    """
    searched = [trial for trial in snapshot.trials if isinstance(trial, Trial)]
    names = list(dict.fromkeys(_key(price.plan.summary) for trial in searched for price in trial.plans))
    if plan not in GOALS and _key(plan) not in names:
        known = [*GOALS, *names]
        raise BadInput(f"no trial of {snapshot.name} was priced under the plan {shown(plan)}; give {', '.join(known)}")
    if not names:
        raise BadInput(f"no trial of {snapshot.name} was priced under other plans; choose one without `plan`")
    trials = [_derived(trial, plan, snapshot.settings.plan) for trial in snapshot.trials]
    front = pareto_front(trials, constant_answer(snapshot.meta))
    marked = (
        dataclasses.replace(trial, on_front=trial.number in front) if isinstance(trial, Trial) else trial
        for trial in trials
    )
    return dataclasses.replace(snapshot, trials=tuple(marked))


def _key(name: str) -> str:
    """Return a plan's summary as one word."""
    return name.replace(" + ", "+").replace(" ", "-")


def _derived(trial: AnyTrial, plan: str, goal: Goal) -> AnyTrial:
    """Return the trial under that plan; not known to be feasible where it has no cost under it."""
    if not isinstance(trial, Trial):
        return trial
    named = [price for price in trial.plans if plan in GOALS or _key(price.plan.summary) == _key(plan)]
    if not named:
        return dataclasses.replace(trial, cost=dataclasses.replace(trial.cost, feasible=None))
    best = best_plan(
        [price.peak_memory_mib for price in named],
        [price.wall_time_s for price in named],
        [price.feasible for price in named],
        next((known for known in GOALS if known == plan), goal),
    )
    chosen = named[int(best)]
    if chosen.plan == trial.plan:
        return trial
    # breakdowns and ranges belong to the original plan; power does not depend on the plan
    joules = trial.cost.energy_j
    cost = dataclasses.replace(
        trial.cost,
        peak_memory_mib=chosen.peak_memory_mib,
        wall_time_s=chosen.wall_time_s,
        feasible=chosen.feasible,
        energy_j=joules and joules * chosen.wall_time_s / trial.cost.wall_time_s,
        peak_memory_range_mib=None,
        wall_time_range_s=None,
        memory={},
        time={},
    )
    return dataclasses.replace(trial, plan=chosen.plan, cost=cost)
