"""The records that say everything about a trial: what is done, what is learned, how a step is executed, what came out.

All are frozen dataclasses with a strict round trip through JSON types: ``from_dict`` refuses unknown and missing keys
and values of another type, so that a misspelt setting is an error and never a default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from farsearch.errors import BadInput
from farsearch.far.batches import MOST_EPOCHS
from farsearch.far.display import shown
from farsearch.json_records import Record

__all__ = [
    "PRICING",
    "SCHEMA_VERSION",
    "Baseline",
    "FarConfig",
    "JobSpec",
    "LossPoint",
    "Measurement",
    "MetricPoint",
    "PlanPrice",
    "Priming",
    "PrimingReport",
    "Record",
    "StepPlan",
    "StudySettings",
    "StudySnapshot",
    "TrialRecord",
    "Verification",
]

PRICING = 2
"""What new studies' ``pricing`` is. It rises when the same settings are priced otherwise."""

SCHEMA_VERSION = 1
"""Version of everything that these records write. It rises when an old file could be misread."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise BadInput(message)


@dataclass(frozen=True)
class Priming(Record):
    """How the short training before the selection is done. Fixed for a study: only its length is searched.

    Attributes:
        optimizer: ``adamw`` or ``sgd`` (without momentum, so without state).
        learning_rate: constant after a linear warm-up over the first ``warmup_steps`` steps.
        selection: ``l1`` takes the neurons that moved most, ``random`` a seeded draw (the control).
        frozen_values: what the frozen tensors hold in the FAR phase, their ``pretrained`` or their ``primed`` values.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-5
    warmup_steps: int = 8
    selection: Literal["l1", "random"] = "l1"
    frozen_values: Literal["pretrained", "primed"] = "pretrained"

    def __post_init__(self) -> None:
        _check(
            self.learning_rate > 0 and math.isfinite(self.learning_rate),
            f"priming learning_rate is {self.learning_rate}; it must be a number above 0",
        )
        _check(self.warmup_steps >= 0, f"priming warmup_steps is {self.warmup_steps}; it must be at least 0")


@dataclass(frozen=True)
class JobSpec(Record):
    """What is to be done. Fixed for a study.

    Attributes:
        task: name of the task, ``sst2``.
        data: identity of its rows: SHA-256 over the texts and labels that were read.
        model: name that the user gave, ``minilm``.
        weights: identity of the pre-trained weights: SHA-256 of the file, or ``NAME@COMMIT`` of the hub.
        train_samples: rows that a trial trains on, drawn by ``seed``.
        validation_samples: rows that the objective is measured on; none where the development set is it.
        max_length: tokens at which a text is cut, and at which peak memory is priced.
        keep_head: the head that the checkpoint brings is trained on, instead of a new one.
        positive: label of the class that the metric is of; None where it is of all, and in studies that were made
            before it was recorded, whose F1 is that of the second class.
    """

    task: str
    data: str
    model: str
    weights: str
    train_samples: int
    validation_samples: int
    batch_size: int
    max_length: int
    seed: int
    priming: Priming = field(default_factory=Priming)
    keep_head: bool = False
    positive: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("train_samples", 1), ("validation_samples", 0), ("batch_size", 1)):
            _check(getattr(self, name) >= least, f"{name} is {getattr(self, name)}; it must be at least {least}")
        _check(self.max_length >= 4, f"max_length is {self.max_length}; it must be at least 4 tokens")


