"""Results of trials, baselines, verifications and boards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from farsearch.json_records import Record
from farsearch.records.config import FarConfig, StepPlan

__all__ = [
    "Baseline",
    "LossPoint",
    "Measurement",
    "MetricPoint",
    "PlanPrice",
    "PrimingReport",
    "TrialRecord",
    "Verification",
]


@dataclass(frozen=True)
class LossPoint(Record):
    """One point of a learning curve: mean training loss over the steps since the last point."""

    step: int
    loss: float


@dataclass(frozen=True)
class MetricPoint(Record):
    """The validation metric in the middle of the FAR phase, after a ``share`` of its steps."""

    share: float
    step: int
    metric: float


_SAME_AS_CHANCE = 0.05
"""An overlap within this distance of chance is not significant: two halves of a priming vary by as much."""


@dataclass(frozen=True)
class PrimingReport(Record):
    """Statistics of a priming and its selection.

    Attributes:
        steps: optimizer steps primed.
        host_seconds: duration of this priming on this host when it was run, also where it came from the cache.
        from_cache: the priming was read from the cache.
        score_spread: coefficient of variation of the neurons' scores, mean over the layers; 0 when not primed.
        half_overlap: overlap of the selections by the first and by the second half of the priming batches, mean over
            the layers with learners; None with fewer than two steps.
        chance_overlap: expected overlap of random selections of that size.
    """

    steps: int
    host_seconds: float
    from_cache: bool
    score_spread: float
    half_overlap: float | None
    chance_overlap: float | None

    @property
    def like_chance(self) -> bool | None:
        """Whether the selection is no better than a random one; None where that is unknown."""
        if self.half_overlap is None or self.chance_overlap is None:
            return None
        return self.half_overlap <= self.chance_overlap + _SAME_AS_CHANCE


@dataclass(frozen=True)
class Baseline(Record):
    """A baseline method, trained in an auxiliary study.

    Attributes:
        method: short name, ``lora8``.
        title: for people, ``LoRA r=8``.
        learning_rate, epochs: as in ``FarConfig``; not every method has such a configuration.
    """

    method: str
    title: str
    learning_rate: float
    epochs: float


@dataclass(frozen=True)
class Verification(Record):
    """The repetition of a trial or a baseline with another seed, in an auxiliary study.

    Attributes:
        trial: number in the search; None for a baseline, which the record names.
        seed: of head, order of the rows, dropout and random selection.
        train_samples: training rows, drawn by ``seed``.
    """

    trial: int | None
    seed: int
    train_samples: int


@dataclass(frozen=True)
class Measurement(Record):
    """Memory, time and metric that a board measured while it ran the bundle of a trial.

    Attributes:
        trial: number in the study.
        machine: its model, ``NVIDIA Jetson Nano Developer Kit``.
        software: versions, ``{"python": "3.6.9", "torch": "1.10.0", …}``.
        steps: timed optimizer steps, without those before a power cut.
        peak_memory_mib: peak resident memory of the process, plus that of CUDA's allocator on a GPU.
        process_memory_mib: resident memory before the model was loaded.
        step_time_s: median.
        wall_time_s: of all steps of the phase, extrapolated from the timed ones.
        predicted_memory_mib, predicted_process_mib, predicted_time_s: predictions of the bundle for its device, for the
            same amount of work.
        metric: on the board's development rows; None without such rows.
        created: time of the measurement, ISO 8601.
    """

    trial: int
    machine: str
    software: Mapping[str, str]
    rows: int
    epochs: float
    steps: int
    peak_memory_mib: float
    process_memory_mib: float
    step_time_s: float
    wall_time_s: float
    predicted_memory_mib: float
    predicted_process_mib: float
    predicted_time_s: float
    metric: float | None
    created: str


@dataclass(frozen=True)
class PlanPrice(Record):
    """Predicted cost of a configuration under one step plan.

    Attributes:
        peak_memory_mib, wall_time_s, feasible: as in ``TrialRecord``.
    """

    plan: StepPlan
    peak_memory_mib: float
    wall_time_s: float
    feasible: bool


@dataclass(frozen=True)
class TrialRecord(Record):
    """One trial of a study.

    Attributes:
        state: Optuna's state in lower case.
        metric: the objective, on the validation split, in the task's metric (0.9 is 90 %).
        metric_error: standard error of ``metric`` over the draw of the rows, without that over seeds.
        learned: ``metric`` is above that of the best constant answer by more than ``metric_error``; None where that is
            unknown.
        dev_metric: the same metric on the official development set; never used for selection.
        parts: further metrics by name: the single metrics of a combined one, as ``f1``, and those on the development
            sets, as ``dev/f1`` and ``dev_mismatched/accuracy``.
        peak_memory_mib: predicted peak on the device, its process included.
        wall_time_s: predicted seconds on the device.
        energy_j: watts of the profile times ``wall_time_s``; None where the profile has no power figure.
        feasible: fits the device and the bounds of the study.
        on_front: no other feasible complete trial is at least as good in all three objectives and better in one.
        host_seconds: duration of the FAR phase and the evaluation on this host.
        host_peak_mib: peak memory on this host: of CUDA's allocator, or of the whole process on a CPU.
        memory: predicted breakdown of the tensor peak in MiB by category.
        time: predicted breakdown of ``wall_time_s`` in seconds by operation class.
        trainable: parameters with a gradient in the FAR phase.
        plans: the costs under ``plan`` and under the exact plans that no other dominates in peak and time.
        looks: intermediate validation metrics, on fewer rows than ``metric``.
        extrapolated_metric: predicted metric of a trial that was stopped because it could not reach the front. Used by
            samplers alone.
        reason: why a trial is not complete.
        baseline: the method, in a study of baselines; None in a search. ``config`` is None where the method is no
            configuration of FAR.
        verifies: the repeated trial, in a study of verifications, whose ``metric`` is on the official development set;
            None elsewhere.
    """

    number: int
    state: Literal["running", "waiting", "complete", "pruned", "fail"]
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
