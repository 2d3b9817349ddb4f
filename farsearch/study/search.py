"""The search: propose, price, train, keep, tell. One process is one worker."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from farsearch.cost.plans import Goal, quickest
from farsearch.cost.price import Cost, Pricer, best_of
from farsearch.errors import FarsearchError, NoFeasibleTrial, TrialError
from farsearch.records import FarConfig, StudySnapshot, TrialRecord
from farsearch.study.nearest import nearest_fit
from farsearch.study.results import changed, priced_record, results_of
from farsearch.study.samplers import GatedSampler, make_sampler
from farsearch.study.snapshot import snapshot_of
from farsearch.study.space import Space
from farsearch.study.store import Store, WorkerLock, storage_errors
from farsearch.study.trials import save_trial, sweep
from farsearch.training import Bench, Outcome

__all__ = ["Search", "Watcher"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_KILLS = 3
"""Kills of its process after which parameters are given up: what the host has no memory for is killed always."""


class Watcher(Protocol):
    """Hears how a search goes on. The command line draws it, the tracker mirrors it."""

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """A trial was proposed and priced, and is trained now."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A step of the FAR phase is done."""

    def note(self, text: str) -> None:
        """Something took time or went another way."""

    def trial_ended(self, record: TrialRecord, snapshot: StudySnapshot) -> None:
        """A trial is told to the study, whose state is ``snapshot``."""


