"""The FAR phase of a bundle: it goes on after a power cut, and with smaller micro-batches where memory runs out."""

import inspect
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import torch
from torch import nn

from .. import safetensors
from ..batches import phase_batches
from ..features import Features
from ..loop import linear_rate, train
from ..optimizer import BackwardOptimizer, Optimizer, has_backward_hooks, has_fused, make_optimizer
from ..savepoint import read_savepoint, write_savepoint

__all__ = ["Course", "Interrupted", "SavepointProblem", "make_phase_optimizer", "train_phase"]

_SAVING_SHARE = 0.05
"""Savepoints take at most this share of the time, however slow the disk."""

OnStep = Callable[[int, int, float], None]


class Interrupted(Exception):
    """The phase was asked to stop; what it has done is on the disk."""


class SavepointProblem(ValueError):
    """A savepoint that can't be gone on from: damaged, or of another training."""


class Course(NamedTuple):
    """How a phase went.

    ``steps`` of the whole phase, ``first_step`` where this run of it began, ``seconds`` of each of its steps.
    """

    steps: int
    first_step: int
    losses: List[float]
    seconds: List[float]


def make_phase_optimizer(plan: Dict[str, Any], model: nn.Module, micro_batch_size: Optional[int]) -> Optimizer:
    """The plan's optimizer, by what this torch has: kernels and the moment of a step don't change what is learned."""
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
    savepoint: Optional[str] = None,
    identity: str = "",
    save_every_s: float = 300.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Course:
    """Train a reconfigured model, in place, from the savepoint where there is one of this training.

    Args:
        plan: the part of a step plan that is the optimizer's.
        savepoint: path of its file; None to keep none.
        identity: of the training; a savepoint of another one is an error.
        save_every_s: seconds between savepoints, more where the disk is slow.
        stopping: asked after each step whether to write a savepoint and stop.

    Raises:
        Interrupted: when ``stopping`` said so.
        FloatingPointError: when a loss is not finite.
        SavepointProblem: for a savepoint that is damaged, or of another training.
        OSError: when the disk refuses.
    """
    batches = phase_batches(features.lengths, batch_size, epochs, seed)
    steps = len(batches)
    optimizer = make_phase_optimizer(plan, model, micro_batch_size)
    try:
        first = 0
        if savepoint is not None and os.path.exists(savepoint):
            first = _resume(savepoint, identity, model, optimizer)
        course = Course(steps, first, [], [])
        saved = clock = time.monotonic()
        pause = save_every_s

        def save(done: int) -> None:
            nonlocal saved, pause
            began = time.monotonic()
            assert savepoint is not None
            write_savepoint(savepoint, model, optimizer, {"identity": identity, "steps": str(done)})
            saved = time.monotonic()
            pause = max(save_every_s, (saved - began) / _SAVING_SHARE)

        def record(step: int, loss: float) -> None:
            nonlocal clock
            course.losses.append(loss)
            course.seconds.append(time.monotonic() - clock)
            if on_step is not None:
                on_step(step + 1, steps, loss)
            stop = stopping()
            if savepoint is not None and (stop or (time.monotonic() - saved > pause and step + 1 < steps)):
                save(step + 1)
            if stop:
                raise Interrupted
            clock = time.monotonic()

        train(
            model, features, batches[first:], optimizer, linear_rate(learning_rate, steps), pad_id, seed,
            micro_batch_size, record, first,
        )  # fmt: skip
        return course
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
        model.zero_grad(set_to_none=True)


def _resume(savepoint: str, identity: str, model: nn.Module, optimizer: Optimizer) -> int:
    """Steps that were done."""
    try:
        said = safetensors.metadata(savepoint)
        if said.get("identity") != identity or not said.get("steps", "").isdigit():
            raise ValueError("it is of another training: other rows, epochs or bundle")
        read_savepoint(savepoint, model, optimizer)
    except ValueError as error:
        raise SavepointProblem(str(error)) from error
    return int(said["steps"])
