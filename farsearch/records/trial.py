"""The trials of studies: what was to be trained, its predicted cost, and how it ended.

A trial of a search is a ``Trial``, one of ``NAME/baselines`` a ``BaselineTrial``, one of ``NAME/verified`` a
``VerifiedTrial``. One that is queued, or that ended before it was priced, is an ``UnpricedTrial``. The parameter of
their types is the outcome: ``Trial[Completed]`` has a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeAlias, TypeGuard, TypeVar

from farsearch.json_records import Record
from farsearch.records.config import FarConfig, StepPlan
from farsearch.records.results import Baseline, LossPoint, MetricPoint, PrimingReport, Verification

__all__ = [
    "AnyTrial",
    "BaselineTrial",
    "CompleteTrial",
    "Completed",
    "Cost",
    "Failed",
    "PlanPrice",
    "Running",
    "State",
    "Stopped",
    "Trial",
    "TrialOutcome",
    "UnpricedTrial",
    "VerifiedTrial",
    "Waiting",
    "cost_of",
    "is_complete",
    "on_front",
    "reason_of",
    "result_of",
]

State = Literal["running", "waiting", "complete", "pruned", "fail"]
"""Optuna's states in lower case, as in stored studies and in every output for programs."""


@dataclass(frozen=True)
class Cost:
    """Predicted cost of a configuration on the study's device under one step plan.

    Attributes:
        peak_memory_mib: peak on the device, its process included.
        peak_memory_range_mib, wall_time_range_s: low and high end; None under a plan that was chosen later.
        wall_time_s: seconds on the device.
        energy_j: watts of the profile times ``wall_time_s``; None where the profile has no power figure.
        feasible: fits the device and the bounds of the study; None where the trial has no cost under the plan that was
            asked for.
        memory: breakdown of the tensor peak in MiB by category; empty under a plan that was chosen later.
        time: breakdown of ``wall_time_s`` in seconds by operation class, likewise; ``priming`` is the whole priming on
            the device.
        trainable: parameters with a gradient in the FAR phase.
    """

    peak_memory_mib: float
    peak_memory_range_mib: tuple[float, ...] | None
    wall_time_s: float
    wall_time_range_s: tuple[float, ...] | None
    energy_j: float | None
    feasible: bool | None
    memory: Mapping[str, float]
    time: Mapping[str, float]
    trainable: int


@dataclass(frozen=True)
class PlanPrice(Record):
    """Predicted cost of a configuration under one of the exact plans; the rest as in ``Cost``."""

    plan: StepPlan
    peak_memory_mib: float
    wall_time_s: float
    feasible: bool


@dataclass(frozen=True)
class Waiting:
    """Queued; no worker has taken it."""

    state: ClassVar[State] = "waiting"


@dataclass(frozen=True)
class Running:
    """A worker proposes or trains it."""

    state: ClassVar[State] = "running"


@dataclass(frozen=True)
class Completed(Record):
    """The result of a finished training.

    Attributes:
        metric: the objective, on the validation split, in the task's metric (0.9 is 90 %); of a verification, on the
            official development set.
        metric_error: standard error of ``metric`` over the draw of the rows, without that over seeds.
        learned: ``metric`` is above that of the best constant answer by more than ``metric_error``; None in older
            studies.
        dev_metric: the same metric on the official development set; never used for selection.
        parts: further metrics by name: the single metrics of a combined one, as ``f1``, and those on the development
            sets, as ``dev/f1`` and ``dev_mismatched/accuracy``.
        host_seconds: duration of the FAR phase and the evaluation on this host.
        host_peak_mib: peak memory on this host: of CUDA's allocator, or of the whole process on a CPU.
        trainable: parameters with a gradient in the FAR phase, as counted.
        looks: intermediate validation metrics, on fewer rows than ``metric``.
    """

    state: ClassVar[State] = "complete"
    metric: float
    metric_error: float
    learned: bool | None
    dev_metric: float
    parts: Mapping[str, float]
    host_seconds: float
    host_peak_mib: float
    trainable: int
    priming: PrimingReport
    curve: tuple[LossPoint, ...]
    looks: tuple[MetricPoint, ...] = ()