@dataclass
class Search:
    """One worker's search.

    Args:
        space: as the study's settings say it.
        sampler: name of one of ``samplers.SAMPLERS``.
        goal: what each configuration's step plan is chosen for.
    """

    study: Study
    store: Store
    bench: Bench
    pricer: Pricer
    space: Space
    sampler: str
    goal: Goal
    watcher: Watcher

    def __post_init__(self) -> None:
        self.layers = len(self.bench.layout.layers)
        self.folder = self.store.folder(self.study.study_name)
        self.distributions = self.space.distributions(self.layers)

    def run(self, n_trials: int, timeout_s: float | None = None) -> StudySnapshot:
        """Train until the study has ``n_trials`` finished trials, or the time is over.

        Raises:
            NoFeasibleTrial: when no proposal fits.
            MissingResource: when the study can't be written any more; finished trials are kept.
            KeyboardInterrupt: when it was interrupted; the trial in work is tried again by the next run.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        lock = WorkerLock(self.folder, shared=self.store.url is not None)
        try:
            with self._turn():
                self.study.set_user_attr("n_trials", n_trials)
                self._enqueue_starts()
            while deadline is None or time.monotonic() < deadline:
                with self._turn():
                    self._recover(lock)
                    if self._taken() >= n_trials:
                        break
                    proposal = self._propose(lock)
                if proposal is not None:
                    self._train(*proposal)
            return snapshot_of(self.study)
        except BaseException as error:
            # what can't be written now, because the disk is full, is recovered by the next run
            with contextlib.suppress(FarsearchError):
                self._give_back(lock, f"interrupted ({type(error).__name__})")
            raise
        finally:
            lock.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """The study is this worker's alone, and what its storage refuses is translated."""
        with storage_errors(self.store.where), self.store.turn(self.study.study_name):
            yield

    def _taken(self) -> int:
        """Trials that are finished or in work."""
        return len(self.study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING)))

    def _enqueue_starts(self) -> None:
        """Put what the space tries first into the queue of a new study, where the device has room for it."""
        if self.study.user_attrs.get("started"):
            return
        for name, params in self.space.starts(self.layers).items():
            _, cost = self.pricer.best(self.space.config(params, self.layers), self.goal)
            if cost.fits:
                self.study.enqueue_trial(params, user_attrs={"start": name}, skip_if_exists=True)
            else:
                self.watcher.note(f"{name} does not fit: {cost.problems[0]}")
        self.study.set_user_attr("started", True)

    def _recover(self, lock: WorkerLock) -> None:
        """Fail the trials of workers that are gone, and queue their parameters again."""
        for trial in lock.abandoned(self.study):
            kills = trial.user_attrs.get("kills", 0) + 1
            again = kills < _KILLS
            if again:
                # queued first: a kill between the two is recovered once more, and nothing is queued twice
                self._queue_again(trial, kills)
            reason = "its process was killed" + ("" if again else f" {kills} times, so it is not tried again")
            self._fail(trial, reason)
            self.watcher.note(f"trial {trial.number} ended early: {reason}" + ("; it is tried again" if again else ""))

    def _queue_again(self, trial: FrozenTrial, kills: int) -> None:
        """Queue the parameters of a trial, those too that it took from the queue and had not suggested yet."""
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        known = any(other.user_attrs.get("retry_of") == trial.number for other in waiting)
        if not known and params and set(params) == set(self.distributions):
            self.study.enqueue_trial(params, user_attrs={"retry_of": trial.number, "kills": kills})

    def _configs(self, *states: TrialState) -> dict[int, str]:
        """Keys of the configurations of the trials in these states, by number."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False, states=states):
            params = trial.params or trial.system_attrs.get("fixed_params", {})
            if set(params) == set(self.distributions):
                found[trial.number] = _key(self.space.config(params, self.layers))
        return found

    def _propose(self, lock: WorkerLock) -> tuple[Trial, TrialRecord, Cost] | None:
        """Make the next trial: one that waits, or the sampler's first proposal that fits and is new."""
        known = set(self._configs(*_FINISHED, TrialState.RUNNING, TrialState.WAITING).values())

        def gate(params: Mapping[str, Any]) -> str | None:
            config = self.space.config(params, self.layers)
            if _key(config) in known:
                return "duplicate"
            _, cost = self.pricer.best(config, self.goal)
            return None if cost.fits else cost.problems[0].partition(":")[0]

        count = len(self.study.get_trials(deepcopy=False))
        inner = make_sampler(self.sampler, self.bench.job.seed, count)
        sampler = GatedSampler(inner, self.distributions, gate)
        self.study.sampler = sampler
        try:
            trial = self.study.ask(self.distributions)
        except NoFeasibleTrial as error:
            self._close_unborn(sampler.refusals)
            raise NoFeasibleTrial(self._nothing(error, sampler.refusals)) from error
        trial.set_user_attr("worker", lock.name)
        if sampler.refusals:
            trial.set_user_attr("rejected", dict(sampler.refusals))
        config = self.space.config(trial.params, self.layers)
        priced = self.pricer.all_plans(config)
        plan, cost = best_of(priced, self.goal)
        record = priced_record(trial.number, config, plan, cost, priced)
        trial.set_user_attr("record", record.to_dict())
        for name, excess in _constraints(cost, self.pricer).items():
            trial.set_constraint(name, excess)
        others = self._configs(*_FINISHED, TrialState.RUNNING)
        if _key(config) in {key for number, key in others.items() if number != trial.number}:
            trial.set_user_attr("reason", "the same configuration was trained already")
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return trial, record, cost

    def _close_unborn(self, refusals: Mapping[str, int]) -> None:
        """``ask`` raised after it had made a trial, which has no worker yet: end that one."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs:
                self.study._storage.set_trial_user_attr(trial._trial_id, "rejected", dict(refusals))
                self._fail(trial, "no proposal could be trained")

    def _nothing(self, error: NoFeasibleTrial, refusals: Mapping[str, int]) -> str:
        """Why no proposal was let through, and what can be done."""
        if "duplicate" in refusals:
            return (
                f"{error}; what fits has been trained already: ask for fewer --n-trials, or search more with another "
                "--space or without --set"
            )
        return f"{error}; {nearest_fit(self.pricer, self.goal, self.space, self.layers)}"

    def _train(self, trial: Trial, record: TrialRecord, cost: Cost) -> None:
        """Train one trial, keep what it made, and tell the study."""
        config, plan = record.config, record.plan
        assert config is not None
        assert plan is not None
        self.watcher.trial_started(trial.number, config, cost)
        try:
            # all exact plans learn the same, so this host need not do what the device has to
            outcome = self.bench.run(config, quickest(plan), self.watcher.step, self.watcher.note)
        except TrialError as error:
            snapshot = self._tell(trial, changed(record, state="pruned", reason=str(error)), cost, None)
        else:
            snapshot = self._tell(trial, changed(record, state="complete", **results_of(outcome)), cost, outcome)
        self.watcher.trial_ended(next(t for t in snapshot.trials if t.number == trial.number), snapshot)

    def _give_back(self, lock: WorkerLock, reason: str) -> None:
        """Fail this worker's trial that was not told, if there is one, and queue its parameters for the next run."""
        with self._turn():
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                # one without a worker was being made in this worker's turn
                if trial.user_attrs.get("worker", lock.name) == lock.name:
                    self._queue_again(trial, trial.user_attrs.get("kills", 0))
                    self._fail(trial, reason)

    def _fail(self, trial: FrozenTrial, reason: str) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _tell(self, trial: Trial, record: TrialRecord, cost: Cost, outcome: Outcome | None) -> StudySnapshot:
        """End a trial: complete with its tensors on disk, or stopped where there is no outcome."""
        with self._turn():
            if outcome is not None:
                save_trial(self.folder, trial.number, outcome)
            trial.set_user_attr("record", record.to_dict())
            if outcome is None:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, [outcome.metric, cost.peak_memory_mib, cost.wall_time_s])
            snapshot = snapshot_of(self.study)
            sweep(self.folder, snapshot.trials)
        return snapshot


def _key(config: FarConfig) -> str:
    return json.dumps(config.canonical().to_dict(), sort_keys=True)


def _constraints(cost: Cost, pricer: Pricer) -> dict[str, float]:
    """Excess over each bound as a share of it: feasible where at most 0."""
    have = cost.available_range_mib[0]
    excess = {"memory": cost.peak_memory_range_mib[1] / have - 1.0}
    if pricer.max_memory_mib is not None:
        excess["max-memory"] = cost.peak_memory_mib / pricer.max_memory_mib - 1.0
    if pricer.max_time_s is not None:
        excess["max-time"] = cost.wall_time_s / pricer.max_time_s - 1.0
    return excess
