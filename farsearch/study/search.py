"""The search loop of one worker: take a trial from the queue, train it, record the result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from optuna.study import Study

from farsearch.cost.pricer import Pricer
from farsearch.errors import FarsearchError
from farsearch.goals import Goal
from farsearch.records import Completed, FarConfig, Stopped, StudySnapshot
from farsearch.study.activity import recorded
from farsearch.study.artifacts import save_trial, sweep
from farsearch.study.liveness import Worker
from farsearch.study.snapshot import SnapshotReader
from farsearch.study.space import Space
from farsearch.study.storage_errors import retry_while_away
from farsearch.study.store import Store, storage_errors
from farsearch.study.trial_queue import Proposal, ProposalSettings, TrialQueue
from farsearch.study.trial_runner import run_trial
from farsearch.study.watcher import Watcher
from farsearch.training import Bench, Outcome

__all__ = ["Search", "Watcher"]

_WAIT_S = 1.0
"""Seconds between two checks for the last trials of other workers."""

T = TypeVar("T")


@dataclass
class Search:
    """One worker's search.

    All changes of the study are made under its lock, in steps that are safe to repeat: when the storage fails in the
    middle of a step, its changes may or may not be stored.

    Args:
        space: as in the study's settings.
        sampler: name of one of ``samplers.SAMPLERS``.
        goal: objective by which the step plan of each configuration is chosen.
        racing: stop trials that can no longer reach the front.

    Attributes:
        queue: of the study's trials.
    """

    study: Study
    store: Store
    bench: Bench
    pricer: Pricer
    space: Space
    sampler: str
    goal: Goal
    watcher: Watcher
    racing: bool = True

    def __post_init__(self) -> None:
        self.layers = len(self.bench.layout.layers)
        self.folder = self.store.folder(self.study.study_name)
        self._reader = SnapshotReader(self.study)
        settings = ProposalSettings(self.space, self.layers, self.sampler, self.goal, self.bench.job.seed, self.racing)
        self.queue = TrialQueue(self.study, self._reader, self.pricer, settings, self.watcher.note)

    def run(self, n_trials: int | None = None, timeout_s: float | None = None) -> StudySnapshot:
        """Train until the study has all of its finished trials, or the time is over.

        Args:
            n_trials: the number of trials that the study should have, for all of its workers; None for the stored one.

        Raises:
            NoFeasibleTrial: when no proposal fits.
            MissingResource: when the study can't be written; finished trials are retained.
            KeyboardInterrupt: when it was interrupted; the next run trains the running trial again.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        worker = self.under_lock(lambda: Worker(self.folder, self.study))
        try:
            if n_trials is not None:
                self.prepare(n_trials)
            self._work(worker, deadline)
            return self.under_lock(self.snapshot)
        except BaseException as error:
            # where this can't be written because the disk is full, the next run recovers the trial
            with (
                contextlib.suppress(FarsearchError),
                storage_errors(self.store.where),
                self.store.lock(self.study.study_name),
            ):
                self.queue.requeue_own(worker, f"interrupted ({type(error).__name__})")
            raise
        finally:
            worker.close()

    def snapshot(self) -> StudySnapshot:
        """Read the study."""
        return self._reader.read()

    def begin_at(self, baselines: Mapping[str, FarConfig]) -> None:
        """Enqueue baselines of a new study as its first trials, before the starts of its space."""
        self.under_lock(lambda: self.queue.enqueue_baselines(baselines))

    def prepare(self, n_trials: int) -> None:
        """Store the number of trials that the study should have, and enqueue the starts of its space."""

        def step() -> None:
            self.study.set_user_attr("n_trials", n_trials)
            self.study.set_user_attr("sampler", self.sampler)
            self.study.set_user_attr("racing", self.racing)
            self.queue.enqueue_starts()

        self.under_lock(step)

    def under_lock(self, step: Callable[[], T]) -> T:
        """Run a step under the study's lock, again while the storage is unavailable."""

        def locked() -> T:
            with self.store.lock(self.study.study_name):
                return step()

        return retry_while_away(locked, self.store.where, self.watcher.note)

    def _work(self, worker: Worker, deadline: float | None) -> None:
        """Train trials until none is left, or the time is over."""
        waiting = False
        while deadline is None or time.monotonic() < deadline:
            proposal = self.under_lock(lambda: self.queue.next(worker))
            if isinstance(proposal, Proposal):
                with worker.beating(proposal.trial):
                    self._train(proposal)
            elif proposal == "done":
                return
            elif proposal == "wait":
                # for their end: a trial whose worker dies has to be trained again
                if not waiting:
                    self.watcher.note("waiting for the last trials of other workers")
                waiting = True
                time.sleep(_WAIT_S)

    def _train(self, proposal: Proposal) -> None:
        """Train a trial, store its tensors and record its result."""
        number, config = proposal.record.number, proposal.record.config
        with recorded(
            self.folder, f"trial {number}", self.watcher.step, epochs=config.epochs, number=number,
            priming_epochs=config.priming_epochs,
        ) as on_step:  # fmt: skip
            ended = run_trial(self.bench, proposal, self.watcher, on_step)
        snapshot = self.under_lock(lambda: self._finish(proposal, *ended))
        if snapshot is None:
            self.watcher.note(
                f"trial {number} was given to another worker while this one was away; its result is dropped"
            )
        else:
            self.watcher.trial_ended(next(t for t in snapshot.trials if t.number == number), snapshot)

    def _finish(
        self, proposal: Proposal, outcome: Completed | Stopped, trained: Outcome | None
    ) -> StudySnapshot | None:
        """Record an outcome, the tensors of a complete trial first; return None where another worker has the trial."""
        if self.queue.is_lost(proposal):
            return None
        if trained is not None:
            save_trial(self.folder, proposal.record.number, trained)
        self.queue.finish(proposal, outcome)
        snapshot = self.snapshot()
        sweep(self.folder, snapshot.trials)
        return snapshot