@dataclass(frozen=True)
class FarConfig(Record):
    """What is learned: the only thing that is searched by training.

    Attributes:
        priming_epochs: length of the priming in epochs; 0 selects without priming (only random selection can).
        frozen_fractions: share of frozen hidden neurons, one value a layer from the bottom. 0 leaves a layer
            untouched, 1 freezes its whole feed-forward block.
        learning_rate: peak of the FAR phase's schedule.
        epochs: length of the FAR phase alone.
        frozen_embeddings: the embeddings (tables and their LayerNorm) are not trained.
        frozen_attention_layers: so many of the lowest layers do not train their attention.
        frozen_bottom_layers: so many of the lowest layers are not trained at all, with the embeddings, so that the
            backward pass stops above them.
    """

    frozen_fractions: tuple[float, ...]
    learning_rate: float
    epochs: float
    priming_epochs: float = 0.0
    frozen_embeddings: bool = False
    frozen_attention_layers: int = 0
    frozen_bottom_layers: int = 0

    def __post_init__(self) -> None:
        layers = len(self.frozen_fractions)
        for i, fraction in enumerate(self.frozen_fractions):
            _check(0 <= fraction <= 1, f"frozen fraction {fraction} of layer {i} is outside 0 to 1")
        _check(
            self.learning_rate > 0 and math.isfinite(self.learning_rate),
            f"learning_rate is {self.learning_rate}; it must be a number above 0",
        )
        most = f"at most {MOST_EPOCHS:,}"
        _check(0 < self.epochs <= MOST_EPOCHS, f"epochs is {self.epochs}; it must be a number above 0, {most}")
        _check(
            0 <= self.priming_epochs <= MOST_EPOCHS,
            f"priming_epochs is {self.priming_epochs}; it must be a number of at least 0, {most}",
        )
        for name in ("frozen_attention_layers", "frozen_bottom_layers"):
            count = getattr(self, name)
            _check(0 <= count <= layers, f"{name} is {count}; the model has {layers} layers")

    def canonical(self) -> FarConfig:
        """The same training, written in one way: what a frozen bottom implies is spelt out.

        Two configurations that train alike have equal canonical forms, so that no training is done twice.
        """
        bottom = self.frozen_bottom_layers
        return dataclasses.replace(
            self,
            frozen_fractions=(1.0,) * bottom + self.frozen_fractions[bottom:],
            frozen_embeddings=self.frozen_embeddings or bottom > 0,
            frozen_attention_layers=max(self.frozen_attention_layers, bottom),
        )


_PIECES = {"attention": "attention", "dropout": "masks", "layer_norm": "norms"}
"""Parts of a plan beside the feed-forward block, and what ordinary modules keep of each."""


