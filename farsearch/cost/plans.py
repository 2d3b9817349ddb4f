"""Step plans: their execution, and the plans that a device can execute exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal

from torch import nn

from farsearch.cost.software import torch_version
from farsearch.devices.profile import Profile
from farsearch.errors import BadInput, ProfileError
from farsearch.far.display import shown
from farsearch.far.layout import ModelLayout
from farsearch.far.optimizer import BackwardOptimizer, Optimizer, has_fused, make_optimizer
from farsearch.plan_execution import RECOMPUTE, STORE, executable, execution_of, for_engine, has_half, stepped_at_end
from farsearch.records import Engine, Precision, StepPlan

__all__ = [
    "check_precision", "compiled_plans", "exact_plans", "executable", "execution_of", "for_engine", "half_plans",
    "optimizer_of", "ordinary_plan", "quickest", "stepped_at_end",
]  # fmt: skip

_EXECUTIONS = (
    StepPlan(),
    StepPlan(checkpointing=True),
    StepPlan(feed_forward="store"),
    StepPlan(feed_forward="store", layer_norm="output"),
    STORE,
    RECOMPUTE,
    dataclasses.replace(STORE, checkpointing=True),
    dataclasses.replace(RECOMPUTE, checkpointing=True),
)
"""Executions of the forward and backward pass, the simpler ones first. None of the other exact ones, 48 in total, is
better than the best of these by more than 1 % in memory, time or their product (docs/log.md, tests)."""


def optimizer_of(plan: StepPlan, model: nn.Module) -> Optimizer:
    """Return the optimizer of a plan."""
    make = BackwardOptimizer if plan.optimizer_step == "backward" else make_optimizer
    return make(plan.optimizer, model, kernel=plan.optimizer_kernel)


def ordinary_plan(profile: Profile) -> StepPlan:
    """Return the plan without farsearch: ordinary modules, and AdamW with the default kernel of the device's torch."""
    return StepPlan(optimizer_kernel="foreach" if profile.foreach else "loop")


def exact_plans(profile: Profile, layout: ModelLayout | None = None) -> list[StepPlan]:
    """Return the plans that compete on a device, the simpler ones first: all compute the same as ordinary modules.

    They differ in the tensors saved for the backward pass, and in when and by which kernel the optimizer steps, as far
    as the device's torch supports it. Ordinary modules are among them. Plans with ordinary attention draw other dropout
    masks than the rest from the same seed, of the same distribution.

    Args:
        layout: of the model; None for a model that supports all plans.
    """
    plans = [
        dataclasses.replace(execution, optimizer_kernel=kernel, optimizer_step=step)
        for execution in _EXECUTIONS
        for kernel, step in _optimizer_steps(profile)
    ]
    return plans if layout is None else list(dict.fromkeys(executable(plan, layout) for plan in plans))


def half_plans(profile: Profile, precision: Precision) -> list[StepPlan]:
    """Return the plans with layers in 16 bits that compete on a device; none of them is exact."""
    return [
        dataclasses.replace(execution, optimizer_kernel=kernel, optimizer_step=step, precision=precision)
        for execution in _EXECUTIONS
        if "modules" not in (execution.feed_forward, execution.attention)
        for kernel, step in _optimizer_steps(profile)
    ]


def check_precision(precision: Precision, profile: Profile, layout: ModelLayout, engines: Iterable[Engine]) -> None:
    """Check that a device, a model and all engines can execute layers in a precision.

    Raises:
        ProfileError: for a device without it.
        BadInput: for a model or an engine without it.
    """
    if precision == "float32":
        return
    name = f"`precision` is {shown(precision)}"
    if precision not in profile.precisions:
        known = ", ".join(profile.precisions)
        raise ProfileError(f"{name}; {profile.name} has no rate of it, choose {known}, another device, or calibrate it")
    if not has_half(layout):
        raise BadInput(f"{name}; this model's family supports only float32, choose that")
    if other := next((engine for engine in engines if engine != "torch"), None):
        raise BadInput(f"{name}; the engine {shown(other)} computes in float32, choose the engine torch")


def compiled_plans(layout: ModelLayout) -> list[StepPlan]:
    """Return the plans of the engine ``onnx`` that compete: pre-activations are stored, or recomputed."""
    wanted = (StepPlan(feed_forward="store"), StepPlan(feed_forward="recompute"))
    return list(dict.fromkeys(for_engine(plan, "onnx", layout) for plan in wanted))


def _optimizer_steps(
    profile: Profile,
) -> Iterator[tuple[Literal["loop", "foreach", "fused"], Literal["end", "backward"]]]:
    """Kernels and moments of the optimizer's step that the device's torch supports.

    The fused kernel replaces the others where it exists: it has no temporaries, and reads and writes the least.
    """
    version = torch_version(profile)
    if version >= (2, 4):
        yield "fused", "end"
        yield "fused", "backward"
        return
    yield "loop", "end"
    if version >= (1, 12):
        yield "foreach", "end"
    if version >= (2, 1):
        yield "loop", "backward"


def quickest(plan: StepPlan, layout: ModelLayout) -> StepPlan:
    """Return the plan by which a host with enough memory trains, whichever exact plan the device executes.

    It is the same for all exact plans, and for all of a precision, and so are the dropout masks: results do not depend
    on the device.
    """
    if not dataclasses.replace(plan, precision="float32").exact:
        return plan
    kernel: Literal["loop", "fused"] = "fused" if has_fused() else "loop"
    host = dataclasses.replace(
        STORE, optimizer=plan.optimizer, micro_batch_size=plan.micro_batch_size, optimizer_kernel=kernel,
        precision=plan.precision,
    )  # fmt: skip
    return executable(host, layout)