@dataclass(frozen=True)
class Stopped:
    """A training without a result: it could not be finished, or no longer reach the front.

    Attributes:
        host_seconds: duration until then; None in an auxiliary study.
        extrapolated_metric: predicted metric of a trial that could not reach the front, None of any other. Used by
            samplers alone.
    """

    state: ClassVar[State] = "pruned"
    reason: str
    host_seconds: float | None = None
    extrapolated_metric: float | None = None
    looks: tuple[MetricPoint, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A trial that was given back or given up, with the reason; empty where none is recorded."""

    state: ClassVar[State] = "fail"
    reason: str = ""


TrialOutcome: TypeAlias = Running | Completed | Stopped | Failed

O_co = TypeVar("O_co", bound=TrialOutcome, covariant=True)


@dataclass(frozen=True, kw_only=True)
class UnpricedTrial:
    """A trial without a configuration: queued, being proposed, or ended before it was priced."""

    number: int
    outcome: Waiting | Running | Stopped | Failed


@dataclass(frozen=True, kw_only=True)
class _Priced(Generic[O_co]):
    number: int
    plan: StepPlan
    cost: Cost
    outcome: O_co


@dataclass(frozen=True, kw_only=True)
class Trial(_Priced[O_co]):
    """A trial of a search.

    Attributes:
        plan: the step plan of which ``cost`` is the cost.
        plans: the costs under ``plan`` and under the exact plans that no other dominates in peak and time; empty in
            older studies.
        on_front: no other feasible complete trial is at least as good in all three objectives and better in one.
    """

    config: FarConfig
    plans: tuple[PlanPrice, ...] = ()
    on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class BaselineTrial(_Priced[O_co]):
    """A training of a baseline. ``config`` is None where the method is no configuration of FAR."""

    baseline: Baseline
    config: FarConfig | None

    @property
    def key(self) -> tuple[str, float]:
        """Identity of the training: an auxiliary study has at most one of each."""
        return self.baseline.method, self.baseline.learning_rate


@dataclass(frozen=True, kw_only=True)
class VerifiedTrial(_Priced[O_co]):
    """A repetition of a trial, or of ``baseline``, with another seed; ``config`` as in ``BaselineTrial``."""

    verifies: Verification
    baseline: Baseline | None
    config: FarConfig | None

    @property
    def key(self) -> tuple[Verification, Baseline | None]:
        """Identity of the training: an auxiliary study has at most one of each."""
        return self.verifies, self.baseline


PricedTrial: TypeAlias = Trial[O_co] | BaselineTrial[O_co] | VerifiedTrial[O_co]
AnyTrial: TypeAlias = PricedTrial[TrialOutcome] | UnpricedTrial
CompleteTrial: TypeAlias = PricedTrial[Completed]


def is_complete(trial: AnyTrial) -> TypeGuard[CompleteTrial]:
    """Return whether a trial has a result."""
    return isinstance(trial.outcome, Completed)


def on_front(trial: AnyTrial) -> TypeGuard[Trial[Completed]]:
    """Return whether a trial is on the front of its study; baselines and verifications never are."""
    return isinstance(trial, Trial) and trial.on_front


def result_of(trial: AnyTrial) -> Completed | None:
    """Return the result of a trial, None of one that is not complete."""
    return trial.outcome if isinstance(trial.outcome, Completed) else None


def cost_of(trial: AnyTrial) -> Cost | None:
    """Return the predicted cost of a trial, None before it is priced."""
    return None if isinstance(trial, UnpricedTrial) else trial.cost


def reason_of(trial: AnyTrial) -> str:
    """Return why a trial has no result; empty where it has one, or the reason is not known."""
    return trial.outcome.reason if isinstance(trial.outcome, Stopped | Failed) else ""
