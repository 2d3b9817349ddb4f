"""The FAR phase of a bundle, resumable from its savepoint."""

import inspect
from typing import Any, Dict, Optional

import torch
from torch import nn

from ...far.batches import phase_batches
from ...far.features import Features
from ...far.loop import train
from ...far.optimizer import BackwardOptimizer, Optimizer, has_backward_hooks, has_fused, make_optimizer
from ...far.savepoint import read_savepoint, write_savepoint
from ...far.schedule import linear_rate
from ..job import OnStep, PhaseLog
from ..recorder import NO_SAVEPOINTS, Recorder, Savepoints, resumed_steps

__all__ = ["make_phase_optimizer", "train_phase"]


def make_phase_optimizer(plan: Dict[str, Any], model: nn.Module, micro_batch_size: Optional[int]) -> Optimizer:
    """Return the optimizer of a step plan, restricted to what this torch supports.

    Neither kernels nor the moment of a step change the result.
    """
    kernel = plan["optimizer_kernel"]
    if (kernel == "fused" and not has_fused()) or kernel not in inspect.signature(torch.optim.AdamW).parameters:
        kernel = "loop"
    if plan["optimizer_step"] == "backward" and has_backward_hooks() and micro_batch_size is None:
        return BackwardOptimizer(plan["optimizer"], model, kernel=kernel)
    return make_optimizer(plan["optimizer"], model, kernel=kernel)


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
) -> PhaseLog:
    """Train a reconfigured model in place, from its savepoint if there is one.

    Args:
        plan: a step plan as JSON types, of which the optimizer's part is used.

    Raises:
        Interrupted: when ``savepoints.stopping`` returned true.
        FloatingPointError: when a loss is not finite.
        SavepointProblem: for a savepoint that is damaged, or of another run.
        OSError: when the disk refuses.
    """
    batches = phase_batches(features.lengths, batch_size, epochs, seed)
    optimizer = make_phase_optimizer(plan, model, micro_batch_size)
    try:
        first = resumed_steps(savepoints, lambda path: read_savepoint(path, model, optimizer))
        recorder = Recorder(
            len(batches), first, savepoints, lambda path, texts: write_savepoint(path, model, optimizer, texts), on_step
        )
        train(
            model, features, batches[first:], optimizer, linear_rate(learning_rate, len(batches)), pad_id, seed,
            micro_batch_size, recorder.record, first,
        )  # fmt: skip
        return recorder.log
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
        model.zero_grad(set_to_none=True)
