"""Step plans: how a plan is executed, which ones a device can execute exactly, and the best of them for a goal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from farsearch.devices.profile import Profile
from farsearch.far.execution import Execution
from farsearch.far.optimizer import BackwardOptimizer, Optimizer, has_fused, make_optimizer
from farsearch.records import StepPlan

__all__ = ["GOALS", "Goal", "exact_plans", "execution_of", "optimizer_of", "quickest"]

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
    return make(plan.optimizer, model, fused=plan.optimizer_kernel == "fused")


def _torch_of(profile: Profile) -> tuple[int, int]:
    """The torch version of a device, (0, 0) where its profile names none."""
    found = re.match(r"(\d+)\.(\d+)", profile.torch)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def exact_plans(profile: Profile) -> list[StepPlan]:
    """Every plan worth a look that computes exactly what ordinary modules do, as the device's torch allows.

    Ordinary modules have the fewest operations; the others keep less of dropout, LayerNorm, attention and feed-forward
    blocks, and the last two take time to save memory.
    """
    version = _torch_of(profile)
    modules = StepPlan(
        optimizer_kernel="fused" if version >= (2, 4) else "loop",
        optimizer_step="backward" if version >= (2, 1) else "end",
    )
    store = _lean(modules)
    return [
        modules,
        store,
        dataclasses.replace(store, feed_forward="recompute"),
        dataclasses.replace(store, checkpointing=True),
    ]


def _lean(plan: StepPlan) -> StepPlan:
    """The plan with every piece that saves memory at no cost in products."""
    return dataclasses.replace(
        plan, feed_forward="store", attention="recompute", dropout="seed", layer_norm="output", checkpointing=False
    )


def quickest(plan: StepPlan) -> StepPlan:
    """The plan that learns what an exact plan learns in the least time, for a host that has memory enough.

    It is one and the same for all of them, so that dropout draws the same masks in every trial.
    """
    kernel: Literal["loop", "fused"] = "fused" if has_fused() else plan.optimizer_kernel
    return dataclasses.replace(_lean(plan), optimizer_kernel=kernel) if plan.exact else plan
