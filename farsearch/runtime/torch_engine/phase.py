"""The FAR phase of a bundle, resumable from its savepoint."""

import inspect
import os
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

import torch
from torch import nn

from ...far.batches import phase_batches
from ...far.features import Features
from ...far.loop import train
from ...far.optimizer import BackwardOptimizer, Optimizer, has_backward_hooks, has_fused, make_optimizer
from ...far.savepoint import read_savepoint, write_savepoint
from ...far.schedule import linear_rate
from ..job import Interrupted, OnStep, PhaseLog, SavepointProblem, saved_steps

__all__ = ["Savepoints", "make_phase_optimizer", "train_phase"]

_SAVING_SHARE = 0.05
"""Savepoints take at most this share of the time, however slow the disk."""


class Savepoints(NamedTuple):
    """Where and when savepoints are written.

    ``path`` is their file, None for no savepoints. ``identity`` is that of the run, which resumes no other's savepoint.
    ``every_s`` are the seconds between them, more where the disk is slow. ``stopping`` is called after each step; true
    writes a savepoint and stops.
    """

    path: Optional[str] = None
    identity: str = ""
    every_s: float = 300.0
    stopping: Callable[[], bool] = lambda: False


_NO_SAVEPOINTS = Savepoints()


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
    savepoints: Savepoints = _NO_SAVEPOINTS,
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
        first = 0
        if savepoints.path is not None and os.path.exists(savepoints.path):
            first = _resume(savepoints.path, savepoints.identity, model, optimizer)
        recorder = _Recorder(PhaseLog(len(batches), first, [], []), savepoints, model, optimizer, on_step)
        train(
            model, features, batches[first:], optimizer, linear_rate(learning_rate, len(batches)), pad_id, seed,
            micro_batch_size, recorder.record, first,
        )  # fmt: skip
        return recorder.log
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
        model.zero_grad(set_to_none=True)


class _Recorder:
    """Records each step, and writes savepoints when they are due."""

    def __init__(
        self, log: PhaseLog, savepoints: Savepoints, model: nn.Module, optimizer: Optimizer, on_step: Optional[OnStep]
    ) -> None:
        self.log = log
        self._savepoints, self._model, self._optimizer, self._on_step = savepoints, model, optimizer, on_step
        self._saved = self._clock = time.monotonic()
        self._pause = savepoints.every_s

    def record(self, step: int, loss: float) -> None:
        self.log.losses.append(loss)
        self.log.seconds.append(time.monotonic() - self._clock)
        if self._on_step is not None:
            self._on_step(step + 1, self.log.steps, loss)
        stop = self._savepoints.stopping()
        due = time.monotonic() - self._saved > self._pause and step + 1 < self.log.steps
        if self._savepoints.path is not None and (stop or due):
            self._save(self._savepoints.path, step + 1)
        if stop:
            raise Interrupted
        self._clock = time.monotonic()

    def _save(self, path: str, steps: int) -> None:
        began = time.monotonic()
        metadata = {"identity": self._savepoints.identity, "steps": str(steps)}
        write_savepoint(path, self._model, self._optimizer, metadata)
        self._saved = time.monotonic()
        self._pause = max(self._savepoints.every_s, (self._saved - began) / _SAVING_SHARE)


def _resume(savepoint: str, identity: str, model: nn.Module, optimizer: Optimizer) -> int:
    """Restore model and optimizer; return the number of completed steps."""
    try:
        steps = saved_steps(savepoint, identity)
        read_savepoint(savepoint, model, optimizer)
    except ValueError as error:
        raise SavepointProblem(str(error)) from error
    return steps
