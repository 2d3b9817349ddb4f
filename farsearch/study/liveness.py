"""Who is at work on a study, and whose trial was abandoned.

On one host a worker holds a file's lock as long as its process lives, which tells at once. Among hosts a trial in work
gives a sign of life to the database every now and then.
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
    """Whether a process of this host, or a trial of another one, is at work on a study. Call it in the study's turn."""
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
    """Whether a process holds this lock."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


class Worker:
    """One process at work on a study, until it is closed or dies. Make it in the study's turn.

    Args:
        folder: of the study.
        study: its storage says whether there are heartbeats.
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
        """The worker ends."""
        self._lock.release()
        self._path(self.name).unlink(missing_ok=True)

    def abandoned(self) -> list[FrozenTrial]:
        """RUNNING trials whose worker is gone. Call it in the study's turn."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale = self._long_stale()
        found = []
        self._clean({trial.user_attrs.get("worker") for trial in running})
        for trial in running:
            worker = trial.user_attrs.get("worker")
            if worker in (None, self.name):
                continue
            dead = self._is_dead(worker)
            lost = dead is None and self._heartbeats is not None and self._heartbeats.is_stale(trial, stale)
            if dead or lost:
                found.append(trial)
        return found

    def _clean(self, needed: set[str | None]) -> None:
        """Remove the locks of processes that are gone, but for those of trials that are still to be judged by them."""
        for path in self._folder.glob("*.lock"):
            if path.stem != self.name and path.stem not in needed:
                self._is_dead(path.stem)

    def _is_dead(self, worker: str) -> bool | None:
        """Whether its process is gone, by its lock; None where its lock is not in this folder."""
        path = self._path(worker)
        if self._heartbeats is not None and not (worker.rpartition("-")[0] == socket.gethostname() and path.exists()):
            return None
        if _is_held(path):
            return False
        path.unlink(missing_ok=True)
        return True

    def _long_stale(self) -> set[int]:
        """Ids of trials that were stale before and still are.

        After the database was away, all trials are stale: their workers get the time of a heartbeat to come back.
        """
        if self._heartbeats is None:
            return set()
        now = time.monotonic()
        self._stale = {trial: self._stale.get(trial, now) for trial in self._heartbeats.stale_ids()}
        return {trial for trial, since in self._stale.items() if now - since >= self._heartbeats.interval_s}

    def beat(self, trial: Trial) -> None:
        """Give a sign of life of a trial. Its first one belongs into the turn in which it was proposed."""
        if self._heartbeats is not None:
            self._heartbeats.record(trial)

    @contextmanager
    def beating(self, trial: Trial) -> Iterator[None]:
        """Give signs of life of a trial while the block runs, also when the database is away in between."""
        if self._heartbeats is None:
            yield
            return
        over, pause = threading.Event(), self._heartbeats.interval_s

        def beats() -> None:
            while not over.wait(pause):
                with suppress(SQLAlchemyError, StorageInternalError):
                    self.beat(trial)

        # a thread that waits for a server that vanished must not hold up the end of the process
        threading.Thread(target=beats, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            over.set()
