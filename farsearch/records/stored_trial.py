"""Trials as stored: in the studies' storage, in bundles, and in outputs for programs.

One table has the values of every kind of trial under the names of the model, null where a kind has none.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from farsearch.errors import BadInput
from farsearch.json_records import Record
from farsearch.records.config import FarConfig, StepPlan
from farsearch.records.results import Baseline, LossPoint, MetricPoint, PrimingReport, Verification
from farsearch.records.trial import (
    AnyTrial,
    BaselineTrial,
    Completed,
    Cost,
    Failed,
    PlanPrice,
    Running,
    State,
    Stopped,
    Trial,
    TrialOutcome,
    UnpricedTrial,
    VerifiedTrial,
    Waiting,
    cost_of,
)

__all__ = ["FlatTrial", "flat", "read_trial", "trial_to_dict"]

T = TypeVar("T")


@dataclass(frozen=True)
class FlatTrial(Record):
    """The stored values of a trial, in their stored order; the meaning of each is that in the model."""

    number: int
    state: State
    metric: float | None = None
    metric_error: float | None = None
    learned: bool | None = None
    dev_metric: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mib: float | None = None
    wall_time_s: float | None = None
    energy_j: float | None = None
    feasible: bool | None = None
    on_front: bool = False
    config: FarConfig | None = None
    plan: StepPlan | None = None
    host_seconds: float | None = None
    host_peak_mib: float | None = None
    peak_memory_range_mib: tuple[float, ...] | None = None
    wall_time_range_s: tuple[float, ...] | None = None
    memory: Mapping[str, float] = field(default_factory=dict)
    time: Mapping[str, float] = field(default_factory=dict)
    trainable: int | None = None
    plans: tuple[PlanPrice, ...] = ()
    priming: PrimingReport | None = None
    curve: tuple[LossPoint, ...] = ()
    looks: tuple[MetricPoint, ...] = ()
    extrapolated_metric: float | None = None
    reason: str | None = None
    baseline: Baseline | None = None
    verifies: Verification | None = None


_NAMES = frozenset(f.name for f in dataclasses.fields(FlatTrial))


def flat(trial: AnyTrial) -> FlatTrial:
    """Return the stored values of a trial."""
    cost = cost_of(trial)
    # the outcome last: it has the trained parameters as counted
    values = {**vars(trial), **({} if cost is None else vars(cost)), **vars(trial.outcome)}
    known = {name: value for name, value in values.items() if name in _NAMES}
    return FlatTrial(**{**known, "state": trial.outcome.state, "reason": known.get("reason") or None})


def trial_to_dict(trial: AnyTrial) -> dict[str, Any]:
    """Return the stored form of a trial as JSON types."""
    return flat(trial).to_dict()


def read_trial(data: Mapping[str, Any]) -> AnyTrial:
    """Read a trial from its stored form.

    Raises:
        BadInput: for an unknown or missing key, a value of another type, or a trial without a value that trials of its
            kind have.
    """
    stored = FlatTrial.from_dict(data)
    outcome = _outcome(stored)
    if isinstance(outcome, Waiting) or (stored.plan is None and not isinstance(outcome, Completed)):
        return UnpricedTrial(number=stored.number, outcome=outcome)
    parts = {"cost": _part(Cost, stored), "outcome": outcome}
    if stored.verifies is not None:
        return _part(VerifiedTrial[TrialOutcome], stored, **parts)
    if stored.baseline is not None:
        return _part(BaselineTrial[TrialOutcome], stored, **parts)
    return _part(Trial[TrialOutcome], stored, **parts)


def _outcome(stored: FlatTrial) -> Waiting | TrialOutcome:
    if stored.state == "waiting":
        return Waiting()
    # a kill between the record and the end of a trial leaves results of one that is run again; they are not read
    if stored.state == "running":
        return Running()
    if stored.state == "fail":
        return Failed(stored.reason or "")
    if stored.state == "pruned":
        return _part(Stopped, stored, reason=stored.reason or "")
    return _part(Completed, stored)


def _part(kind: type[T], stored: FlatTrial, **given: Any) -> T:
    """Return the part of the model with its values from ``stored`` and those that are given."""
    plain: Any = typing.get_origin(kind) or kind
    names, needed = _names(plain)
    known = vars(stored)
    values = {name: known[name] for name in names} | given
    for name in needed:
        if values[name] is None:
            raise BadInput(f"trial {stored.number} is {stored.state} and lacks {name!r}")
    made: T = plain(**values)
    return made


@functools.cache
def _names(kind: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the stored fields of a part of the model, and those of them that are never null."""
    hints = typing.get_type_hints(kind)
    names = tuple(f.name for f in dataclasses.fields(kind) if f.name in _NAMES)
    return names, tuple(name for name in names if types.NoneType not in typing.get_args(hints[name]))
