"""The queue of a study: propose, price, requeue and finish trials, always under the study's lock.

Every method is safe to repeat: when the storage fails in the middle of one, its changes may or may not be stored.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from farsearch.cost.pricer import Pricer
from farsearch.errors import NoFeasibleTrial
from farsearch.goals import Goal
from farsearch.records import Completed, FarConfig, Stopped, Trial, TrialOutcome, trial_to_dict
from farsearch.study.config_cache import ConfigCache, config_key
from farsearch.study.liveness import Worker
from farsearch.study.optuna_adapter import queued_params, set_trial_attr, stored_state
from farsearch.study.pricing import price_params
from farsearch.study.racing import Race, Racer
from farsearch.study.results import excess_of, priced_trial
from farsearch.study.samplers import GatedSampler, make_sampler
from farsearch.study.snapshot import SnapshotReader
from farsearch.study.space import Space
from farsearch.study.suggestion import nearest_fit

__all__ = ["Next", "Proposal", "ProposalSettings", "TrialQueue"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_MAX_KILLS = 3
"""Kills of its process after which a trial is given up: one that exceeds the host's memory is killed every time."""

Next = Literal["done", "wait", "again"]
"""What a worker does that gets no trial: end, wait for other workers, or ask again."""


@dataclass(frozen=True)
class Proposal:
    """A trial to train, with its predicted cost.

    Attributes:
        racer: stops the trial when it can no longer reach the front; None without racing.
    """

    trial: OptunaTrial
    record: Trial[TrialOutcome]
    racer: Racer | None


@dataclass(frozen=True)
class ProposalSettings:
    """How trials are proposed.

    Attributes:
        space: as in the study's settings.
        layers: number of the model's layers.
        sampler: name of one of ``samplers.SAMPLERS``.
        goal: objective by which the step plan of each configuration is chosen.
        seed: of the study.
        racing: stop trials that can no longer reach the front.
    """

    space: Space
    layers: int
    sampler: str
    goal: Goal
    seed: int
    racing: bool


