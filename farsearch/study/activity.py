"""What the processes of this host train now: each writes a file, for those who watch the search."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from farsearch.files import remove
from farsearch.training.phase import OnStep

__all__ = ["Activity", "activities", "recorded"]

_PAUSE_S = 1.0
"""Seconds between two records of a training."""

_CLOCK_S = 60.0
"""Seconds by which the clock may have been set since a record: a process that began later has only the same id."""


@dataclass(frozen=True)
class Activity:
    """A training in progress.

    Attributes:
        title: ``trial 5``, or a baseline or verification with its rate or seed.
        number: of a trial of the search; None for other trainings.
        priming_epochs, epochs: of the training.
        step, steps: finished training steps and their total; 0 before the first.
        loss: of the last step; None before the first.
        pid: of the process.
        started, seen: begin and last record, in seconds since 1970.
    """

    title: str
    number: int | None
    priming_epochs: float
    epochs: float
    pid: int
    started: float
    seen: float
    step: int = 0
    steps: int = 0
    loss: float | None = None

    @property
    def phase(self) -> str:
        """``priming``, ``preparing``, ``training`` or ``evaluating``."""
        if self.step == 0:
            return "priming" if self.priming_epochs else "preparing"
        return "training" if self.step < self.steps else "evaluating"

    @property
    def epoch(self) -> float:
        """The epochs that are trained."""
        return self.epochs * self.step / self.steps if self.steps else 0.0

    @property
    def seconds(self) -> float:
        """The time since the begin, in seconds."""
        return max(0.0, time.time() - self.started)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON types for programs."""
        shown = {"title": self.title, "trial": self.number, "phase": self.phase, "seconds": self.seconds}
        return {**shown, "epoch": self.epoch, "epochs": self.epochs, "step": self.step, "steps": self.steps}


@contextmanager
def recorded(
    folder: Path,
    title: str,
    on_step: OnStep,
    *,
    epochs: float,
    number: int | None = None,
    priming_epochs: float = 0.0,
) -> Iterator[OnStep]:
    """Record a training of this process while the block runs, which receives a callback for the training's steps.

    A record that can't be written is left out: no result depends on it.

    Args:
        folder: of the study.
        title, number, priming_epochs, epochs: as in ``Activity``.
        on_step: is called with each step.
    """
    now = time.time()
    activity = Activity(title, number, priming_epochs, epochs, os.getpid(), now, now)
    path = folder / "workers" / f"{socket.gethostname()}-{activity.pid}.json"
    written = time.monotonic()

    def step(step: int, steps: int, loss: float) -> None:
        nonlocal written
        on_step(step, steps, loss)
        if step == steps or time.monotonic() - written >= _PAUSE_S:
            _write(path, replace(activity, step=step, steps=steps, loss=loss, seen=time.time()))
            written = time.monotonic()

    _sweep(folder)
    _write(path, activity)
    try:
        yield step
    finally:
        remove(path)


def activities(folder: Path) -> list[Activity]:
    """Return the trainings in a study's folder whose process is alive, the first begun first."""
    found = filter(None, map(_read, _records(folder)))
    return sorted(filter(_is_alive, found), key=lambda one: one.started)


def _records(folder: Path) -> Iterator[Path]:
    return (folder / "workers").glob(f"{socket.gethostname()}-*.json")


def _sweep(folder: Path) -> None:
    """Remove the records of killed processes."""
    for path in _records(folder):
        one = _read(path)
        if one is None or not _is_alive(one):
            remove(path)


def _write(path: Path, activity: Activity) -> None:
    """Write a record, unlike ``files.write_json`` without waiting for the disk: it is of use for a second."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(activity)), encoding="utf-8")


def _read(path: Path) -> Activity | None:
    """Read a record; None for one that is being written, ended meanwhile, or is of another version."""
    try:
        return Activity(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_alive(activity: Activity) -> bool:
    try:
        return bool(psutil.Process(activity.pid).create_time() <= activity.seen + _CLOCK_S)
    except psutil.Error:
        return False
