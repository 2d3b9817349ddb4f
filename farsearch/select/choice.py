"""Choose one trial of a study by intent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from farsearch.comparison import difference, leads
from farsearch.errors import BadInput, NoFeasibleTrial
from farsearch.far.display import shown
from farsearch.floor import metric_floor
from farsearch.formatting import human_difference, human_memory, human_metric, human_time
from farsearch.goals import GOALS
from farsearch.pareto import dominates
from farsearch.records import (
    Completed,
    CompleteTrial,
    StudySnapshot,
    Trial,
    constant_answer,
    is_complete,
    on_front,
    reason_of,
)
from farsearch.select.explanation import figures, reason
from farsearch.select.front import Objectives, costs_of
from farsearch.select.plans import under_plan

__all__ = ["Choice", "Intent", "Preference", "choose"]

Preference = Literal["knee", "accuracy", "memory", "time"]

_Trial = Trial[Completed]

_POINT = 0.01
"""A point, in units of a metric between -1 and 1."""
_ROUNDING = 1e-9
"""Tolerance of a bound on the metric: 0.905 - 0.9 is above 0.005."""


@dataclass(frozen=True)
class Intent:
    """Criteria for the choice of a trial; the knee of the front if all are None.

    Attributes:
        prefer: ``knee`` is the compromise of the trials that more than noise distinguishes (``comparison.leads``): each
            objective is scaled to a share (``_knee``), and the trial nearest to the best of all three is chosen; ties
            go to the shortest priming, then the least memory, then the lowest number. ``accuracy``, ``memory`` and
            ``time`` choose the best in that objective; ties go to the others.
        within: points, hundredths of the metric, that a trial may be below the best one. ``noise`` considers the trials
            that more than noise distinguishes, and of these those that are at most one standard error of the
            difference, and a point, below the best (the one-standard-error rule of Breiman et al., Classification and
            Regression Trees, 1984, section 3.4.3). The cheapest is chosen, or one by ``prefer``. All fit the device, so
            the cheapest is the quickest; of times that differ by less than 5 %, the least memory.
        max_memory_mib, max_time_s, min_metric: bounds, applied before all other criteria. A ``min_metric`` of at most 1
            is the metric itself, a larger one is in points: 0.915 and 91.5 are the same.
        trial: number of the trial, on the front or not.
        plan: consider every trial under this step plan, see ``under_plan``.

    Raises:
        BadInput: for values that break a rule or contradict each other.
    """

    prefer: Preference | None = None
    within: float | Literal["noise"] | None = None
    max_memory_mib: float | None = None
    max_time_s: float | None = None
    min_metric: float | None = None
    trial: int | None = None
    plan: str | None = None

    def __post_init__(self) -> None:
        if self.prefer is not None and self.prefer != "knee" and self.prefer not in _ORDERS:
            raise BadInput(f"preference {shown(self.prefer)} is unknown; it must be knee, accuracy, memory, time")
        if self.min_metric is not None and self.min_metric > 100:
            raise BadInput(f"`min_metric` {self.min_metric:g} is above 100 points; give 91.5 or 0.915")
        if isinstance(self.within, str) and self.within != "noise":
            raise BadInput(f"`within` is {shown(self.within)}; it must be a number of points, or noise")
        if self.within is not None and self.prefer == "accuracy":
            raise BadInput(
                f"`within` {_given(self.within)} gives accuracy away and `prefer` accuracy does not; give one of them"
            )
        criteria = {"`prefer`": self.prefer, "`within`": self.within, **self.bounds}
        for name, value in criteria.items():
            if self.trial is not None and value is not None:
                raise BadInput(
                    f"`trial` {self.trial} and {name} {_given(value)} ask for different things; give one of them"
                )

    @property
    def bounds(self) -> Mapping[str, float | None]:
        """The bounds by the names of their options."""
        return {
            "`max_memory_mib`": self.max_memory_mib,
            "`max_time_s`": self.max_time_s,
            "`min_metric`": self.min_metric,
        }

    @property
    def least_metric(self) -> float | None:
        """``min_metric`` as the metric itself."""
        if self.min_metric is None or self.min_metric <= 1:
            return self.min_metric
        return self.min_metric * _POINT


def _given(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


@dataclass(frozen=True)
class Choice:
    """A chosen trial.

    Attributes:
        reason: lines of text: why this trial, the comparison with its neighbours on the front, and a baseline that is
            as good for less where that is no configuration of FAR.
        derived: the trial's plan, with its peak and time, is not the one that the study chose.
    """

    trial: CompleteTrial
    reason: str
    derived: bool = False


def choose(snapshot: StudySnapshot, intent: Intent) -> Choice:
    """Choose the best trial for an intent, with the reason.

    Raises:
        NoFeasibleTrial: when the front is empty, or no trial on it is within the bounds; the nearest is named.
        BadInput: for an unknown or incomplete trial, or an unknown plan.
    """
    study = snapshot if intent.plan is None else under_plan(snapshot, intent.plan)
    if intent.trial is not None:
        trial, why, best = _numbered(study, intent.trial), "asked for", None
        why += ", on the front" if on_front(trial) else f", {_why_not(study, trial)}"
    else:
        trial, why, best = _best_for(study, intent)
    derived = study.trials is not snapshot.trials and trial.plan != _numbered(snapshot, trial.number).plan
    beside = [] if best is None else [best]
    return Choice(trial, reason(study, trial, why, derived, beside), derived)


def _numbered(snapshot: StudySnapshot, number: int) -> CompleteTrial:
    trial = next((trial for trial in snapshot.trials if trial.number == number), None)
    if trial is None:
        known = f"0 to {max(t.number for t in snapshot.trials)}" if snapshot.trials else "none yet"
        raise BadInput(f"trial {number} is not in study {snapshot.name}; it has {known}")
    if not is_complete(trial):
        reason = f" ({why})" if (why := reason_of(trial)) else ""
        raise BadInput(f"trial {number} is {trial.outcome.state}{reason} and has no result; choose a complete one")
    return trial


def _best_for(snapshot: StudySnapshot, intent: Intent) -> tuple[_Trial, str, _Trial | None]:
    """Return the best trial for an intent, the reason, and the trial that it was compared with."""
    front = snapshot.front
    if not front:
        raise NoFeasibleTrial(f"study {snapshot.name} has no trial on its front to choose from; run more trials first")
    able = [trial for trial in front if not _misses(snapshot, trial, intent)]
    if not able:
        raise NoFeasibleTrial(_no_trial_text(snapshot, front, intent))
    bounds = _bounds_text(snapshot, intent)
    if intent.within == "noise":
        able = [lead.trial for lead in leads(snapshot, able)]
    place = f"choice{'s' * (len(able) != 1)}" if intent.within == "noise" else "on the front"
    among = f"{len(able)} {place}{f' with {bounds}' if bounds else ''}"
    if intent.within is None:
        return _preferred(snapshot, able, intent.prefer or "knee", among)
    top, _ = _best(able, "accuracy")
    near = [trial for trial in able if trial is top or _is_near(snapshot, trial, top, intent.within)]
    trial, what = _near_best(snapshot, near, intent.prefer)
    reach = "noise" if intent.within == "noise" else f"{intent.within:g} points"
    if len(near) == 1:
        return trial, f"best metric of {among}, with no other within {reach}", top
    return trial, f"{what} of the {len(near)} within {reach} of trial {top.number}, the best of {among}", top


def _near_best(snapshot: StudySnapshot, near: Sequence[_Trial], prefer: Preference | None) -> tuple[_Trial, str]:
    if prefer == "knee":
        return _knee(snapshot, near), "nearest to the best of all three objectives,"
    return _best(near, prefer or "cheapest")


def _preferred(
    snapshot: StudySnapshot, able: Sequence[_Trial], prefer: Preference, among: str
) -> tuple[_Trial, str, _Trial | None]:
    """Return the best trial for a preference, the reason, and of a knee the trial one step up in the metric."""
    if prefer != "knee":
        trial, what = _best(able, prefer)
        return trial, f"{what} of {among}", None
    distinct = [lead.trial for lead in leads(snapshot, able)]
    trial = _knee(snapshot, distinct)
    better = [other for other in distinct if other.outcome.metric > trial.outcome.metric]
    up = min(better, key=lambda other: other.outcome.metric, default=None)
    step = "" if up is None else f"; one step up in the metric is trial {up.number}"
    return trial, f"nearest to the best of all three objectives, of {among}{step}", up


def _is_near(snapshot: StudySnapshot, trial: _Trial, top: _Trial, within: float | Literal["noise"]) -> bool:
    """Return whether a trial is at most so many points, or noise, below the best."""
    if within != "noise":
        return trial.outcome.metric >= top.outcome.metric - within * _POINT - _ROUNDING
    gap = difference(snapshot, top, trial)
    return gap.value <= min(gap.error, _POINT) + _ROUNDING


_ORDERS: dict[str, tuple[Callable[[Objectives], tuple[float, ...]], str]] = {
    "accuracy": (lambda c: c, "best metric"),
    "memory": (lambda c: (c[1], c[0], c[2]), "least memory"),
    "time": (lambda c: (c[2], c[0], c[1]), "least time"),
}
_CHEAPEST = "cheapest (quickest, then least memory)"
_SAME_TIME = 0.05
"""Share by which times have to differ to decide on the cheapest."""


def _best(trials: Sequence[_Trial], prefer: str) -> tuple[_Trial, str]:
    """Return the best of these trials, and its criterion as a text."""
    if prefer == "cheapest":
        most = (1 + _SAME_TIME) * min(trial.cost.wall_time_s for trial in trials)
        quick = [trial for trial in trials if trial.cost.wall_time_s <= most]
        return _best(quick, "memory")[0], _CHEAPEST
    order, what = _ORDERS[prefer]
    return min(trials, key=lambda t: (*order(costs_of(t)), t.number)), what


def _knee(snapshot: StudySnapshot, trials: Sequence[_Trial]) -> _Trial:
    """Return the trial nearest to the best of each objective, on axes that do not depend on how alike the trials are.

    A metric below the best is a share of what lies between the best and the floor (``metric_floor``), or, without a
    known floor, the worst of the trials. Memory above the least is a share of the device's, time above the least one of
    the longest. Distances are rounded to nine digits, so that equal ones are equal whatever the order of additions.
    """
    best = max(trials, key=lambda trial: trial.outcome.metric).outcome
    floor = metric_floor(best.metric, best.metric_error, constant_answer(snapshot.meta))
    if not -math.inf < floor < best.metric:
        floor = min(trial.outcome.metric for trial in trials)
    scales = (best.metric - floor, snapshot.budget_mib, max(trial.cost.wall_time_s for trial in trials))
    least = [min(column) for column in zip(*map(costs_of, trials), strict=True)]

    def distance(trial: _Trial) -> float:
        return round(math.hypot(*map(_share, costs_of(trial), least, scales)), 9)

    return min(trials, key=lambda t: (distance(t), t.outcome.priming.steps, t.cost.peak_memory_mib, t.number))


def _share(value: float, low: float, scale: float) -> float:
    return (value - low) / scale if scale > 0 else 0.0


def _why_not(snapshot: StudySnapshot, trial: CompleteTrial) -> str:
    """Return why a complete trial is not on the front."""
    if not trial.cost.feasible:
        return "not on the front because it does not fit the device or the study's bounds"
    better = [t.number for t in snapshot.front if dominates(costs_of(t), costs_of(trial))]
    if better:
        return f"not on the front: trial {better[0]} is as good or better in all three objectives"
    twins = [t.number for t in snapshot.front if costs_of(t) == costs_of(trial)]
    if twins:
        return f"not on the front: trial {twins[0]} is the same in all three objectives"
    return "not on the front: its metric is too near that of a constant answer, compared with the best"


def _misses(snapshot: StudySnapshot, trial: _Trial, intent: Intent) -> list[tuple[float, str]]:
    """Return the excess over each violated bound, as a share of it and as a text."""
    metric, memory, time = trial.outcome.metric, trial.cost.peak_memory_mib, trial.cost.wall_time_s
    misses = []
    if intent.max_memory_mib is not None and memory > intent.max_memory_mib:
        misses.append((memory / intent.max_memory_mib - 1, human_memory(memory - intent.max_memory_mib, signed=True)))
    if intent.max_time_s is not None and time > intent.max_time_s:
        misses.append((time / intent.max_time_s - 1, human_time(time - intent.max_time_s, signed=True)))
    least = intent.least_metric
    if least is not None and metric < least - _ROUNDING:
        misses.append(((least - metric) / abs(least or 1.0), human_difference(snapshot.metric_name, metric - least)))
    return misses


def _bounds_text(snapshot: StudySnapshot, intent: Intent) -> str:
    """Return the bounds as a text."""
    bounds = [] if intent.max_memory_mib is None else [f"at most {human_memory(intent.max_memory_mib)}"]
    bounds += [] if intent.max_time_s is None else [f"at most {human_time(intent.max_time_s)}"]
    bounds += (
        [] if intent.least_metric is None else [f"at least {human_metric(snapshot.metric_name, intent.least_metric)}"]
    )
    return " and ".join(bounds)


def _no_trial_text(snapshot: StudySnapshot, front: Sequence[_Trial], intent: Intent) -> str:
    """Return the message that no trial is within the bounds, with the nearest one and a suggestion."""
    misses = {trial.number: _misses(snapshot, trial, intent) for trial in front}
    nearest = min(front, key=lambda trial: (sum(share for share, _ in misses[trial.number]), trial.number))
    off = " and ".join(text for _, text in misses[nearest.number])
    helps = next((goal for goal in GOALS if intent.plan is None and _satisfied(snapshot, intent, goal)), None)
    return (
        f"no trial on the front of {snapshot.name} has {_bounds_text(snapshot, intent)}; the nearest is trial "
        f"{nearest.number} ({figures(snapshot, nearest)}), off by {off}; loosen a bound"
        f"{f', or give `plan` {helps}, under which one is within the bounds' if helps else ''}"
    )


def _satisfied(snapshot: StudySnapshot, intent: Intent, plan: str) -> bool:
    """Return whether a trial is within the bounds under another plan."""
    with contextlib.suppress(BadInput, NoFeasibleTrial):
        _best_for(under_plan(snapshot, plan), replace(intent, plan=plan))
        return True
    return False