class TrialQueue:
    """The trials of one study, as one worker proposes and finishes them.

    Args:
        reader: of the study.
        note: receives a line for each trial that is recovered, and each start that does not fit.
    """

    def __init__(
        self,
        study: Study,
        reader: SnapshotReader,
        pricer: Pricer,
        settings: ProposalSettings,
        note: Callable[[str], None],
    ) -> None:
        self._study, self._reader, self._pricer, self._note = study, reader, pricer, note
        self._settings, self._space, self._layers = settings, settings.space, settings.layers
        self.distributions = self._space.distributions(self._layers)
        self._price = price_params(pricer, self._space, self._layers, settings.goal)
        self._configs = ConfigCache(self._space, self._layers, self.distributions)

    def enqueue_baselines(self, configs: Mapping[str, FarConfig]) -> None:
        """Enqueue baselines in a new study, in this order, where its space has their method and they fit."""
        if not self._study.user_attrs.get("started"):
            params = {name: self._space.params(config, self._layers) for name, config in configs.items()}
            self._enqueue({name: values for name, values in params.items() if values is not None})

    def enqueue_starts(self) -> None:
        """Enqueue the starts of the space in a new study, where they fit, without those of enqueued methods."""
        if self._study.user_attrs.get("started"):
            return
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        known = [self._method(params) for trial in waiting if (params := queued_params(trial))]
        starts = self._space.starts(self._layers)
        self._enqueue({name: params for name, params in starts.items() if self._method(params) not in known})
        self._study.set_user_attr("started", True)

    def _method(self, params: Mapping[str, Any]) -> FarConfig:
        """Return the configuration of a start, the same for all learning rates and lengths of a priming."""
        config = self._space.config(params, self._layers)
        return dataclasses.replace(config, learning_rate=1.0, priming_epochs=float(config.priming_epochs > 0))

    def _enqueue(self, starts: Mapping[str, Mapping[str, Any]]) -> None:
        for name, params in starts.items():
            _, cost = self._pricer.best(self._space.config(params, self._layers), self._settings.goal)
            if cost.fits:
                self._study.enqueue_trial(dict(params), user_attrs={"start": name}, skip_if_exists=True)
            else:
                self._note(f"{name} does not fit: {cost.problems[0]}")

    def next(self, worker: Worker) -> Proposal | Next:
        """Propose the next trial of a worker that trains none now.

        Raises:
            NoFeasibleTrial: when no proposal fits.
        """
        self.requeue_own(worker, "it was cut off while it was proposed")
        self._recover(worker)
        trials = self._study.get_trials(deepcopy=False)
        finished = sum(trial.state in _FINISHED for trial in trials)
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        total = int(self._study.user_attrs.get("n_trials", 0))
        if finished >= total:
            return "done"
        if finished + running >= total:
            return "wait"
        return self._propose(worker, trials) or "again"

    def requeue_own(self, worker: Worker, reason: str) -> None:
        """Fail the unfinished trial of this worker, if there is one, and enqueue its parameters again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # one without a worker was being proposed under the lock, which this worker holds now
            if trial.user_attrs.get("worker", worker.name) == worker.name:
                self.requeue(trial, trial.user_attrs.get("kills", 0))
                self.fail(trial, reason)

    def requeue(self, trial: FrozenTrial, kills: int) -> None:
        """Enqueue the parameters of a trial, those included that it took from the queue and had not suggested yet."""
        params = {**(queued_params(trial) or {}), **trial.params}
        trials = self._study.get_trials(deepcopy=False)
        queued = any(other.user_attrs.get("retry_of") == trial.number for other in trials)
        if not queued and params and set(params) == set(self.distributions):
            self._study.enqueue_trial(params, user_attrs={"retry_of": trial.number, "kills": kills})

    def is_lost(self, proposal: Proposal) -> bool:
        """Return whether another worker took this one for dead and recovered its trial."""
        return stored_state(self._study, proposal.trial) == TrialState.FAIL

    def finish(self, proposal: Proposal, outcome: Completed | Stopped) -> None:
        """Record the outcome of a trial: complete, stopped with an extrapolated metric, or without a metric."""
        trial, cost = proposal.trial, proposal.record.cost
        if stored_state(self._study, trial) != TrialState.RUNNING:
            return  # it was recorded before the storage went away
        trial.set_user_attr("record", trial_to_dict(dataclasses.replace(proposal.record, outcome=outcome)))
        metric = outcome.metric if isinstance(outcome, Completed) else outcome.extrapolated_metric
        if metric is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, [metric, cost.peak_memory_mib, cost.wall_time_s])

    def _recover(self, worker: Worker) -> None:
        """Fail the trials of dead workers, and enqueue their parameters again."""
        for trial in worker.abandoned():
            kills = trial.user_attrs.get("kills", 0) + 1
            again = kills < _MAX_KILLS
            if again:
                # before the trial fails: a kill between the two is recovered once more, and nothing is queued twice
                self.requeue(trial, kills)
            else:
                set_trial_attr(self._study, trial, "given_up", True)
            reason = "its process was killed" + ("" if again else f" {kills} times, so it is not tried again")
            self.fail(trial, reason)
            self._note(f"trial {trial.number} ended early: {reason}" + ("; it is tried again" if again else ""))

    def fail(self, trial: FrozenTrial, reason: str) -> None:
        """Fail a trial that is not finished, with a reason."""
        set_trial_attr(self._study, trial, "reason", reason)
        self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _propose(self, worker: Worker, trials: Sequence[FrozenTrial]) -> Proposal | None:
        """Make the next trial: a queued one, or the sampler's first proposal that fits and is new.

        Returns:
            None where the queued configuration has been trained already.
        """
        taken = self._configs.keys(trials, (*_FINISHED, TrialState.RUNNING))
        taken |= self._configs.keys([trial for trial in trials if "given_up" in trial.user_attrs], (TrialState.FAIL,))
        queued = self._configs.keys(trials, (TrialState.WAITING,))

        def gate(params: Mapping[str, Any]) -> str | None:
            config = self._space.config(params, self._layers)
            if (key := config_key(config)) in taken or key in queued:
                return "duplicate"
            _, cost = self._pricer.best(config, self._settings.goal)
            return None if cost.fits else cost.problems[0].partition(":")[0]

        inner = make_sampler(self._settings.sampler, self.distributions, self._price, self._settings.seed, len(trials))
        trial = self._ask(worker, GatedSampler(inner, self.distributions, gate))
        proposal = self._priced(trial, trials)
        if config_key(proposal.record.config) in taken:
            trial.set_user_attr("reason", "the same configuration was trained already")
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        return proposal

    def _ask(self, worker: Worker, sampler: GatedSampler) -> OptunaTrial:
        """Make a trial of this worker with the sampler's proposal."""
        self._study.sampler = sampler
        try:
            with warnings.catch_warnings():
                # Optuna expects heartbeats in its own loop only; liveness.py records them
                warnings.filterwarnings("ignore", "Heartbeat of storage")
                trial = self._study.ask(self.distributions)
        except NoFeasibleTrial as error:
            self._fail_unowned(sampler.refusals)
            raise NoFeasibleTrial(self._no_proposal_text(error, sampler.refusals)) from error
        trial.set_user_attr("worker", worker.name)
        worker.beat(trial)
        if sampler.refusals:
            trial.set_user_attr("rejected", dict(sampler.refusals))
        return trial

    def _priced(self, trial: OptunaTrial, trials: Sequence[FrozenTrial]) -> Proposal:
        """Price a trial under all plans, and store its record."""
        config = self._space.config(trial.params, self._layers)
        record, cost = priced_trial(self._pricer, self._settings.goal, trial.number, config)
        trial.set_user_attr("record", trial_to_dict(record))
        for name, excess in excess_of(cost, self._pricer).items():
            trial.set_constraint(name, excess)
        if not self._settings.racing:
            return Proposal(trial, record, None)
        race = Race.of(self._reader.records(trials), cost.peak_memory_mib, cost.wall_time_s)
        return Proposal(trial, record, Racer(race))

    def _fail_unowned(self, refusals: Mapping[str, int]) -> None:
        """Fail the trial that ``Study.ask`` had made before it raised, which has no worker yet."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs:
                set_trial_attr(self._study, trial, "rejected", dict(refusals))
                self.fail(trial, "no proposal could be trained")

    def _no_proposal_text(self, error: NoFeasibleTrial, refusals: Mapping[str, int]) -> str:
        """Return why no proposal was accepted, with a suggestion."""
        if "duplicate" in refusals:
            return (
                f"{error}; what fits has been trained already: ask for fewer `n_trials`, or search more with another "
                "`space` or without `fixed`"
            )
        return f"{error}; {nearest_fit(self._pricer, self._settings.goal, self._space, self._layers)}"
