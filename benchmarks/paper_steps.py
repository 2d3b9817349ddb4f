"""A training step of each method of the comparison: its peak memory, and its time relative to the others.

Cells are trained one after another, on machines with other load and on other days, so their seconds are not comparable.
For a ratio all methods run in turn on the same real batches, so that a temporary slowdown affects all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from benchmarks.paper_methods import CONTENDERS, FULL
from benchmarks.step_measures import interleaved, step_seconds
from farsearch.baselines import Method
from farsearch.calibration.steps import apply_config, example_batch, peak_mib
from farsearch.cost.plans import optimizer_of
from farsearch.far.batches import phase_batches
from farsearch.far.features import batch_of
from farsearch.far.loop import train_step
from farsearch.far.optimizer import Optimizer, has_fused
from farsearch.records import StepPlan
from farsearch.training import Bench

__all__ = ["StepTimes", "measure_times", "ordinary_plan", "step_peak"]

_BATCHES, _ROUNDS = 12, 5
_RATE = 1e-6
"""Learning rate; these steps need not learn."""


def ordinary_plan() -> StepPlan:
    """Ordinary modules and torch's fused AdamW, the default of transformers' trainer since version 5.

    BitFit is trained with AdamW's loop: it has too few parameters for that to take time.
    """
    return StepPlan(optimizer_kernel="fused" if has_fused() else "loop")


def _ready(method: Method, epochs: float, bench: Bench) -> tuple[nn.Module, Optimizer]:
    """A copy of the model with the trained parameters of the method, and its optimizer."""
    model, plan = copy.deepcopy(bench.model).train(), ordinary_plan()
    config = method.far_config(len(bench.layout.layers), _RATE, epochs)
    if config is not None:
        apply_config(model, bench.layout, config, plan)
    else:
        assert method.prepare is not None
        method.prepare(model, bench.layout)
    optimizer = optimizer_of(plan, model)
    for group in optimizer.param_groups:
        group["lr"] = _RATE
    return model, optimizer


def step_peak(method: Method, epochs: float, bench: Bench) -> float:
    """Return the peak of all tensors in a step of the longest rows, in MiB.

    A priming is none of it: it takes full fine-tuning's.
    """
    model, optimizer = _ready(method, epochs, bench)
    settings: Any = model.config
    longest = max(bench.train_rows.lengths)
    batch = example_batch(settings.vocab_size, bench.job.batch_size, longest, bench.device, bench.head)
    train_step(model, optimizer, batch)  # the first step makes the optimizer's state
    return peak_mib(lambda: train_step(model, optimizer, batch), model, optimizer)


@dataclass(frozen=True)
class StepTimes:
    """Costs of steps of all methods at the same batches.

    Attributes:
        device: ``cpu`` or ``cuda``.
        steps: of the FAR phase, of which the batches are.
        lengths: tokens of the batches' longest rows: evenly many between the shortest and the longest batch.
        seconds: of full fine-tuning at each batch, the median of the rounds.
        ratios: of each method's step to full fine-tuning's in the same round, the median of the rounds, at each batch.
    """

    device: str
    steps: int
    lengths: tuple[int, ...]
    seconds: tuple[float, ...]
    ratios: Mapping[str, tuple[float, ...]]

    def phase_ratio(self, name: str) -> float:
        """Return the time of a method's phase relative to full fine-tuning, summed over the batches."""
        return float(np.average(self.ratios[name], weights=self.seconds))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON types of the table's file."""
        return {
            "device": self.device,
            "steps": self.steps,
            "lengths": list(self.lengths),
            "seconds": list(self.seconds),
            "ratios": {name: list(values) for name, values in self.ratios.items()},
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> StepTimes:
        """Return the record that ``to_dict`` wrote."""
        ratios = {name: tuple(values) for name, values in data["ratios"].items()}
        return StepTimes(data["device"], data["steps"], tuple(data["lengths"]), tuple(data["seconds"]), ratios)


def measure_times(bench: Bench, epochs: float, note: Callable[[str], None]) -> StepTimes:
    """Time all methods in turn on batches of the phase, after a warm-up round."""
    rows = bench.train_rows
    phase = phase_batches(rows.lengths, bench.job.batch_size, epochs, bench.job.seed)
    chosen = _spread(phase, rows.lengths, _BATCHES)
    models = {name: _ready(each.method, epochs, bench) for name, each in CONTENDERS.items()}
    assert next(iter(models)) == FULL, "the first one is measured at both ends of a round"
    seconds, ratios = [], []
    for number, at in enumerate(chosen, 1):
        batch = batch_of(rows.features.take(at), bench.pad_id, bench.device)
        calls = [partial(train_step, model, optimizer, batch) for model, optimizer in models.values()]
        times = interleaved(calls, _ROUNDS + 1, step_seconds, lambda _: None)[1:, :, 0]
        seconds.append(round(float(np.median(times[:, 0])), 5))
        ratios.append(np.median(times / times[:, :1], axis=0).round(4).tolist())
        note(f"steps of all methods in turns: batch {number} of {len(chosen)}")
    return StepTimes(
        bench.device.type,
        len(phase),
        tuple(max(rows.lengths[row] for row in at) for at in chosen),
        tuple(seconds),
        {
            name: tuple(float(value) for value in column)
            for name, column in zip(models, np.array(ratios).T, strict=True)
        },
    )


def _spread(phase: Sequence[Sequence[int]], lengths: Sequence[int], count: int) -> list[Sequence[int]]:
    """``count`` batches of a phase: the middles of equal parts of it, sorted by length."""
    ordered = sorted(phase, key=lambda at: max(lengths[row] for row in at))
    count = min(count, len(ordered))
    return [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]
