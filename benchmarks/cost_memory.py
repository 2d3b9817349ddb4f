"""Memory: the peak of all tensors of a training step, predicted and as torch's profiler saw it."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cost_models import MODULES, STORE, built, layers_of
from farsearch.calibration.check import StepCase
from farsearch.calibration.steps import peak_mib, ready_step
from farsearch.cost.price import Pricer
from farsearch.devices.profile import Profile
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan

__all__ = ["BATCHES", "LENGTHS", "MemoryCase", "measure_peaks", "memory_cases"]

BATCHES = (1, 4, 16)
LENGTHS = (32, 128, 256)
Note = Callable[[str], None]


@dataclass(frozen=True)
class MemoryCase:
    """A step of a model, with its predicted and its measured peak in MiB."""

    model: str
    case: StepCase
    predicted_mib: float
    measured_mib: float

    @property
    def error(self) -> float:
        """Predicted by measured, less 1."""
        return self.predicted_mib / self.measured_mib - 1


def memory_cases(layers: int, batch_size: int, length: int) -> list[StepCase]:
    """Full, FAR at three uneven settings, frozen embeddings and attention, each backward policy, parts of a batch."""
    rising = FarConfig(tuple(0.95 - 0.6 * i / layers for i in range(layers)), 1e-4, 1.0)
    falling = FarConfig(tuple(0.3 + 0.7 * i / (layers - 1) for i in range(layers)), 1e-4, 1.0)
    mixed = FarConfig(
        tuple((0.0, 0.9, 1.0, 0.5)[i % 4] for i in range(layers)), 1e-4, 1.0, 0.0, True, layers // 2, layers // 6
    )

    def variant(**changes: object) -> StepPlan:
        return dataclasses.replace(STORE, **changes)  # type: ignore[arg-type]

    ways = [
        ("full, modules", FarConfig((0.0,) * layers, 1e-4, 1.0), MODULES),
        ("FAR rising, modules", rising, MODULES),
        ("FAR falling, modules, SGD", falling, dataclasses.replace(MODULES, optimizer="sgd")),
        ("FAR mixed, more frozen, modules", mixed, MODULES),
        ("FAR rising, store", rising, STORE),
        ("FAR falling, recompute", falling, variant(feed_forward="recompute")),
        ("FAR mixed, more frozen, compact", mixed, variant(feed_forward="compact")),
        ("FAR rising, checkpointing", rising, variant(checkpointing=True, frozen_dtype="bfloat16")),
    ]
    if batch_size > 4:
        parts = variant(micro_batch_size=batch_size // 4, optimizer_step="end")
        ways.append(("FAR falling, store, micro-batches", falling, parts))
    return [StepCase(name, batch_size, length, config, plan) for name, config, plan in ways]


def measure_peaks(profile: Profile, models: Sequence[str], note: Note) -> list[MemoryCase]:
    """Predict and measure every case of every model, batch and length.

    Args:
        profile: of a device whose allocator counts as this host's profiler does.
    """
    found = []
    for name in models:
        config, original, layout = built(name)
        start = time.monotonic()
        for batch_size in BATCHES:
            for length in LENGTHS:
                pricer = Pricer(config, Head(), batch_size, length, profile)
                for case in memory_cases(layers_of(name), batch_size, length):
                    predicted = pricer.price(case.config, case.plan).tensor_peak_mib
                    model = copy.deepcopy(original)
                    with ready_step(model, layout, case.config, case.plan, batch_size, length) as ready:
                        measured = peak_mib(ready.call, model, ready.optimizer)
                    found.append(MemoryCase(name, case, predicted, measured))
                worst = max(abs(one.error) for one in found)
                note(f"memory: {name} {batch_size} x {length}, {time.monotonic() - start:.0f} s, worst {worst:.3%}")
    return found