@dataclass(frozen=True)
class StepPlan(Record):
    """How a training step is executed. It does not change what is learned.

    Attributes:
        optimizer: ``adamw`` (two state tensors a trained one) or ``sgd`` (none).
        micro_batch_size: rows that go through the model at once, their gradients added up to the batch's; None
            for the whole batch.
        feed_forward: what a feed-forward block keeps for the backward pass: what autograd does (``modules``), its
            pre-activations (``store``), the frozen part's derivative in one byte (``compact``, not exact), or its
            input alone (``recompute``).
        attention: ``modules``, or ``recompute`` the probabilities.
        dropout: ``modules``, or draw the masks again from their ``seed``.
        layer_norm: ``modules``, or rebuild the normalised input from the ``output``.
        frozen_dtype: in which frozen feed-forward weights are held; fewer bits than ``float32`` round them.
        checkpointing: each layer keeps its input alone and runs forward again.
        optimizer_kernel: ``loop`` over the parameters, operation by operation; each operation on all of them at once,
            with a copy of them (``foreach``); or ``fused`` in one.
        optimizer_step: all parameters at the ``end``, or each in the ``backward`` pass as soon as its gradient is
            complete, which is dropped then.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    micro_batch_size: int | None = None
    feed_forward: Literal["modules", "store", "compact", "recompute"] = "modules"
    attention: Literal["modules", "recompute"] = "modules"
    dropout: Literal["modules", "seed"] = "modules"
    layer_norm: Literal["modules", "output"] = "modules"
    frozen_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpointing: bool = False
    optimizer_kernel: Literal["loop", "foreach", "fused"] = "loop"
    optimizer_step: Literal["end", "backward"] = "end"

    def __post_init__(self) -> None:
        size = self.micro_batch_size
        _check(size is None or size >= 1, f"micro_batch_size is {size}; it must be at least 1")
        _check(
            size is None or self.optimizer_step == "end",
            f"micro_batch_size is {size} and optimizer_step is 'backward'; gradients that add up need 'end'",
        )
        _check(
            self.optimizer_kernel != "foreach" or self.optimizer_step == "end",
            "optimizer_kernel is 'foreach' and optimizer_step 'backward'; all parameters at once need 'end'",
        )
        _check(
            self.frozen_dtype == "float32" or self.feed_forward != "modules",
            f"frozen_dtype is {shown(self.frozen_dtype)} and feed_forward 'modules', which would hold float32 copies; "
            "choose another feed_forward",
        )

    @property
    def summary(self) -> str:
        """What the backward pass keeps, in a few words."""
        kept = [] if self.feed_forward == "modules" else [name for name in _PIECES if getattr(self, name) == "modules"]
        words = [self.feed_forward, *(f"kept {_PIECES[name]}" for name in kept)]
        return " + ".join(words + ["checkpointing"] * self.checkpointing)

    @property
    def title(self) -> str:
        """The same, and how the optimizer steps: different among the plans of a device."""
        return f"{self.summary}; {self.optimizer_kernel}, {self.optimizer_step}"

    @property
    def exact(self) -> bool:
        """It computes what ordinary modules compute, up to rounding."""
        return self.feed_forward != "compact" and self.frozen_dtype == "float32"


@dataclass(frozen=True)
class StudySettings(Record):
    """What makes two runs the same study.

    Attributes:
        device: name of the profile.
        profile: SHA-256 of the profile's values.
        space: the search space as its YAML says it, with all ``--set`` values applied.
        prime_on: where priming runs; on ``device`` its memory and time count.
        max_memory_mib: an upper bound for the peak memory beside the device's own; None for none.
        max_time_s: an upper bound for the wall time on the device; None for none.
        device_samples: rows that the device trains on, priced instead of ``train_samples``; None for the same.
        plan: what the step plan of each configuration is chosen for.
        pricing: which prices the trials have: 1 were chosen among fewer plans, before ``PRICING`` 2.
    """

    job: JobSpec
    device: str
    profile: str
    space: Mapping[str, Any]
    prime_on: Literal["host", "device"] = "host"
    max_memory_mib: float | None = None
    max_time_s: float | None = None
    device_samples: int | None = None
    plan: Literal["memory", "time", "balanced"] = "balanced"
    pricing: int = 1

    def fingerprint(self) -> str:
        """SHA-256 (first 16 digits) over the settings.

        Independent of the order of keys, and of whether a number is written 1 or 1.0.
        """
        settings = self.to_dict()
        if self.pricing == 1:  # which has no entry in studies of its time
            del settings["pricing"]
        return hashlib.sha256(_text(settings).encode()).hexdigest()[:16]

    def differences(self, other: StudySettings) -> list[str]:
        """``key: mine, theirs`` for each setting that differs, nested keys with dots."""
        mine, theirs = _flatten(self.to_dict()), _flatten(other.to_dict())
        return [
            f"{key}: {mine.get(key, _ABSENT)}, {theirs.get(key, _ABSENT)}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        ]


_ABSENT = "nothing"


def _text(value: Any) -> str:
    """JSON in which equal values have equal texts."""
    return json.dumps(_as_numbers(value), sort_keys=True)


def _as_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """The leaves of nested tables as texts, by their dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: _text(value)}
    return {
        name: item
        for key, child in value.items()
        for name, item in _flatten(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }


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
"""An overlap that is no more than this above chance says nothing: two halves of a priming vary by as much."""


@dataclass(frozen=True)
class PrimingReport(Record):
    """What priming and selection did.

    Attributes:
        steps: optimizer steps primed.
        host_seconds: seconds that this priming took here when it was run (not when it came from the cache).
        from_cache: no step of it was run for this trial.
        score_spread: coefficient of variation of the neurons' scores, mean over the layers; 0 when not primed.
        half_overlap: overlap of the selections that the first and the second half of the priming batches would
            make, mean over the layers with learners; None when it can't be said (fewer than two steps).
        chance_overlap: what random selections of that size would overlap by.
    """

    steps: int
    host_seconds: float
    from_cache: bool
    score_spread: float
    half_overlap: float | None
    chance_overlap: float | None

    @property
    def like_chance(self) -> bool | None:
        """Whether the selection can't be told from a random one; None where nothing says."""
        if self.half_overlap is None or self.chance_overlap is None:
            return None
        return self.half_overlap <= self.chance_overlap + _SAME_AS_CHANCE


@dataclass(frozen=True)
class Baseline(Record):
    """What a trial of a sibling study trained: a method that the search is compared with.

    Attributes:
        method: short name, ``lora8``. title: in words.
        learning_rate, epochs: as in ``FarConfig``, which not every method has.
    """

    method: str
    title: str
    learning_rate: float
    epochs: float


@dataclass(frozen=True)
class Verification(Record):
    """What a trial of a sibling study trained again: a trial or a baseline of the search, with another seed.

    Attributes:
        trial: its number in the search, or None for the baseline that the record names.
        seed: of head, order of the rows, dropout and random selection.
        train_samples: rows that it was trained on, drawn by ``seed``.
    """

    trial: int | None
    seed: int
    train_samples: int


@dataclass(frozen=True)
class Measurement(Record):
    """What a board measured while it ran the bundle of a trial.

    Attributes:
        trial: number in the study.
        machine: what it says of itself, ``NVIDIA Jetson Nano Developer Kit``.
        software: versions, ``{"python": "3.6.9", "torch": "1.10.0", …}``.
        steps: optimizer steps that were timed; those before a power cut are not.
        peak_memory_mib: highest resident memory of the process, with CUDA's allocator where there is a GPU.
        process_memory_mib: what it took before there was a model.
        step_time_s: median.
        wall_time_s: of all steps of the phase, by the steps that were timed.
        predicted_memory_mib, predicted_process_mib, predicted_time_s: what the bundle said of the same amount of work,
            on its device.
        metric: on the board's own development rows, None where there were none.
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
    """What a configuration costs under one step plan: derived, for all exact plans learn the same.

    Attributes:
        peak_memory_mib, wall_time_s, feasible: as in ``TrialRecord``.
    """

    plan: StepPlan
    peak_memory_mib: float
    wall_time_s: float
    feasible: bool


@dataclass(frozen=True)
class TrialRecord(Record):
    """One trial as read back from the study.

    Attributes:
        state: Optuna's state in lower case.
        metric: the objective, on the validation split, in the task's metric (0.9 is 90 %).
        metric_error: standard error of ``metric`` from the draw of the rows alone, not of the seed.
        learned: ``metric`` is above that of the best constant answer by more than ``metric_error``; None where it is
            not known.
        dev_metric: the same metric on the official development set. Nothing selects by it.
        parts: further figures by name: the single metrics of one that is made of several, as ``f1``, and those on the
            development sets, as ``dev/f1`` and ``dev_mismatched/accuracy``.
        peak_memory_mib: predicted peak on the device, its process included.
        wall_time_s: predicted seconds on the device.
        energy_j: watts of the profile times ``wall_time_s``; None where the profile has no power figure.
        feasible: fits the device and the bounds of the study.
        on_front: no other feasible complete trial is at least as good in all three objectives.
        host_seconds: seconds that the FAR phase and the evaluation took here.
        host_peak_mib: peak memory here: of CUDA's allocator, or of the whole process on a CPU.
        memory: predicted breakdown of the tensor peak in MiB by category.
        time: predicted breakdown of ``wall_time_s`` in seconds by operation class.
        trainable: parameters with a gradient in the FAR phase.
        plans: the costs under ``plan`` and under those exact plans of the device that no other beats in peak and time.
        looks: the validation metric on the way, on fewer rows than ``metric``.
        extrapolated_metric: of a trial that was stopped because it could not reach the front any more: what its metric
            would have been. Samplers learn from it, and nothing else does.
        reason: why a trial did not end complete.
        baseline: what was trained in a study of baselines; None in a search. ``config`` is None there where the method
            is no configuration of FAR.
        verifies: what was trained again in a study of verifications, whose ``metric`` is that on the official
            development set; None elsewhere.
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


@dataclass(frozen=True)
class StudySnapshot(Record):
    """A study at one moment: everything that mirrors, reports and choices are made from.

    Attributes:
        metric_name: name of the task's metric.
        rejected: proposals that were never trained, counted by reason.
        budget_mib: the low end of what the device can give a process, the bound that feasible trials keep.
        meta: what else a report says and nothing decides by: versions, command, model size, data source.
        baselines: of each method that the search is compared with, the trial that is best on validation, of those that
            learned where there are any. They are numbered in the sibling study that keeps them.
        verified: the trainings of ``verify``, one a point and seed. They are numbered in a sibling study too.
        measurements: what boards measured with bundles of this study, in the order in which they came.
    """

    name: str
    settings: StudySettings
    metric_name: str
    budget_mib: float
    n_trials: int
    trials: tuple[TrialRecord, ...]
    rejected: Mapping[str, int] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[TrialRecord, ...] = ()
    verified: tuple[TrialRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials on the Pareto front, from the least memory to the most."""
        members = [trial for trial in self.trials if trial.on_front]
        return tuple(sorted(members, key=lambda t: (t.peak_memory_mib or 0.0, t.wall_time_s or 0.0, t.number)))

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The trials that were trained to their end, in order of their numbers."""
        return tuple(trial for trial in self.trials if trial.state == "complete")
