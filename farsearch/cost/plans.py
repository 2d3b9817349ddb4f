"""Step plans: how a plan is executed, which ones a device can execute exactly, and the best of them for a goal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from farsearch.cost.software import torch_version
from farsearch.devices.profile import Profile
from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.far.optimizer import BackwardOptimizer, Optimizer, has_fused, make_optimizer
from farsearch.records import StepPlan

__all__ = ["GOALS", "Goal", "exact_plans", "executable", "execution_of", "optimizer_of", "ordinary_plan", "quickest"]

Goal = Literal["memory", "time", "balanced"]
"""What a plan is chosen for: the least peak, the least time, or the least product of both."""

GOALS: Sequence[Goal] = get_args(Goal)


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
    """The plans worth a look that compute exactly what ordinary modules do, as the device's torch allows.

    None for ``layout`` is a model that can be executed by all of them.

    All keep less of dropout, LayerNorm, attention and feed-forward blocks; the last two take time to save memory.
    Ordinary modules are none of them: they are hardly quicker anywhere, and draw other dropout masks.
    """
    version = torch_version(profile)
    store = StepPlan(
        feed_forward="store",
        attention="recompute",
        dropout="seed",
        layer_norm="output",
        optimizer_kernel="fused" if version >= (2, 4) else "loop",
        optimizer_step="backward" if version >= (2, 1) else "end",
    )
    plans = [
        store,
        dataclasses.replace(store, feed_forward="recompute"),
        dataclasses.replace(store, checkpointing=True),
    ]
    return plans if layout is None else list(dict.fromkeys(executable(plan, layout) for plan in plans))


def quickest(plan: StepPlan) -> StepPlan:
    """The plan that learns what an exact plan learns in the least time, for a host that has memory enough."""
    if not plan.exact or plan.feed_forward == "modules":
        return plan
    kernel: Literal["loop", "foreach", "fused"] = "fused" if has_fused() else plan.optimizer_kernel
    return dataclasses.replace(plan, feed_forward="store", checkpointing=False, optimizer_kernel=kernel)
