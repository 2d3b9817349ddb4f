"""The FAR phase of a bundle by the graphs of its program, resumable from its savepoint."""

import math
from contextlib import suppress
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from ...far.batches import phase_batches, sorted_batches
from ...far.features import Features
from ...far.schedule import linear_rate
from ..best_state import BestState, EarlyStop, Watch
from ..job import OnStep, PhaseLog
from ..program_file import Program
from ..recorder import NO_SAVEPOINTS, Recorder, Savepoints, resumed_best, resumed_steps
from .batches import Batch, make_batch
from .dropout import draw_mask
from .optimizer import ArrayOptimizer, accumulate, clip
from .program import Runner
from .savepoint import read_savepoint, write_savepoint

__all__ = ["Settings", "predict", "train_phase", "train_step"]


class Settings(NamedTuple):
    """Settings of a phase, as far.json has them; without ``clip_norm`` gradients are not scaled."""

    optimizer: str
    learning_rate: float
    epochs: float
    batch_size: int
    pad_id: int
    seed: int
    clip_norm: Optional[float] = None


def train_step(
    program: Program, runner: Runner, optimizer: ArrayOptimizer, batch: Batch, step: int, rate: float, seed: int,
    micro_batch_size: Optional[int] = None, clip_norm: Optional[float] = None,
) -> float:  # fmt: skip
    """Run one optimizer step on one batch; return its mean loss.

    Without micro-batches each tensor is stepped as soon as its gradient exists; otherwise the gradients of parts of
    the rows are added up first. So they are, of a single part, where their norm is clipped.

    Args:
        step: number of the step, counted from 0; it determines the dropout, with the seed.
        clip_norm: as in far/loop.py's ``train_step``.

    Raises:
        MemoryError, ValueError: as ``Runner.step``.
    """
    parts = batch.parts(micro_batch_size or len(batch.weights))
    assert parts, "no row of the batch has a target"
    if len(parts) == 1 and clip_norm is None:
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
    if clip_norm is not None:
        clip(totals, clip_norm)
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
    watch: Optional[Watch] = None,
) -> PhaseLog:  # fmt: skip
    """Train the arrays of a program in place, from the savepoint if there is one.

    Args:
        watch: stops a phase that no longer improves, and leaves the arrays in their best state; None for the last one.

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
    best = None
    if watch is not None:
        at_once = micro_batch_size or settings.batch_size  # as in a training step, which takes more memory

        def evaluate(watch: Watch = watch) -> float:
            return watch.metric(predict(program, runner, watch.features, settings.pad_id, at_once))

        best = BestState(watch.patience, len(batches), trained, np.copy, evaluate)

    def write(path: str, texts: Dict[str, str]) -> None:
        write_savepoint(path, trained, optimizer, texts, {} if best is None else best.tensors)

    first = resumed_steps(savepoints, lambda path: resumed_best(best, path, read_savepoint(path, trained, optimizer)))
    recorder = Recorder(len(batches), first, savepoints, write, on_step, best)
    with suppress(EarlyStop):
        for step, rows in enumerate(batches[first:], first):
            batch = make_batch(program, features.take(rows), settings.pad_id)
            loss = train_step(
                program, runner, optimizer, batch, step, rate(step), settings.seed, micro_batch_size, settings.clip_norm
            )
            if not math.isfinite(loss):
                raise FloatingPointError("the loss of step {} is {}".format(step, loss))
            recorder.record(step, loss)
    return recorder.end()


def predict(program: Program, runner: Runner, features: Features, pad_id: int, batch_size: int = 32) -> np.ndarray:
    """Return logits in the order of ``features``, in the form of far/loop.py's ``predict``.

    Raises:
        MemoryError, ValueError: as ``Runner.predict``.
    """
    lengths = features.lengths
    by_row: Dict[int, np.ndarray] = {}
    for rows in sorted_batches(lengths, batch_size):
        logits = runner.predict(make_batch(program, features.take(rows), pad_id, learn=False).inputs)
        for row, values in zip(rows, logits):
            by_row[row] = values[: lengths[row]].copy() if values.ndim == 2 else values[None]
    ordered: List[np.ndarray] = [by_row[row] for row in range(len(lengths))]
    return np.concatenate(ordered)
