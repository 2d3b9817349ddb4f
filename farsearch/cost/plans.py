"""Step plans: their execution, and the plans that a device can execute exactly."""

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
from farsearch.records import Engine, StepPlan

__all__ = ["exact_plans", "executable", "execution_of", "for_engine", "optimizer_of", "ordinary_plan", "quickest"]

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
"""Executions of the forward and backward pass, the simpler ones first. None of the other exact ones, 48 in total, is
better than the best of these by more than 1 % in memory, time or their product (docs/log.md, tests)."""


def execution_of(plan: StepPlan, chunk_rows: int | None = None) -> Execution:
    """Return the part of a plan that the model executes."""
    return Execution(
        plan.feed_forward, plan.attention, plan.dropout, plan.layer_norm, plan.frozen_dtype, plan.checkpointing,
        chunk_rows,
    )  # fmt: skip


def optimizer_of(plan: StepPlan, model: nn.Module) -> Optimizer:
    """Return the optimizer of a plan."""
    make = BackwardOptimizer if plan.optimizer_step == "backward" else make_optimizer
    return make(plan.optimizer, model, kernel=plan.optimizer_kernel)


def ordinary_plan(profile: Profile) -> StepPlan:
    """Return the plan without farsearch: ordinary modules, and AdamW with the default kernel of the device's torch."""
    return StepPlan(optimizer_kernel="foreach" if profile.foreach else "loop")


def executable(plan: StepPlan, layout: ModelLayout) -> StepPlan:
    """Return the plan without the parts that a model does not support: gated blocks, and some families' attention."""
    return dataclasses.replace(
        plan,
        feed_forward="modules" if layout.gated else plan.feed_forward,
        frozen_dtype="float32" if layout.gated else plan.frozen_dtype,
        attention=plan.attention if layout.recomputes_attention else "modules",
    )


def for_engine(plan: StepPlan, engine: Engine, layout: ModelLayout) -> StepPlan:
    """Return the plan by which an engine executes what the plan of another one does.

    A compiled step saves the least that is as fast: attention and masks are made again, LayerNorms save their
    normalised input; its feed-forward blocks are those of the plan, or ``store``. Each tensor is stepped in one pass
    over it, as soon as its gradient is complete. numpy has no ``bfloat16``: such a plan's frozen weights are exact
    there.
    """
    if engine == plan.engine:
        return plan
    if engine == "torch":
        return dataclasses.replace(plan, engine=engine)
    compiled = dataclasses.replace(
        _RECOMPUTE if plan.feed_forward == "recompute" else _STORE, optimizer=plan.optimizer,
        micro_batch_size=plan.micro_batch_size, optimizer_kernel="fused",
        optimizer_step="backward" if plan.micro_batch_size is None else "end", engine=engine,
        frozen_dtype="float16" if plan.frozen_dtype == "float16" else "float32",
    )  # fmt: skip
    return executable(compiled, layout)


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

    It is the same for all exact plans, and so are the dropout masks: results do not depend on the device.
    """
    if not plan.exact:
        return plan
    kernel: Literal["loop", "fused"] = "fused" if has_fused() else "loop"
    host = dataclasses.replace(
        _STORE, optimizer=plan.optimizer, micro_batch_size=plan.micro_batch_size, optimizer_kernel=kernel
    )
    return executable(host, layout)
