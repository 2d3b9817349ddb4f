"""Live workers of a study, and trials whose worker died.

On one host a worker holds a file lock while its process lives, so its death is detected at once. Across hosts, a trial
without heartbeats in the database has a dead worker.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from farsearch.files import disk_errors
from farsearch.study.optuna_adapter import heartbeats_of

__all__ = ["Worker", "has_live_worker"]


def has_live_worker(folder: Path, study: Study) -> bool:
    """Return whether a process of this host, or of another one, works on a study. Call it under the study's lock."""
    if any(_is_held(path) for path in (folder / "workers").glob("*.lock")):
        return True
    heartbeats = heartbeats_of(study)
    if heartbeats is None:
        return False
    stale = heartbeats.stale_ids()
    here = f"{socket.gethostname()}-"
    return any(
        not heartbeats.is_stale(trial, stale) and not str(trial.user_attrs.get("worker", here)).startswith(here)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    )


def _is_held(path: Path) -> bool:
    """Return whether a process holds this lock."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


class Worker:
    """One process that works on a study, until it is closed or dies. Create it under the study's lock.

    Args:
        folder: of the study.
        study: has heartbeats if it is in a database.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.name = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._study = study
        self._heartbeats = heartbeats_of(study)
        self._stale: dict[int, float] = {}
        self._folder = folder / "workers"
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self._path(self.name))
            self._lock.acquire(timeout=0)

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"

    def close(self) -> None:
        """End the worker."""
        self._lock.release()
        self._path(self.name).unlink(missing_ok=True)

    def abandoned(self) -> list[FrozenTrial]:
        """Return the RUNNING trials whose worker is dead. Call it under the study's lock."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale = self._long_stale()
        abandoned = []
        self._clean({trial.user_attrs.get("worker") for trial in running})
        for trial in running:
            worker = trial.user_attrs.get("worker")
            if worker in (None, self.name):
                continue
            dead = self._is_dead(worker)
            lost = dead is None and self._heartbeats is not None and self._heartbeats.is_stale(trial, stale)
            if dead or lost:
                abandoned.append(trial)
        return abandoned

    def _clean(self, needed: set[str | None]) -> None:
        """Remove the lock files of dead processes, except those that decide about running trials."""
        for path in self._folder.glob("*.lock"):
            if path.stem != self.name and path.stem not in needed:
                self._is_dead(path.stem)

    def _is_dead(self, worker: str) -> bool | None:
        """Return whether a worker's process is dead, by its lock; None where its lock is not in this folder."""
        path = self._path(worker)
        if self._heartbeats is not None and not (worker.rpartition("-")[0] == socket.gethostname() and path.exists()):
            return None
        if _is_held(path):
            return False
        path.unlink(missing_ok=True)
        return True

    def _long_stale(self) -> set[int]:
        """Return the ids of trials that have been stale for a heartbeat interval.

        After the database was away all trials are stale, and their workers have one interval to come back.
        """
        if self._heartbeats is None:
            return set()
        now = time.monotonic()
        self._stale = {trial: self._stale.get(trial, now) for trial in self._heartbeats.stale_ids()}
        return {trial for trial, since in self._stale.items() if now - since >= self._heartbeats.interval_s}

    def beat(self, trial: Trial) -> None:
        """Record a heartbeat of a trial; the first one under the lock under which it was proposed."""
        if self._heartbeats is not None:
            self._heartbeats.record(trial)

    @contextmanager
    def beating(self, trial: Trial) -> Iterator[None]:
        """Record heartbeats of a trial while the block runs, also after the database was away."""
        if self._heartbeats is None:
            yield
            return
        over, pause = threading.Event(), self._heartbeats.interval_s

        def beats() -> None:
            while not over.wait(pause):
                with suppress(SQLAlchemyError, StorageInternalError):
                    self.beat(trial)

        # daemon: a thread that waits for a vanished server must not delay the end of the process
        threading.Thread(target=beats, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            over.set()
