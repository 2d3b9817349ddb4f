"""The search: propose, price, train, keep, tell. One process is one worker."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from farsearch.cost.plans import quickest
from farsearch.cost.pricer import Cost, Pricer, best_of
from farsearch.errors import FarsearchError, NoFeasibleTrial, TrialError
from farsearch.goals import Goal
from farsearch.records import FarConfig, StudySnapshot, TrialRecord
from farsearch.study.artifacts import save_trial, sweep
from farsearch.study.config_cache import Known, config_key
from farsearch.study.liveness import Worker
from farsearch.study.pricing import price_params
from farsearch.study.racing import Race, Racer
from farsearch.study.results import changed, priced_record, results_of
from farsearch.study.samplers import GatedSampler, make_sampler
from farsearch.study.snapshot import SnapshotReader
from farsearch.study.space import Space
from farsearch.study.storage_errors import patiently
from farsearch.study.store import Store, storage_errors
from farsearch.study.suggestion import nearest_fit
from farsearch.training import Bench, Outcome

__all__ = ["Search", "Watcher"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_KILLS = 3
"""Kills of its process after which parameters are given up: what the host has no memory for is killed always."""

_WAIT_S = 1.0
"""Between two looks at the last trials of others."""

T = TypeVar("T")

Next = Literal["done", "wait", "again"]
"""What there is to do for a worker that gets no trial."""


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


@dataclass(frozen=True)
class _Proposal:
    """A trial that is to be trained, with its costs, and what it runs against where there is racing."""

    trial: Trial
    record: TrialRecord
    cost: Cost
    racer: Racer | None


@dataclass
class Search:
    """One worker's search.

    What it does to the study it does in the study's turn, in steps that are safe to repeat: where the storage went away
    in the middle of one, nobody knows what of it was kept.

    Args:
        space: as the study's settings say it.
        sampler: name of one of ``samplers.SAMPLERS``.
        goal: what each configuration's step plan is chosen for.
        racing: trials that can't reach the front any more are stopped.
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
        self.distributions = self.space.distributions(self.layers)
        self._price = price_params(self.pricer, self.space, self.layers, self.goal)
        self._known = Known(self.space, self.layers, self.distributions)
        self._reader = SnapshotReader(self.study)

    def run(self, n_trials: int | None = None, timeout_s: float | None = None) -> StudySnapshot:
        """Train until the study has all of its finished trials, or the time is over.

        Args:
            n_trials: trials that the study is to have from now on; None for what it says already. Other workers of the
                study go by it too.

        Raises:
            NoFeasibleTrial: when no proposal fits.
            MissingResource: when the study can't be written any more; finished trials are kept.
            KeyboardInterrupt: when it was interrupted; the trial in work is tried again by the next run.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        worker = self._in_turn(lambda: Worker(self.folder, self.study))
        try:
            if n_trials is not None:
                self.prepare(n_trials)
            self._work(worker, deadline)
            return self._in_turn(self.snapshot)
        except BaseException as error:
            # what can't be written now, because the disk is full, is recovered by the next run
            with contextlib.suppress(FarsearchError), self._turn():
                self._give_back(worker, f"interrupted ({type(error).__name__})")
            raise
        finally:
            worker.close()

    def snapshot(self) -> StudySnapshot:
        """The study at this moment."""
        return self._reader.read()

    def prepare(self, n_trials: int) -> None:
        """Say how many finished trials the study is to have, and queue what its space tries first."""

        def step() -> None:
            self.study.set_user_attr("n_trials", n_trials)
            self.study.set_user_attr("sampler", self.sampler)
            self.study.set_user_attr("racing", self.racing)
            self._enqueue_starts()

        self._in_turn(step)

    def _work(self, worker: Worker, deadline: float | None) -> None:
        """Train trials until there is none left, or the time is over."""
        waiting = False
        while deadline is None or time.monotonic() < deadline:
            proposal = self._in_turn(lambda: self._next(worker))
            if isinstance(proposal, _Proposal):
                with worker.beating(proposal.trial._trial_id):
                    self._train(proposal)
            elif proposal == "done":
                return
            elif proposal == "wait":
                # until they end: one whose worker dies is to be trained again
                if not waiting:
                    self.watcher.note("waiting for the last trials of other workers")
                waiting = True
                time.sleep(_WAIT_S)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """The study is this worker's alone, and what its storage refuses is translated."""
        with storage_errors(self.store.where), self.store.turn(self.study.study_name):
            yield

    def _in_turn(self, step: Callable[[], T]) -> T:
        """Do a step in the study's turn, again as long as the storage is away."""

        def turn() -> T:
            with self.store.turn(self.study.study_name):
                return step()

        return patiently(turn, self.store.where, self.watcher.note)

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

    def _next(self, worker: Worker) -> _Proposal | Next:
        """The next trial of this worker, or what it has to do where there is none."""
        # it trains nothing now: what was cut off while it was proposed is proposed again
        self._give_back(worker, "it was cut off while it was proposed")
        self._recover(worker)
        trials = self.study.get_trials(deepcopy=False)
        finished = sum(trial.state in _FINISHED for trial in trials)
        live = sum(trial.state == TrialState.RUNNING for trial in trials)
        total = int(self.study.user_attrs.get("n_trials", 0))
        if finished >= total:
            return "done"
        if finished + live >= total:
            return "wait"
        return self._propose(worker, trials) or "again"

    def _recover(self, worker: Worker) -> None:
        """Fail the trials of workers that are gone, and queue their parameters again."""
        for trial in worker.abandoned():
            kills = trial.user_attrs.get("kills", 0) + 1
            again = kills < _KILLS
            if again:
                # queued first: a kill between the two is recovered once more, and nothing is queued twice
                self._queue_again(trial, kills)
            if not again:
                self.study._storage.set_trial_user_attr(trial._trial_id, "given_up", True)
            reason = "its process was killed" + ("" if again else f" {kills} times, so it is not tried again")
            self._fail(trial, reason)
            self.watcher.note(f"trial {trial.number} ended early: {reason}" + ("; it is tried again" if again else ""))

    def _give_back(self, worker: Worker, reason: str) -> None:
        """Fail this worker's trial that was not told, if there is one, and queue its parameters again."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # one without a worker was being made in a turn, which is this worker's now
            if trial.user_attrs.get("worker", worker.name) == worker.name:
                self._queue_again(trial, trial.user_attrs.get("kills", 0))
                self._fail(trial, reason)

    def _queue_again(self, trial: FrozenTrial, kills: int) -> None:
        """Queue the parameters of a trial, those too that it took from the queue and had not suggested yet."""
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        others = self.study.get_trials(deepcopy=False)
        known = any(other.user_attrs.get("retry_of") == trial.number for other in others)
        if not known and params and set(params) == set(self.distributions):
            self.study.enqueue_trial(params, user_attrs={"retry_of": trial.number, "kills": kills})

    def _fail(self, trial: FrozenTrial, reason: str) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _propose(self, worker: Worker, trials: Sequence[FrozenTrial]) -> _Proposal | None:
        """Make the next trial: one that waits, or the sampler's first proposal that fits and is new.

        None where what waited had been trained already.
        """
        taken = self._known.keys(trials, (*_FINISHED, TrialState.RUNNING))
        taken |= self._known.keys([trial for trial in trials if "given_up" in trial.user_attrs], (TrialState.FAIL,))
        queued = self._known.keys(trials, (TrialState.WAITING,))

        def gate(params: Mapping[str, Any]) -> str | None:
            config = self.space.config(params, self.layers)
            if (key := config_key(config)) in taken or key in queued:
                return "duplicate"
            _, cost = self.pricer.best(config, self.goal)
            return None if cost.fits else cost.problems[0].partition(":")[0]

        inner = make_sampler(self.sampler, self.distributions, self._price, self.bench.job.seed, len(trials))
        sampler = GatedSampler(inner, self.distributions, gate)
        self.study.sampler = sampler
        try:
            with warnings.catch_warnings():
                # Optuna wants heartbeats used with its own loop only; liveness.py gives them
                warnings.filterwarnings("ignore", "Heartbeat of storage")
                trial = self.study.ask(self.distributions)
        except NoFeasibleTrial as error:
            self._close_unborn(sampler.refusals)
            raise NoFeasibleTrial(self._nothing(error, sampler.refusals)) from error
        trial.set_user_attr("worker", worker.name)
        worker.beat(trial._trial_id)
        if sampler.refusals:
            trial.set_user_attr("rejected", dict(sampler.refusals))
        config = self.space.config(trial.params, self.layers)
        priced = self.pricer.all_plans(config)
        plan, cost = best_of(priced, self.goal)
        record = priced_record(trial.number, config, plan, cost, priced)
        trial.set_user_attr("record", record.to_dict())
        for name, excess in _constraints(cost, self.pricer).items():
            trial.set_constraint(name, excess)
        if config_key(config) in taken:
            trial.set_user_attr("reason", "the same configuration was trained already")
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        race = Race.of(self._reader.records(trials), cost.peak_memory_mib, cost.wall_time_s)
        return _Proposal(trial, record, cost, Racer(race) if self.racing else None)

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

    def _train(self, proposal: _Proposal) -> None:
        """Train one trial, keep what it made, and tell the study."""
        record, cost = proposal.record, proposal.cost
        config, plan = record.config, record.plan
        assert config is not None
        assert plan is not None
        self.watcher.trial_started(record.number, config, cost)
        outcome, racer, started = None, proposal.racer, time.perf_counter()
        try:
            # all exact plans learn the same, so this host need not do what the device has to
            outcome = self.bench.run(
                config, quickest(plan, self.bench.layout), self.watcher.step, self.watcher.note, racer
            )
        except TrialError as error:
            told = changed(
                record,
                state="pruned",
                reason=str(error),
                host_seconds=time.perf_counter() - started,
                extrapolated_metric=racer.lost.expected if racer is not None and racer.lost is not None else None,
            )
        else:
            told = changed(record, state="complete", **results_of(outcome))
        if racer is not None:
            told = dataclasses.replace(told, looks=tuple(racer.looks))
        snapshot = self._in_turn(lambda: self._tell(proposal, told, outcome))
        if snapshot is None:
            self.watcher.note(
                f"trial {record.number} was given to another worker while this one was away; its result is dropped"
            )
        else:
            self.watcher.trial_ended(next(t for t in snapshot.trials if t.number == record.number), snapshot)

    def _tell(self, proposal: _Proposal, record: TrialRecord, outcome: Outcome | None) -> StudySnapshot | None:
        """End a trial: complete with its tensors on disk, or stopped where there is no outcome.

        None where this worker was taken for dead and the trial was ended without it.
        """
        trial = proposal.trial
        state = self.study._storage.get_trial(trial._trial_id).state
        if state == TrialState.FAIL:
            return None
        if outcome is not None:
            save_trial(self.folder, trial.number, outcome)
        if state == TrialState.RUNNING:  # otherwise it was told before the storage went away
            trial.set_user_attr("record", record.to_dict())
            metric = record.extrapolated_metric if outcome is None else outcome.metric
            if metric is None:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                cost = proposal.cost
                self.study.tell(trial, [metric, cost.peak_memory_mib, cost.wall_time_s])
        snapshot = self.snapshot()
        sweep(self.folder, snapshot.trials)
        return snapshot


def _constraints(cost: Cost, pricer: Pricer) -> dict[str, float]:
    """Excess over each bound as a share of it: feasible where at most 0."""
    have = cost.available_range_mib[0]
    excess = {"memory": cost.peak_memory_range_mib[1] / have - 1.0}
    if pricer.constraints.max_memory_mib is not None:
        excess["max-memory"] = cost.peak_memory_mib / pricer.constraints.max_memory_mib - 1.0
    if pricer.constraints.max_time_s is not None:
        excess["max-time"] = cost.wall_time_s / pricer.constraints.max_time_s - 1.0
    return excess
