"""What a trial records of its training, the origins of auxiliary trials, and measurements of boards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farsearch.json_records import Record

__all__ = [
    "Baseline",
    "LossPoint",
    "Measurement",
    "MetricPoint",
    "PrimingReport",
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
