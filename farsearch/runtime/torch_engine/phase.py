"""The FAR phase of a bundle, resumable from its savepoint."""

import inspect
from contextlib import suppress
from typing import Any, Dict, Optional

import torch
from torch import nn

from ...far.batches import phase_batches
from ...far.features import Features
from ...far.loop import predict, train
from ...far.optimizer import BackwardOptimizer, Optimizer, has_backward_hooks, has_fused, make_optimizer
from ...far.savepoint import read_savepoint, write_savepoint
from ...far.schedule import linear_rate
from ..best_state import BestState, EarlyStop, Watch
from ..job import OnStep, PhaseLog
from ..recorder import NO_SAVEPOINTS, Recorder, Savepoints, resumed_best, resumed_steps

__all__ = ["best_state", "make_phase_optimizer", "train_phase"]


def make_phase_optimizer(plan: Dict[str, Any], model: nn.Module, at_end: bool) -> Optimizer:
    """Return the optimizer of a step plan, restricted to what this torch supports.

    Neither kernels nor the moment of a step change the result.

    Args:
        at_end: all gradients are needed at once: they add up over micro-batches, or their norm is clipped.
    """
    kernel = plan["optimizer_kernel"]
    if (kernel == "fused" and not has_fused()) or kernel not in inspect.signature(torch.optim.AdamW).parameters:
        kernel = "loop"
    if plan["optimizer_step"] == "backward" and has_backward_hooks() and not at_end:
        return BackwardOptimizer(plan["optimizer"], model, kernel=kernel)
    return make_optimizer(plan["optimizer"], model, kernel=kernel)


def best_state(
    watch: Optional[Watch], model: nn.Module, steps: int, pad_id: int, rows: int
) -> Optional[BestState]:  # fmt: skip
    """Return the best state of a model that is about to be trained; None without a watch.

    Args:
        rows: evaluated at once: those of a training step, which takes more memory.
    """
    if watch is None:
        return None

    def evaluate() -> float:
        metric = watch.metric(predict(model, watch.features, pad_id, rows))
        model.train()
        return metric

    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return BestState(watch.patience, steps, trained, torch.clone, evaluate)


def train_phase(
    model: nn.Module,
    plan: Dict[str, Any],
    features: Features,
    learning_rate: float,
    epochs: float,
    batch_size: int,
    pad_id: int,
    seed: int,
    micro_batch_size: Optional[int] = None,
    on_step: Optional[OnStep] = None,
    savepoints: Savepoints = NO_SAVEPOINTS,
    watch: Optional[Watch] = None,
    clip_norm: Optional[float] = None,
) -> PhaseLog:
    """Train a reconfigured model in place, from its savepoint if there is one.

    Args:
        plan: a step plan as JSON types, of which the optimizer's part is used.
        watch: stops a phase that no longer improves, and leaves the model in its best state; None for the last one.
        clip_norm: as in ``far.loop.train_step``.

    Raises:
        Interrupted: when ``savepoints.stopping`` returned true.
        FloatingPointError: when a loss is not finite.
        SavepointProblem: for a savepoint that is damaged, or of another run.
        OSError: when the disk refuses.
    """
    batches = phase_batches(features.lengths, batch_size, epochs, seed)
    optimizer = make_phase_optimizer(plan, model, micro_batch_size is not None or clip_norm is not None)
    best = best_state(watch, model, len(batches), pad_id, micro_batch_size or batch_size)

    def write(path: str, texts: Dict[str, str]) -> None:
        write_savepoint(path, model, optimizer, texts, {} if best is None else best.tensors)

    try:
        first = resumed_steps(savepoints, lambda path: resumed_best(best, path, read_savepoint(path, model, optimizer)))
        recorder = Recorder(len(batches), first, savepoints, write, on_step, best)
        with suppress(EarlyStop):
            train(
                model, features, batches[first:], optimizer, linear_rate(learning_rate, len(batches)), pad_id, seed,
                micro_batch_size, recorder.record, first, clip_norm,
            )  # fmt: skip
        return recorder.end()
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
        model.zero_grad(set_to_none=True)
