"""How an engine executes a step plan, as far as the model supports it."""

from __future__ import annotations

import dataclasses

from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.records import Engine, StepPlan

__all__ = ["RECOMPUTE", "STORE", "executable", "execution_of", "for_engine", "has_half", "stepped_at_end"]

STORE = StepPlan(feed_forward="store", attention="recompute", dropout="seed", layer_norm="output")
RECOMPUTE = dataclasses.replace(STORE, feed_forward="recompute")


def execution_of(plan: StepPlan, chunk_rows: int | None = None) -> Execution:
    """Return the part of a plan that the model executes."""
    return Execution(
        plan.feed_forward, plan.attention, plan.dropout, plan.layer_norm, plan.frozen_dtype, plan.checkpointing,
        chunk_rows, plan.precision,
    )  # fmt: skip


def executable(plan: StepPlan, layout: ModelLayout) -> StepPlan:
    """Return the plan without the parts that a model does not support: gated blocks, and some families' attention."""
    return dataclasses.replace(
        plan,
        feed_forward="modules" if layout.gated else plan.feed_forward,
        frozen_dtype="float32" if layout.gated else plan.frozen_dtype,
        attention=plan.attention if layout.recomputes_attention else "modules",
        precision=plan.precision if has_half(layout) else "float32",
    )


def has_half(layout: ModelLayout) -> bool:
    """Return whether a model's layers can be executed in 16 bits: attention and feed-forward blocks can be ours."""
    return layout.recomputes_attention and not layout.gated


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
        RECOMPUTE if plan.feed_forward == "recompute" else STORE, optimizer=plan.optimizer,
        micro_batch_size=plan.micro_batch_size, optimizer_kernel="fused",
        optimizer_step="backward" if plan.micro_batch_size is None else "end", engine=engine,
        frozen_dtype="float16" if plan.frozen_dtype == "float16" else "float32",
    )  # fmt: skip
    return executable(compiled, layout)


def stepped_at_end(plan: StepPlan) -> StepPlan:
    """Return the plan with all gradients held until the end of the backward pass, as clipping their norm needs it."""
    return dataclasses.replace(plan, optimizer_step="end")
