"""The steps of a phase as they are done: losses, times, and savepoints when they are due."""

import os
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from ..far.tensor_file import metadata
from .best_state import BestState
from .job import Interrupted, OnStep, PhaseLog, SavepointProblem, saved_steps

__all__ = ["NO_SAVEPOINTS", "Recorder", "Savepoints", "resumed_best", "resumed_rows", "resumed_steps"]

_SAVING_SHARE = 0.05
"""Savepoints take at most this share of the time, however slow the disk."""


class Savepoints(NamedTuple):
    """Where and when savepoints are written.

    ``path`` is their file, None for no savepoints. ``identity`` is that of the run, which resumes no other's savepoint.
    ``every_s`` are the seconds between them, more where the disk is slow. ``stopping`` is called after each step; true
    writes a savepoint and stops. ``rows`` is the micro-batch size, which determines the dropout masks; None for whole
    batches.
    """

    path: Optional[str] = None
    identity: str = ""
    every_s: float = 300.0
    stopping: Callable[[], bool] = lambda: False
    rows: Optional[int] = None


NO_SAVEPOINTS = Savepoints()


def resumed_steps(savepoints: Savepoints, read: Callable[[str], None]) -> int:
    """Return the number of completed steps of the savepoint, or 0 without one.

    Args:
        read: restores the state of a file, and raises ValueError if it can't.

    Raises:
        SavepointProblem: for a savepoint that is damaged, or of another run.
        OSError: if it can't be read.
    """
    if savepoints.path is None or not os.path.exists(savepoints.path):
        return 0
    try:
        steps = saved_steps(savepoints.path, savepoints.identity)
        read(savepoints.path)
    except ValueError as error:
        raise SavepointProblem(str(error)) from error
    return steps


def resumed_best(best: Optional[BestState], path: str, tensors: Mapping[str, Any]) -> None:
    """Restore the best state of a savepoint.

    Raises:
        ValueError: if it is damaged, or of another run.
    """
    if best is not None:
        best.resume(metadata(path).get("best", ""), tensors)


def resumed_rows(savepoints: Savepoints, size: Optional[int]) -> Optional[int]:
    """Return the micro-batch size of the savepoint, or ``size`` without one of this run."""
    if savepoints.path is None or not os.path.exists(savepoints.path):
        return size
    try:
        saved_steps(savepoints.path, savepoints.identity)
        rows = int(metadata(savepoints.path).get("rows", size or 0))
    except ValueError:
        return size  # which the phase reports
    return rows if rows > 0 else None


class Recorder:
    """Records each step, and writes savepoints when they are due.

    Args:
        write: writes the state of the phase into a file, with these metadata.
        best: of a phase that is evaluated on its way.
    """

    def __init__(
        self,
        steps: int,
        first_step: int,
        savepoints: Savepoints,
        write: Callable[[str, Dict[str, str]], None],
        on_step: Optional[OnStep],
        best: Optional[BestState] = None,
    ) -> None:
        losses: List[float] = []
        seconds: List[float] = []
        self.log = PhaseLog(steps, first_step, losses, seconds)
        self._savepoints, self._write, self._on_step, self._best = savepoints, write, on_step, best
        self._saved = self._clock = time.monotonic()
        self._pause = savepoints.every_s

    def record(self, step: int, loss: float) -> None:
        """Record a step, counted from 0.

        Raises:
            Interrupted: when ``stopping`` returned true, after a savepoint.
            EarlyStop: as ``BestState.after``.
            OSError: when the disk refuses one.
        """
        self.log.losses.append(loss)
        self.log.seconds.append(time.monotonic() - self._clock)
        if self._on_step is not None:
            self._on_step(step + 1, self.log.steps, loss)
        if self._best is not None:
            self._best.after(step + 1)
        stop = self._savepoints.stopping()
        due = time.monotonic() - self._saved > self._pause and step + 1 < self.log.steps
        if self._savepoints.path is not None and (stop or due):
            self._save(self._savepoints.path, step + 1)
        if stop:
            raise Interrupted
        self._clock = time.monotonic()

    def end(self) -> PhaseLog:
        """Leave the trained tensors in the best state, where the phase was evaluated, and return its log."""
        if self._best is None:
            return self.log
        self._best.restore()
        return self.log._replace(kept=self._best.step)

    def _save(self, path: str, steps: int) -> None:
        began = time.monotonic()
        texts = {"identity": self._savepoints.identity, "steps": str(steps), "rows": str(self._savepoints.rows or 0)}
        if self._best is not None:
            texts["best"] = self._best.text
        self._write(path, texts)
        self._saved = time.monotonic()
        self._pause = max(self._savepoints.every_s, (self._saved - began) / _SAVING_SHARE)
