"""Time: steps outside of the calibration, and one whole fine-tuning run, predicted before they are measured."""

from __future__ import annotations

import copy
import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.cost_models import MODELS, MODULES, STORE, built, layers_of
from benchmarks.step_measures import step_seconds
from farsearch.calibration.check import StepCase
from farsearch.calibration.measure.workloads import workload
from farsearch.calibration.result import Calibration
from farsearch.calibration.steps import ready_step
from farsearch.cost.pricer import Pricer
from farsearch.devices.profile import Profile
from farsearch.models.heads import Head
from farsearch.records import FarConfig

__all__ = ["Reference", "Setting", "TimeCase", "measure_steps", "settings"]

_SHAPES = ((2, 48), (4, 128), (8, 32), (16, 64))
"""Rows and tokens of a batch."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """A training step of a model."""

    model: str
    case: StepCase


@dataclass(frozen=True)
class TimeCase:
    """Predicted and measured seconds of a step; ``low_s`` and ``high_s`` are the predicted range.

    Attributes:
        measured_s: median over the rounds.
        steady_s: the same with each time divided by the current slowdown of the machine since the calibration,
            measured by steps of the calibration's workloads before and after it.
    """

    setting: Setting
    predicted_s: float
    low_s: float
    high_s: float
    measured_s: float
    steady_s: float

    @property
    def error(self) -> float:
        """Predicted by measured at the calibrated speed, less 1."""
        return self.predicted_s / self.steady_s - 1


class Reference:
    """Steps of the calibration's workloads, which measure the current speed: 1 as calibrated, 2 half as fast."""

    def __init__(self, calibration: Calibration) -> None:
        device = torch.device(calibration.machine.kind)
        self._steps = {name: workload(name, device) for name in ("narrow", "learners") if name in calibration.sustained}
        self._calibrated = {name: calibration.sustained[name].last for name in self._steps}
        self.now()

    def now(self) -> float:
        """Return the seconds of the workloads relative to the calibration, geometric mean."""
        ratios = [step_seconds(step)[0] / self._calibrated[name] for name, step in self._steps.items()]
        return statistics.geometric_mean(ratios)


def settings() -> list[Setting]:
    """Full fine-tuning, FAR at uneven fractions and with more frozen, under ordinary modules and exact plans."""
    found = []
    for model in MODELS:
        layers = layers_of(model)
        uneven = tuple(0.95 - 0.6 * i / layers for i in range(layers))
        full = FarConfig((0.0,) * layers, 1e-4, 1.0)
        far = FarConfig(uneven, 1e-4, 1.0)
        frozen = FarConfig((0.9,) * layers, 1e-4, 1.0, 0.0, True, layers // 2)
        ways = [
            ("full", full, MODULES),
            ("FAR, modules", far, MODULES),
            ("FAR, store", far, STORE),
            (
                "FAR, more frozen, checkpointing",
                frozen,
                dataclasses.replace(STORE, checkpointing=True),
            ),
        ]
        found += [Setting(model, StepCase(name, b, t, config, plan)) for b, t in _SHAPES for name, config, plan in ways]
    return found


def measure_steps(
    calibration: Calibration, profile: Profile, chosen: Sequence[Setting], rounds: int, note: Note
) -> list[TimeCase]:
    """Predict all settings, then measure them in rounds of random order; medians over the rounds.

    Args:
        calibration: from which ``profile`` was fitted.
    """
    predicted = [_predicted(profile, setting) for setting in chosen]
    reference = Reference(calibration)
    times: list[list[float]] = [[] for _ in chosen]
    drifts: list[list[float]] = [[] for _ in chosen]
    start = time.monotonic()
    for number in range(rounds):
        order = list(range(len(chosen)))
        random.Random(number).shuffle(order)
        before = reference.now()
        for i in order:
            times[i].append(_step_seconds(chosen[i]))
            after = reference.now()
            drifts[i].append((before + after) / 2)
            before = after
        every = [drift for visits in drifts for drift in visits[number:]]
        spent = time.monotonic() - start
        note(f"steps: round {number + 1} of {rounds}, {spent:.0f} s, machine {statistics.median(every):.2f} as slow")
    steady = [[t / d for t, d in zip(*pair, strict=True)] for pair in zip(times, drifts, strict=True)]
    return [
        TimeCase(setting, *price, statistics.median(measured), statistics.median(corrected))
        for setting, price, measured, corrected in zip(chosen, predicted, times, steady, strict=True)
    ]


def _predicted(profile: Profile, setting: Setting) -> tuple[float, float, float]:
    config, _, _ = built(setting.model)
    case = setting.case
    cost = Pricer(config, Head(), case.batch_size, case.length, profile).price(case.config, case.plan)
    factors = [end / cost.wall_time_s for end in cost.wall_time_range_s]
    return cost.step_time_s, cost.step_time_s * factors[0], cost.step_time_s * factors[1]


def _step_seconds(setting: Setting) -> float:
    """Return the median seconds of three training steps of a new copy, after one warm-up step."""
    _, original, layout = built(setting.model)
    model = copy.deepcopy(original)
    case = setting.case
    with ready_step(model, layout, case.config, case.plan, case.batch_size, case.length) as ready:
        ready.call()
        return statistics.median(ready.seconds() for _ in range(3))
