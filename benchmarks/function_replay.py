"""Replay a search on a synthetic metric, in memory: proposals, prices and races are real, results are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from benchmarks.metric_functions import Array, Features, Kind, MetricFunction, draw_function
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import load_profile
from farsearch.floor import metric_floor
from farsearch.hypervolume import hypervolume
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.pareto import non_dominated
from farsearch.records import Completed, Cost, FarConfig, MetricPoint, PrimingReport, StepPlan, Trial
from farsearch.study.config_cache import config_key
from farsearch.study.pricing import KnownCosts
from farsearch.study.racing import Race
from farsearch.study.random_configs import draw_params
from farsearch.study.samplers import GatedSampler
from farsearch.study.sizes import size_of
from farsearch.study.space import load_space
from farsearch.study.store import DIRECTIONS
from farsearch.training import EVALUATION_SHARES, evaluation_rows

__all__ = ["TRIALS", "Ground", "MakeSampler", "Problem", "Replay", "replay"]

TRIALS = 60
_ROWS, _BATCH, _LENGTH = 2_048, 8, 64
_SAMPLE = 4_000
"""Configurations on which a function is scaled."""

MakeSampler = Callable[[int], BaseSampler]


class Ground:
    """The space with its prices, which all functions share.

    Prices are those of the ordinary plan: of 585 draws from the space it is the best for balanced goals in all.
    """

    def __init__(self, space: str = "wide", model: str = "minilm", device: str = "jetson-nano") -> None:
        config = load_config(resolve_model(model))
        lengths = np.random.default_rng(0).integers(5, _LENGTH, _ROWS).tolist()
        pricer = Pricer(
            config, Head(), _BATCH, _LENGTH, load_profile(device), lengths=lengths, seed=0,
            tables=shared_tables(config, Head()),
        )  # fmt: skip
        self.layers = pricer.layers
        self.space = load_space(space).for_model(self.layers, size_of(pricer.table(StepPlan()).parameters))
        self.distributions = self.space.distributions(self.layers)
        self._pricer = pricer
        self._priced: dict[tuple[Any, ...], tuple[float, float]] = {}
        self.primings: list[float] = sorted(self.distributions["priming_epochs"].choices)  # type: ignore[attr-defined]
        full = [pricer.price(full_fine_tuning(self.layers, epochs=epochs or 1.0)) for epochs in (0.0, *self.primings)]
        self.full = np.array([full[0].peak_memory_mib, full[0].wall_time_s])
        self.priming_s = {
            epochs: epochs and cost.wall_time_s for epochs, cost in zip(self.primings, full[1:], strict=True)
        }
        self.sample = self.features([self.config(params) for params in self._sample()])

    def config(self, params: Mapping[str, Any]) -> FarConfig:
        """Return the configuration of parameters."""
        return self.space.config(params, self.layers)

    def features(self, configs: Sequence[FarConfig]) -> Features:
        """Return configurations as numbers."""
        rate: Any = self.distributions["learning_rate"]
        return Features.of(configs, (rate.low, rate.high), self.primings)

    def price(self, params: Sequence[Mapping[str, Any]]) -> KnownCosts:
        """Return the costs of proposals; each is priced once for all searches, whatever its rate and priming."""
        keys = [self._key(each) for each in params]
        missing = {key: each for key, each in zip(keys, params, strict=True) if key not in self._priced}
        if missing:
            prices = self._pricer.price_many([self.config(each) for each in missing.values()])
            pairs = zip(prices.peak_memory_mib.tolist(), prices.wall_time_s.tolist(), strict=True)
            self._priced.update(zip(missing, pairs, strict=True))
        costs = np.array([self._priced[key] for key in keys]).reshape(-1, 2)
        primings = np.array([each["priming_epochs"] for each in params])
        fits = np.ones(len(params), dtype=np.bool_)
        return KnownCosts(costs[:, 0], costs[:, 1], fits, primings, np.array([self.priming_s[p] for p in primings]))

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params[name] for name in self.distributions if name not in ("learning_rate", "priming_epochs"))

    def _sample(self) -> list[dict[str, Any]]:
        """Draw configurations, half of which freeze all layers alike: independent draws leave out the extremes."""
        random = np.random.default_rng(0)
        drawn = draw_params(self.distributions, _SAMPLE, random)
        layers = [name for name in self.distributions if name.startswith("frozen_fraction")]
        for params in drawn[::2]:
            params.update(dict.fromkeys(layers, params[layers[0]]))
        return drawn


@dataclass(frozen=True)
class Problem:
    """A function on its ground.

    Attributes:
        reference: the metric floor, and 1.05 times the costs of full fine-tuning.
        seed: of the noise and of the samplers.
    """

    ground: Ground
    function: MetricFunction
    reference: Array
    seed: int

    @classmethod
    def draw(cls, ground: Ground, kind: Kind, seed: int) -> Problem:
        """Return the problem of a kind with that seed."""
        function = draw_function(kind, seed, ground.sample)
        best = float(function.metric(ground.sample)[~function.fails(ground.sample)].max())
        error = float(function.error(np.array([best]))[0])
        floor = metric_floor(best, error, function.constant)
        return cls(ground, function, np.array([floor, *(1.05 * ground.full)]), seed)

    def evaluation_s(self, rows: int) -> float:
        """Return the seconds of an evaluation: a forward pass takes a third of a training step."""
        return float(self.ground.full[1]) * rows / _ROWS / 3


@dataclass(frozen=True)
class Replay:
    """One search, after each of its trials, the starts included.

    Attributes:
        seconds: of training so far.
        scores: hypervolume of the true metrics of the front.
        best: true metric of the trial with the best measured one; -inf before the first metric.
        failed, stopped: trials so far without a metric, and those that the race stopped.
    """

    seconds: Sequence[float]
    scores: Sequence[float]
    best: Sequence[float]
    failed: Sequence[int]
    stopped: Sequence[int]

    def seconds_to(self, score: float) -> float:
        """Return the seconds until a score is reached; infinite if it never is."""
        return next((s for s, value in zip(self.seconds, self.scores, strict=True) if value >= score), math.inf)


class _Search:
    """A search in memory."""

    def __init__(self, problem: Problem, race: bool) -> None:
        self.problem, self.race = problem, race
        self.study = optuna.create_study(directions=list(DIRECTIONS))
        self.study.set_user_attr(
            "meta", {"constant_answer": {"validation": {"answer": "", "value": problem.function.constant}}}
        )
        self.known: set[str] = set()
        self.primed = {0.0}
        self.records: list[Trial[Completed]] = []
        self.true: list[float] = []
        self.seconds, self.failed, self.stopped = 0.0, 0, 0
        for params in problem.ground.space.starts(problem.ground.layers).values():
            self.study.enqueue_trial(params)

    def gate(self, params: Mapping[str, Any]) -> str | None:
        """Reject what was trained already."""
        return "duplicate" if config_key(self.problem.ground.config(params)) in self.known else None

    def run_trial(self, number: int, sampler: BaseSampler) -> None:
        """Propose, measure and record a trial."""
        ground, function = self.problem.ground, self.problem.function
        self.study.sampler = GatedSampler(sampler, ground.distributions, self.gate)
        trial = self.study.ask(ground.distributions)
        config, cost = ground.config(trial.params), ground.price([trial.params])
        self.known.add(config_key(config))
        features, noise = ground.features([config]), np.random.default_rng([self.problem.seed, number])
        self._prime(config.priming_epochs)
        time_s = float(cost.time_s[0])
        if function.fails(features)[0]:
            self.seconds += time_s * noise.uniform(0.1, 1.0)
            self.failed += 1
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        true = function.metric(features)
        points, forecast, spent = self._course(true, features, cost, noise)
        self.seconds += spent
        metric = float(true[0] + function.noise(true)[0] * noise.normal())
        error = float(function.error(np.array([metric]))[0])
        trial.set_user_attr("record", {"metric_error": error})
        self.study.tell(trial, [metric if forecast is None else forecast, *cost.both[0].tolist()])
        if forecast is None:
            self.true.append(float(true[0]))
            self.records.append(_record(number, config, cost.both[0], (metric, error), points))
        else:
            self.stopped += 1

    def _course(
        self, true: Array, features: Features, cost: KnownCosts, noise: np.random.Generator
    ) -> tuple[list[MetricPoint], float | None, float]:
        """Return the intermediate metrics, the prediction with which the race stopped the trial, and its seconds."""
        function, points, looked = self.problem.function, [], 0.0
        memory_mib, time_s = cost.both[0].tolist()
        race = Race.of(self.records, memory_mib, time_s)
        rows = evaluation_rows(_ROWS)
        for share in EVALUATION_SHARES if self.race else ():
            looked += self.problem.evaluation_s(rows)
            partial = function.intermediate(true, features, share)
            value = float(partial[0] + function.noise(partial, rows)[0] * noise.normal())
            points.append(MetricPoint(share, int(share * _ROWS / _BATCH), value))
            forecast = race.forecast(points[-1])
            if forecast is not None and forecast.stop:
                return points, forecast.expected, share * time_s + looked
        return points, None, time_s + looked + self.problem.evaluation_s(function.rows)

    def _prime(self, epochs: float) -> None:
        """Count the seconds of a new priming, which continues the longest shorter one."""
        seconds = self.problem.ground.priming_s
        self.seconds += max(0.0, seconds[epochs] - max(seconds[each] for each in self.primed if each <= epochs))
        self.primed.add(epochs)

    def front(self) -> list[int]:
        """Return the indices of the records that the search would offer: non-dominated, above the floor."""
        if not self.records:
            return []
        results = [record.outcome for record in self.records]
        best = max(results, key=lambda result: result.metric)
        floor = metric_floor(best.metric, best.metric_error, self.problem.function.constant)
        points = [(-r.outcome.metric, r.cost.peak_memory_mib, r.cost.wall_time_s) for r in self.records]
        return [i for i in non_dominated(points).tolist() if results[i].metric > floor]

    def score(self) -> float:
        """Return the hypervolume of the true metrics of the front."""
        front = self.front()
        costs = [(self.records[i].cost.peak_memory_mib, self.records[i].cost.wall_time_s) for i in front]
        metric = np.array([self.true[i] for i in front])
        return hypervolume(metric, np.array(costs).reshape(-1, 2), self.problem.reference)

    def best(self) -> float:
        """Return the true metric of the trial with the best measured one."""
        metrics = [record.outcome.metric for record in self.records]
        return self.true[int(np.argmax(metrics))] if metrics else -math.inf


def _record(
    number: int, config: FarConfig, costs: Array, measured: tuple[float, float], points: Sequence[MetricPoint]
) -> Trial[Completed]:
    """Return a complete trial with the values that a race and a front need."""
    cost = Cost(
        peak_memory_mib=float(costs[0]), peak_memory_range_mib=None, wall_time_s=float(costs[1]),
        wall_time_range_s=None, energy_j=None, feasible=True, memory={}, time={}, trainable=0,
    )  # fmt: skip
    result = Completed(
        metric=measured[0], metric_error=measured[1], learned=None, dev_metric=measured[0], parts={}, host_seconds=0.0,
        host_peak_mib=0.0, trainable=0, priming=PrimingReport(0, 0.0, False, 0.0, None, None), curve=(),
        looks=tuple(points),
    )  # fmt: skip
    return Trial(number=number, config=config, plan=StepPlan(), cost=cost, outcome=result)


def replay(problem: Problem, make: MakeSampler, trials: int = TRIALS, *, race: bool = False) -> Replay:
    """Search a problem.

    Args:
        make: the sampler of the trial of that number.
    """
    search = _Search(problem, race)
    courses: tuple[list[Any], ...] = ([], [], [], [], [])
    for number in range(trials):
        search.run_trial(number, make(number))
        after = (search.seconds, search.score(), search.best(), search.failed, search.stopped)
        for course, value in zip(courses, after, strict=True):
            course.append(value)
    return Replay(*courses)
