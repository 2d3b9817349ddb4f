"""Step plans: how a plan is executed, which ones a device can execute exactly, and the best of them for a goal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from torch import nn

from farsearch.cost.software import torch_version
from farsearch.devices.profile import Profile
from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.far.optimizer import BackwardOptimizer, Optimizer, has_fused, make_optimizer
from farsearch.records import StepPlan

__all__ = ["exact_plans", "executable", "execution_of", "optimizer_of", "ordinary_plan", "quickest"]

_STORE = StepPlan(feed_forward="store", attention="recompute", dropout="seed", layer_norm="output")
_RECOMPUTE = dataclasses.replace(_STORE, feed_forward="recompute")
_EXECUTIONS = (
    StepPlan(),
    StepPlan(checkpointing=True),
    StepPlan(feed_forward="store"),
    StepPlan(feed_forward="store", layer_norm="output"),
    _STORE,
    _RECOMPUTE,
    dataclasses.replace(_STORE, checkpointing=True),
    dataclasses.replace(_RECOMPUTE, checkpointing=True),
)
"""Ways of the forward and backward pass, the simpler ones first. Of all 48 exact ones, these are never beaten by much:
the others are within 1 % of the best of these in memory, time and their product (docs/log.md, tests)."""


def execution_of(plan: StepPlan, chunk_rows: int | None = None) -> Execution:
    """The part of a plan that is the model's."""
    return Execution(
        plan.feed_forward, plan.attention, plan.dropout, plan.layer_norm, plan.frozen_dtype, plan.checkpointing,
        chunk_rows,
    )  # fmt: skip


def optimizer_of(plan: StepPlan, model: nn.Module) -> Optimizer:
    """The part of a plan that is the optimizer's."""
    make = BackwardOptimizer if plan.optimizer_step == "backward" else make_optimizer
    return make(plan.optimizer, model, kernel=plan.optimizer_kernel)


def ordinary_plan(profile: Profile) -> StepPlan:
    """What people do without farsearch: ordinary modules, and AdamW as the device's torch steps it unasked."""
    return StepPlan(optimizer_kernel="foreach" if profile.foreach else "loop")


def executable(plan: StepPlan, layout: ModelLayout) -> StepPlan:
    """The plan as far as a model can be executed so: gated blocks, and some families' attention, stay as they are."""
    return dataclasses.replace(
        plan,
        feed_forward="modules" if layout.gated else plan.feed_forward,
        attention=plan.attention if layout.recomputes_attention else "modules",
    )


def exact_plans(profile: Profile, layout: ModelLayout | None = None) -> list[StepPlan]:
    """The plans that compete on a device, the simpler ones first: all compute exactly what ordinary modules do.

    They differ in what the backward pass keeps, and in when and by which kernel the optimizer steps, as the device's
    torch has it. Ordinary modules are among them. They, and those whose attention is ordinary, draw other dropout masks
    than the others from the same seed: masks of the same distribution.

    Args:
        layout: of the model; None for one that can be executed by all of them.
    """
    plans = [
        dataclasses.replace(execution, optimizer_kernel=kernel, optimizer_step=step)
        for execution in _EXECUTIONS
        for kernel, step in _optimizer_steps(profile)
    ]
    return plans if layout is None else list(dict.fromkeys(executable(plan, layout) for plan in plans))


def _optimizer_steps(
    profile: Profile,
) -> Iterator[tuple[Literal["loop", "foreach", "fused"], Literal["end", "backward"]]]:
    """Kernels and moments of the optimizer's step that the device's torch has.

    The fused kernel stands for the others where it is there: it has no temporaries, and reads and writes the least.
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
    """The plan that a host with memory enough trains by, whichever exact plan the device does.

    It is one for all exact plans, so that results do not depend on the device: they have the same dropout masks.
    """
    if not plan.exact:
        return plan
    kernel: Literal["loop", "fused"] = "fused" if has_fused() else "loop"
    host = dataclasses.replace(
        _STORE, optimizer=plan.optimizer, micro_batch_size=plan.micro_batch_size, optimizer_kernel=kernel
    )
    return executable(host, layout)
