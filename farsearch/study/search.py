"""The search: propose, price, train, keep, tell. One process is one worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.study import Study
from optuna.trial import Trial, TrialState

from farsearch.cost.price import Cost, Pricer
from farsearch.errors import NoFeasibleTrial, TrialError
from farsearch.records import FarConfig, StepPlan, StudySnapshot, TrialRecord
from farsearch.study.samplers import GatedSampler, make_sampler
from farsearch.study.snapshot import snapshot_of
from farsearch.study.space import Space
from farsearch.study.store import Store, WorkerLock, storage_errors
from farsearch.study.trials import save_trial, sweep
from farsearch.training import Bench, Outcome

__all__ = ["Search", "Watcher"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


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
        plan: the step plan that the objectives use.
        seed: of the study; samplers draw theirs from it.
    """

    study: Study
    store: Store
    bench: Bench
    pricer: Pricer
    space: Space
    sampler: str
    plan: StepPlan
    watcher: Watcher

    def __post_init__(self) -> None:
        self.layers = len(self.bench.layout.layers)
        self.folder = self.store.folder(self.study.study_name)
        self.distributions = self.space.distributions(self.layers)

    def run(self, n_trials: int, timeout_s: float | None = None) -> StudySnapshot:
        """Train until the study has ``n_trials`` finished trials, or the time is over.

        Raises:
            NoFeasibleTrial: when no proposal fits.
            KeyboardInterrupt: when it was interrupted; the trial in work is tried again by the next run.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        lock = WorkerLock(self.folder)
        try:
            with storage_errors(self.store.where):
                self.study.set_user_attr("n_trials", n_trials)
                self._enqueue_starts()
                while deadline is None or time.monotonic() < deadline:
                    with self.store.turn(self.study.study_name):
                        self._recover(lock)
                        if self._taken() >= n_trials:
                            break
                        proposal = self._propose(lock)
                    if proposal is not None:
                        self._train(*proposal)
            return snapshot_of(self.study)
        finally:
            lock.close()

    def _taken(self) -> int:
        """Trials that are finished or in work."""
        return len(self.study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING)))

    def _enqueue_starts(self) -> None:
        """Put what the space tries first into the queue of a new study, where the device has room for it."""
        with self.store.turn(self.study.study_name):
            if self.study.user_attrs.get("started"):
                return
            for name, params in self.space.starts(self.layers).items():
                cost = self.pricer.price(self.space.config(params, self.layers), self.plan)
                if cost.fits:
                    self.study.enqueue_trial(params, user_attrs={"start": name}, skip_if_exists=True)
                else:
                    self.watcher.note(f"{name} does not fit: {cost.problems[0]}")
            self.study.set_user_attr("started", True)

    def _recover(self, lock: WorkerLock) -> None:
        """Fail the trials of workers that are gone, and queue their parameters again."""
        for trial in lock.abandoned(self.study):
            # queued first: a kill between the two leaves a duplicate, which is refused when it is drawn
            if trial.params and set(trial.params) == set(self.distributions):
                self._queue_again(trial.params, trial.number)
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            self.watcher.note(f"trial {trial.number} was cut off; its parameters are tried again")

    def _queue_again(self, params: Mapping[str, Any], number: int) -> None:
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not any(trial.user_attrs.get("retry_of") == number for trial in waiting):
            self.study.enqueue_trial(dict(params), user_attrs={"retry_of": number})

    def _known(self, but: int | None = None) -> set[str]:
        """Keys of the configurations that were trained, are in work, or wait."""
        states = (*_FINISHED, TrialState.RUNNING, TrialState.WAITING)
        known = set()
        for trial in self.study.get_trials(deepcopy=False, states=states):
            params = trial.params or trial.system_attrs.get("fixed_params", {})
            if trial.number != but and set(params) == set(self.distributions):
                known.add(_key(self.space.config(params, self.layers)))
        return known

    def _propose(self, lock: WorkerLock) -> tuple[Trial, FarConfig, Cost] | None:
        """Make the next trial: one that waits, or the sampler's first proposal that fits and is new."""
        known = self._known()

        def gate(params: Mapping[str, Any]) -> str | None:
            config = self.space.config(params, self.layers)
            if _key(config) in known:
                return "duplicate"
            cost = self.pricer.price(config, self.plan)
            return None if cost.fits else cost.problems[0].partition(":")[0]

        count = len(self.study.get_trials(deepcopy=False))
        seed = self.bench.job.seed
        sampler = GatedSampler(make_sampler(self.sampler, seed, count), self.distributions, gate)
        self.study.sampler = sampler
        try:
            trial = self.study.ask(self.distributions)
        except NoFeasibleTrial as error:
            self._close_unborn(str(error))
            raise NoFeasibleTrial(f"{error}; {self._nearest()}") from error
        trial.set_user_attr("worker", lock.name)
        if sampler.refusals:
            trial.set_user_attr("rejected", dict(sampler.refusals))
        config = self.space.config(trial.params, self.layers)
        trial.set_user_attr("config", config.to_dict())
        cost = self.pricer.price(config, self.plan)
        for name, excess in _constraints(cost, self.pricer).items():
            trial.set_constraint(name, excess)
        if _key(config) in self._trained_elsewhere(trial.number):
            trial.set_user_attr("reason", "the same configuration was trained already")
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return trial, config, cost

    def _trained_elsewhere(self, number: int) -> set[str]:
        """Keys of the configurations of other trials that are finished or in work."""
        trials = self.study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING))
        return {
            _key(self.space.config(trial.params, self.layers))
            for trial in trials
            if trial.number != number and set(trial.params) == set(self.distributions)
        }

    def _close_unborn(self, reason: str) -> None:
        """``ask`` raised after it had made a trial: end that one."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not trial.params and "worker" not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _nearest(self) -> str:
        """The mend for a space in which nothing fits: what the cheapest configurations would need."""
        frozen = FarConfig(
            frozen_fractions=(1.0,) * self.layers, learning_rate=1e-4, epochs=1.0, frozen_embeddings=True
        )
        cost = self.pricer.price(frozen, self.plan)
        need, have = cost.peak_memory_range_mib[1], cost.available_range_mib[0]
        what = "all feed-forward blocks and the embeddings frozen (--space wide)"
        if cost.fits:
            return f"{what} would fit: {cost.peak_memory_mib:.0f} MiB, {cost.wall_time_s:.0f} s"
        return (
            f"even {what} needs up to {need:.0f} of {have:.0f} MiB and {cost.wall_time_s:.0f} s: "
            "use a smaller --batch-size, --max-length or --model, or another --device"
        )

    def _train(self, trial: Trial, config: FarConfig, cost: Cost) -> None:
        """Train one trial, keep what it made, and tell the study."""
        self.watcher.trial_started(trial.number, config, cost)
        record = _priced(trial.number, config, self.plan, cost)
        try:
            outcome = self.bench.run(config, self.plan, self.watcher.step, self.watcher.note)
        except TrialError as error:
            record = _with(record, state="pruned", reason=str(error))
            self._tell(trial, record, TrialState.PRUNED, None)
            return
        except BaseException as error:
            # interrupted or broken: the study keeps the trial as failed, and the parameters for the next run
            with self.store.turn(self.study.study_name):
                self._queue_again(trial.params, trial.number)
                trial.set_user_attr("reason", f"interrupted ({type(error).__name__})")
                self.study.tell(trial, state=TrialState.FAIL)
            raise
        save_trial(self.folder, trial.number, outcome)
        record = _trained(record, outcome)
        values = [outcome.metric, cost.peak_memory_mib, cost.wall_time_s]
        self._tell(trial, record, TrialState.COMPLETE, values)

    def _tell(self, trial: Trial, record: TrialRecord, state: TrialState, values: list[float] | None) -> None:
        with self.store.turn(self.study.study_name):
            trial.set_user_attr("record", record.to_dict())
            self.study.tell(trial, values, state=state)
            snapshot = snapshot_of(self.study)
            sweep(self.folder, snapshot.trials)
        self.watcher.trial_ended(next(t for t in snapshot.trials if t.number == trial.number), snapshot)


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


def _with(record: TrialRecord, **changes: Any) -> TrialRecord:
    return TrialRecord.from_dict({**record.to_dict(), **changes})


def _priced(number: int, config: FarConfig, plan: StepPlan, cost: Cost) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="running",
        config=config,
        plan=plan,
        peak_memory_mib=cost.peak_memory_mib,
        peak_memory_range_mib=cost.peak_memory_range_mib,
        wall_time_s=cost.wall_time_s,
        wall_time_range_s=cost.wall_time_range_s,
        energy_j=cost.energy_j,
        feasible=cost.fits,
        memory=cost.memory,
        time=cost.time,
        trainable=cost.trainable,
    )


def _trained(record: TrialRecord, outcome: Outcome) -> TrialRecord:
    return _with(
        record,
        state="complete",
        metric=outcome.metric,
        metric_error=outcome.metric_error,
        dev_metric=outcome.dev_metric,
        host_seconds=outcome.host_seconds,
        host_peak_mib=outcome.host_peak_mib,
        trainable=outcome.trainable,
        priming=outcome.priming.to_dict(),
        curve=[point.to_dict() for point in outcome.curve],
    )
