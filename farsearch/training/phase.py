"""The FAR phase: reconfigure a model, train it, and merge it back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from farsearch.cost.plans import execution_of, optimizer_of
from farsearch.errors import Diverged, OutOfMemory
from farsearch.far.batches import phase_batches, steps_in
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import train
from farsearch.far.optimizer import BackwardOptimizer
from farsearch.far.schedule import linear_rate
from farsearch.far.surgery import apply_far, merge
from farsearch.records import FarConfig, LossPoint, StepPlan
from farsearch.runtime.best_state import EarlyStop, Watch
from farsearch.runtime.memory import is_out_of_memory
from farsearch.runtime.torch_engine.phase import best_state
from farsearch.tasks.encode import Encoded

__all__ = ["Batching", "Learners", "OnStep", "State", "far_phase", "fine_tune", "put_trained", "training_errors"]

State = dict[str, Tensor]
Learners = list[list[int] | None]
OnStep = Callable[[int, int, float], None]
"""Called with the number of a step, counted from 1, the number of steps, and the loss."""

_CURVE_POINTS = 40
"""Points of a learning curve: enough for its shape, few enough to store with each trial."""


@dataclass(frozen=True)
class Batching:
    """How the rows of a job are put into batches, the same for all of its trainings.

    Attributes:
        pad_id: the token that fills a batch's shorter rows.
        seed: of the order of the rows, and of dropout.
        clip_norm: as in ``far.loop.train_step``.
    """

    batch_size: int
    pad_id: int
    seed: int
    clip_norm: float | None = None


def far_phase(
    model: nn.Module,
    layout: ModelLayout,
    learners: Learners,
    config: FarConfig,
    plan: StepPlan,
    rows: Encoded,
    batching: Batching,
    on_step: OnStep | None = None,
    heads: Learners | None = None,
    watch: Watch | None = None,
) -> tuple[State, tuple[LossPoint, ...]]:
    """Reconfigure ``model`` (which holds the start state), train it, and merge it back.

    Args:
        heads: the trained heads of each layer; None splits no attention.
        watch: stops a phase that no longer improves, and leaves the model in its best state; None for the last one.

    Returns:
        The trained tensors by the names of the reconfigured model, and the learning curve.

    Raises:
        Diverged: when a loss is not finite.
        OutOfMemory: when this machine's memory does not suffice.
    """
    config = config.canonical()
    try:
        apply_far(
            model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers,
            config.frozen_bottom_layers, execution_of(plan), heads,
        )  # fmt: skip
        return fine_tune(model, config.learning_rate, config.epochs, plan, rows, batching, on_step, watch)
    finally:
        merge(model, layout)


def put_trained(
    model: nn.Module, layout: ModelLayout, learners: Learners, heads: Learners, config: FarConfig, trained: State
) -> None:
    """Load the trained tensors of ``far_phase`` into ``model``, which holds the start state, in place."""
    config = config.canonical()
    apply_far(
        model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers,
        config.frozen_bottom_layers, heads=heads or None,
    )  # fmt: skip
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in trained.items():
            parameters[name].copy_(value)
    merge(model, layout)


def fine_tune(
    model: nn.Module,
    learning_rate: float,
    epochs: float,
    plan: StepPlan,
    rows: Encoded,
    batching: Batching,
    on_step: OnStep | None = None,
    watch: Watch | None = None,
) -> tuple[State, tuple[LossPoint, ...]]:
    """Train all parameters with a gradient in ``model``, in place; the baselines are trained by this alone.

    Result and errors are those of ``far_phase``.

    Args:
        learning_rate: peak of the schedule.
        watch: as in ``far_phase``.
    """
    steps = steps_in(len(rows.lengths), batching.batch_size, epochs)
    batches = phase_batches(rows.lengths, batching.batch_size, epochs, batching.seed)
    losses: list[float] = []
    best = best_state(watch, model, steps, batching.pad_id, plan.micro_batch_size or batching.batch_size)

    def record(step: int, loss: float) -> None:
        losses.append(loss)
        if on_step is not None:
            on_step(step + 1, steps, loss)
        if best is not None:
            best.after(step + 1)

    optimizer = optimizer_of(plan, model)
    try:
        with training_errors(), suppress(EarlyStop):
            train(
                model, rows.features, batches, optimizer, linear_rate(learning_rate, steps), batching.pad_id,
                batching.seed, plan.micro_batch_size, record, clip_norm=batching.clip_norm,
            )  # fmt: skip
        if best is not None:
            best.restore()
        trained = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
        model.zero_grad(set_to_none=True)
    return trained, _curve(losses)


@contextmanager
def training_errors() -> Iterator[None]:
    """Translate a non-finite loss and exhausted memory into errors of the trial.

    Raises:
        Diverged, OutOfMemory: in place of the library's errors.
    """
    try:
        yield
    except FloatingPointError as error:
        raise Diverged(f"{error}; a lower learning rate may help") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("this machine has not enough memory for the step; a smaller --batch-size may help") from error


def _curve(losses: list[float]) -> tuple[LossPoint, ...]:
    size = max(1, math.ceil(len(losses) / _CURVE_POINTS))
    parts = [(i, losses[i : i + size]) for i in range(0, len(losses), size)]
    return tuple(LossPoint(i + len(part), statistics.fmean(part)) for i, part in parts)
