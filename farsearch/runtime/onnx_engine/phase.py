"""The FAR phase of a bundle by the graphs of its program, resumable from its savepoint."""

import math
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from ...far.batches import phase_batches, sorted_batches
from ...far.features import Features
from ...far.schedule import linear_rate
from ..job import OnStep, PhaseLog
from ..program_file import Program
from ..recorder import NO_SAVEPOINTS, Recorder, Savepoints, resumed_steps
from .batches import Batch, make_batch
from .dropout import draw_mask
from .optimizer import ArrayOptimizer, accumulate
from .program import Runner
from .savepoint import read_savepoint, write_savepoint

__all__ = ["Settings", "predict", "train_phase", "train_step"]


class Settings(NamedTuple):
    """Settings of a phase, as far.json has them."""

    optimizer: str
    learning_rate: float
    epochs: float
    batch_size: int
    pad_id: int
    seed: int


def train_step(
    program: Program, runner: Runner, optimizer: ArrayOptimizer, batch: Batch, step: int, rate: float, seed: int,
    micro_batch_size: Optional[int] = None,
) -> float:  # fmt: skip
    """Run one optimizer step on one batch; return its mean loss.

    Without micro-batches each tensor is stepped as soon as its gradient exists; otherwise the gradients of parts of
    the rows are added up first.

    Args:
        step: number of the step, counted from 0; it determines the dropout, with the seed.

    Raises:
        MemoryError, ValueError: as ``Runner.step``.
    """
    parts = batch.parts(micro_batch_size or len(batch.weights))
    assert parts, "no row of the batch has a target"
    if len(parts) == 1:
        return runner.step(
            parts[0].inputs, _Masks(program, seed, step, 0).draw,
            lambda name, gradient: optimizer.step(name, gradient, step, rate),
        )  # fmt: skip
    whole, loss = float(sum(batch.weights)), 0.0
    totals: Dict[str, np.ndarray] = {}
    for number, part in enumerate(parts):
        share = sum(part.weights) / whole

        def add(name: str, gradient: np.ndarray, share: float = share) -> None:
            if name not in totals:
                totals[name] = np.zeros(gradient.shape, np.float32)
            accumulate(totals[name], gradient, share)

        loss += share * runner.step(part.inputs, _Masks(program, seed, step, number).draw, add)
    for name in list(totals):
        optimizer.step(name, totals.pop(name), step, rate)
    return loss


class _Masks:
    """Draws the masks of a part of a step's batch."""

    def __init__(self, program: Program, seed: int, step: int, part: int) -> None:
        self._program, self._key = program, (seed, step, part)

    def draw(self, number: int, shape: Tuple[int, ...]) -> np.ndarray:
        return draw_mask(self._key + (number,), shape, self._program.dropouts[number].p)


def train_phase(
    program: Program, runner: Runner, trained: Mapping[str, np.ndarray], features: Features, settings: Settings,
    micro_batch_size: Optional[int] = None, on_step: Optional[OnStep] = None, savepoints: Savepoints = NO_SAVEPOINTS,
) -> PhaseLog:  # fmt: skip
    """Train the arrays of a program in place, from the savepoint if there is one.

    Raises:
        Interrupted: when ``savepoints.stopping`` returned true.
        FloatingPointError: when a loss is not finite.
        SavepointProblem: for a savepoint that is damaged, or of another run.
        OSError: when the disk refuses.
        MemoryError, ValueError: as ``Runner.step``.
    """
    batches = phase_batches(features.lengths, settings.batch_size, settings.epochs, settings.seed)
    rate = linear_rate(settings.learning_rate, len(batches))
    optimizer = ArrayOptimizer(settings.optimizer, trained)
    first = resumed_steps(savepoints, lambda path: read_savepoint(path, trained, optimizer))
    recorder = Recorder(
        len(batches), first, savepoints, lambda path, texts: write_savepoint(path, trained, optimizer, texts), on_step
    )
    for step, rows in enumerate(batches[first:], first):
        batch = make_batch(program, features.take(rows), settings.pad_id)
        loss = train_step(program, runner, optimizer, batch, step, rate(step), settings.seed, micro_batch_size)
        if not math.isfinite(loss):
            raise FloatingPointError("the loss of step {} is {}".format(step, loss))
        recorder.record(step, loss)
    return recorder.log


def predict(program: Program, runner: Runner, features: Features, pad_id: int) -> np.ndarray:
    """Return logits in the order of ``features``, in the form of far/loop.py's ``predict``.

    Raises:
        MemoryError, ValueError: as ``Runner.predict``.
    """
    lengths = features.lengths
    by_row: Dict[int, np.ndarray] = {}
    for rows in sorted_batches(lengths):
        logits = runner.predict(make_batch(program, features.take(rows), pad_id, learn=False).inputs)
        for row, values in zip(rows, logits):
            by_row[row] = values[: lengths[row]].copy() if values.ndim == 2 else values[None]
    ordered: List[np.ndarray] = [by_row[row] for row in range(len(lengths))]
    return np.concatenate(ordered)
