"""Compare predictions with real training steps on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farsearch.calibration.steps import peak_mib, ready_step
from farsearch.cost.plans import exact_plans, ordinary_plan
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.traced_model import shared_tables
from farsearch.devices.profile import Profile
from farsearch.far.layout import ModelLayout
from farsearch.far.optimizer import has_backward_hooks, has_fused
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.records import FarConfig, StepPlan

__all__ = ["BATCHES", "StepCase", "StepCheck", "check_cases", "check_step", "mean_errors"]

BATCHES = ((4, 32), (8, 64), (8, 128))
"""Rows and tokens of the steps, from few to many."""


@dataclass(frozen=True)
class StepCase:
    """One training step: its batch, configuration and plan."""

    title: str
    batch_size: int
    length: int
    config: FarConfig
    plan: StepPlan


@dataclass(frozen=True)
class StepCheck:
    """Predicted and measured costs of a step. Peaks are those of all tensors, in MiB."""

    case: StepCase
    predicted_mib: float
    measured_mib: float
    predicted_s: float
    range_s: tuple[float, float]
    measured_s: float

    @property
    def within(self) -> bool:
        """Whether the measured time is in the predicted range."""
        return self.range_s[0] <= self.measured_s <= self.range_s[1]


def check_cases(profile: Profile, layout: ModelLayout) -> list[StepCase]:
    """Return cases of few and many tokens, full fine-tuning and FAR at r = 10 %, ordinary and other exact plans."""
    layers = len(layout.layers)
    full, far = full_fine_tuning(layers), FarConfig((0.9,) * layers, 1e-4, 1.0)
    # of plans with the same summary the last: it steps in the backward pass if torch supports that
    plans = {plan.summary: plan for plan in exact_plans(profile, layout) if _executable(plan)}.values()
    ways = [("full fine-tuning", full, ordinary_plan(profile))]
    ways += [(f"FAR 10 %, {plan.summary}", far, plan) for plan in plans]
    return [StepCase(title, b, t, config, plan) for b, t in BATCHES for title, config, plan in ways]


def _executable(plan: StepPlan) -> bool:
    """Whether this machine's torch can execute a plan of the device."""
    return (plan.optimizer_kernel != "fused" or has_fused()) and (
        plan.optimizer_step != "backward" or has_backward_hooks()
    )


def check_step(model_config: Any, case: StepCase, profile: Profile, steps: int = 5) -> StepCheck:
    """Predict a step, then run it with random weights and tokens: several timed steps, and a profiled one.

    Args:
        model_config: transformers configuration of the model.
        steps: timed steps, of which the median is returned, after one warm-up step.
    """
    tables = shared_tables(model_config, Head())
    pricer = Pricer(model_config, Head(), case.batch_size, case.length, profile, tables=tables)
    cost = pricer.price(case.config, case.plan)
    low, high = (end / cost.wall_time_s for end in cost.wall_time_range_s)
    model, layout = build_model(model_config, Head())
    with ready_step(model, layout, case.config, case.plan, case.batch_size, case.length) as ready:
        ready.call()
        seconds = statistics.median(ready.seconds() for _ in range(steps))
        peak = peak_mib(ready.call, model, ready.optimizer)
    return StepCheck(
        case,
        cost.tensor_peak_mib - profile.workspace_mib.value,
        peak,
        cost.step_time_s,
        (cost.step_time_s * low, cost.step_time_s * high),
        seconds,
    )


def mean_errors(checks: Sequence[StepCheck]) -> tuple[float, float]:
    """Return the mean absolute errors of memory and of time, as fractions of the measured values."""
    memory = statistics.mean(abs(check.predicted_mib / check.measured_mib - 1) for check in checks)
    return memory, statistics.mean(abs(check.predicted_s / check.measured_s - 1) for check in checks)
