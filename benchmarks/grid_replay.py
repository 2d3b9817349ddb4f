"""Replay a search over a recorded grid: a sampler proposes cells, and gets their recorded results."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from benchmarks.grid_record import GRIDS, read_lines, table_path
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import load_profile
from farsearch.errors import NoFeasibleTrial
from farsearch.hypervolume import hypervolume
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.pareto import non_dominated
from farsearch.records import Completed, Cost, FarConfig, MetricPoint, PrimingReport, StepPlan, Trial
from farsearch.study.pricing import KnownCosts
from farsearch.study.racing import Forecast, Race
from farsearch.study.samplers import GatedSampler
from farsearch.study.store import DIRECTIONS
from farsearch.tasks.metrics import score
from farsearch.training import EVALUATION_SHARES, evaluation_rows

__all__ = ["Cell", "Replay", "Table", "replay"]

Array = NDArray[np.float64]
MakeSampler = Callable[[int], optuna.samplers.BaseSampler]

_ORDERED = ("frozen_fraction", "learning_rate", "priming_epochs")


@dataclass(frozen=True)
class CellLook:
    """An intermediate evaluation of a recorded training, ``after`` seconds of training, which took ``seconds``."""

    point: MetricPoint
    after: float
    seconds: float


@dataclass(frozen=True)
class Cell:
    """A recorded training.

    Attributes:
        params: Optuna's, numbers of the grid's values but for the frozen part.
        seconds: of training and evaluation, without looks.
    """

    params: Mapping[str, Any]
    priming_epochs: float
    metric: float
    metric_error: float
    memory_mib: float
    time_s: float
    seconds: float
    looks: tuple[CellLook, ...]

    def record(self, number: int) -> Trial[Completed]:
        """Return the complete trial of the training, with the values that a race needs."""
        cost = Cost(
            peak_memory_mib=self.memory_mib, peak_memory_range_mib=None, wall_time_s=self.time_s,
            wall_time_range_s=None, energy_j=None, feasible=True, memory={}, time={}, trainable=0,
        )  # fmt: skip
        result = Completed(
            metric=self.metric, metric_error=self.metric_error, learned=None, dev_metric=self.metric, parts={},
            host_seconds=self.seconds, host_peak_mib=0.0, trainable=0,
            priming=PrimingReport(0, 0.0, False, 0.0, None, None), curve=(),
            looks=tuple(look.point for look in self.looks),
        )  # fmt: skip
        return Trial(number=number, config=full_fine_tuning(1), plan=StepPlan(), cost=cost, outcome=result)


class Table:
    """A recorded grid of one task with the costs of its cells on its device."""

    def __init__(self, task: str) -> None:
        head, *lines = read_lines(table_path(task))
        self.task, self.metric, self.grid = task, str(head["metric"]), GRIDS[task]
        self.primings = {float(epochs): float(line["seconds"]) for epochs, line in head["primings"].items()}
        self.layers = 6
        configs = [self.grid.config(line["cell"], self.layers) for line in lines]
        model = load_config(resolve_model(head["job"]["model"]))
        self.pricer = Pricer(
            model, Head(), self.grid.batch_size, int(head["job"]["max_length"]), load_profile(head["device"]),
            lengths=head["lengths"], seed=int(head["job"]["seed"]), tables=shared_tables(model, Head()),
        )  # fmt: skip
        self.layers = self.pricer.layers
        full = full_fine_tuning(self.layers, epochs=self.grid.epochs)
        costs = [self._cost(config) for config in [*configs, full]]
        self.full_cost = np.array(costs[-1])
        labels = [int(label) for label in head["labels"]]
        self.constant = max(score(self.metric, [label] * len(labels), labels).value for label in set(labels))
        self.cells = [self._cell(line, cost, labels) for line, cost in zip(lines, costs, strict=False)]
        self.by_params = {_key(cell.params): cell for cell in self.cells}

    def without_a_tenth(self, seed: int) -> Table:
        """Return the table without a tenth of its cells, drawn by ``seed``; baselines stay."""
        draw = np.random.default_rng(seed)
        starts = {_key(cell.params) for cell in self.starts}
        kept = [cell for cell in self.cells if _key(cell.params) in starts or draw.random() >= 0.1]
        part = copy.copy(self)
        part.cells, part.by_params = kept, {_key(cell.params): cell for cell in kept}
        return part

    def _cost(self, config: FarConfig) -> tuple[float, float]:
        _, cost = self.pricer.best(config, "balanced")
        return cost.peak_memory_mib, cost.wall_time_s

    def _cell(self, line: Mapping[str, Any], cost: tuple[float, float], labels: Sequence[int]) -> Cell:
        looks, spent = [], 0.0
        rows = evaluation_rows(self.grid.epochs * self.grid.train_samples)
        for look in line["looks"]:
            # the record has more than a search evaluates
            if look["share"] in EVALUATION_SHARES:
                predicted = [int(label) for label in look["predictions"]][:rows]
                value = score(self.metric, predicted, list(labels[: len(predicted)])).value
                point = MetricPoint(float(look["share"]), int(look["step"]), value)
                seconds = float(look["seconds"]) * len(predicted) / len(look["predictions"])
                looks.append(CellLook(point, float(look["at"]) - spent, seconds))
            spent += float(look["seconds"])
        cell = line["cell"]
        params = {name: list(getattr(self.grid, name)).index(cell[name]) for name in _ORDERED}
        return Cell(
            params={**params, "frozen_part": cell["frozen_part"]},
            priming_epochs=float(cell["priming_epochs"]),
            metric=float(line["metric"]),
            metric_error=float(line["metric_error"]),
            memory_mib=cost[0],
            time_s=cost[1],
            seconds=float(line["seconds"]) - spent,
            looks=tuple(looks),
        )

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Return a cell as parameters of a sampler: indices of ordered values, and names of frozen parts."""
        space: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(getattr(self.grid, name)) - 1) for name in _ORDERED
        }
        return {**space, "frozen_part": CategoricalDistribution(self.grid.frozen_part)}

    def price(self, params: Sequence[Mapping[str, Any]]) -> KnownCosts:
        """Return the costs of cells; a missing cell does not fit."""
        matches = [self.by_params.get(_key(each)) for each in params]
        epochs = np.array([self.grid.priming_epochs[each["priming_epochs"]] for each in params])
        return KnownCosts(
            np.array([0.0 if cell is None else cell.memory_mib for cell in matches]),
            np.array([1.0 if cell is None else cell.time_s for cell in matches]),
            np.array([cell is not None for cell in matches]),
            epochs,
            self.full_cost[1] * epochs / self.grid.epochs,
        )

    @cached_property
    def starts(self) -> list[Cell]:
        """The first trials of a search: full fine-tuning, FAR r = 10 % primed longest, FFNs and embeddings frozen."""
        rates, longest = self.grid.learning_rate, len(self.grid.priming_epochs) - 1
        wanted = [(0.0, 1e-4, 0, "nothing"), (0.9, min(2e-4, rates[-1]), longest, "nothing"),
                  (1.0, min(2e-4, rates[-1]), 0, "embeddings")]  # fmt: skip
        params = [
            {
                "frozen_fraction": self.grid.frozen_fraction.index(fraction),
                "learning_rate": rates.index(rate),
                "priming_epochs": priming,
                "frozen_part": part,
            }
            for fraction, rate, priming, part in wanted
        ]
        return [self.by_params[_key(each)] for each in params if _key(each) in self.by_params]

    @cached_property
    def reference(self) -> Array:
        """The cheapest baseline's metric, and 1.05 times what full fine-tuning costs."""
        cheapest = min(self.starts, key=lambda cell: (cell.memory_mib, cell.time_s))
        return np.array([cheapest.metric, *(1.05 * self.full_cost)])

    @cached_property
    def front(self) -> list[Cell]:
        """The non-dominated cells whose metric is above the reference's."""
        front = non_dominated([(-cell.metric, cell.memory_mib, cell.time_s) for cell in self.cells])
        return [self.cells[i] for i in sorted(front) if self.cells[i].metric > self.reference[0]]

    def hypervolume(self, cells: Sequence[Cell]) -> float:
        """Return the hypervolume of cells."""
        metric = np.array([cell.metric for cell in cells])
        costs = np.array([(cell.memory_mib, cell.time_s) for cell in cells]).reshape(-1, 2)
        return hypervolume(metric, costs, self.reference)


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)


@dataclass(frozen=True)
class Replay:
    """One search.

    Attributes:
        seconds, scores: after each trial that followed the baselines.
        trials: all of them. stopped: those that a race ended early; wrongly: of these, would have been on the front.
    """

    seconds: Sequence[float]
    scores: Sequence[float]
    trials: int
    stopped: int
    wrongly: int

    def trials_to(self, score: float) -> float:
        """Return the trials after the baselines until a score is reached."""
        return next((i for i, value in enumerate(self.scores, 1) if value >= score), math.inf)

    def seconds_to(self, score: float) -> float:
        """Return the seconds until a score is reached; infinite if it never is."""
        return next((s for s, value in zip(self.seconds, self.scores, strict=True) if value >= score), math.inf)

    def score_at(self, seconds: float) -> float:
        """Return the score after ``seconds``."""
        return max((v for s, v in zip(self.seconds, self.scores, strict=True) if s <= seconds), default=0.0)


def replay(
    table: Table, make: MakeSampler, race: bool = False, stop_at: float = 1.0, least_seconds: float = 0.0
) -> Replay:
    """A search, until ``stop_at`` of the gap is closed and ``least_seconds`` are spent, or no new cell is proposed.

    Args:
        make: the sampler of the trial of that number.
    """
    study = optuna.create_study(directions=list(DIRECTIONS))
    study.set_user_attr("meta", {"constant_answer": {"validation": {"answer": "", "value": table.constant}}})
    known: set[str] = set()
    records: list[Trial[Completed]] = []
    ended: list[Cell] = []
    primed: set[float] = set()
    spent, seconds, scores, wrongly = 0.0, [], [], 0
    for cell in table.starts:
        study.enqueue_trial(dict(cell.params))
    lowest = table.hypervolume(table.starts)
    gap = table.hypervolume(table.cells) - lowest

    def gate(params: Mapping[str, Any]) -> str | None:
        key = _key(params)
        return "missing" if key not in table.by_params else "duplicate" if key in known else None

    for number in range(len(table.cells)):
        study.sampler = GatedSampler(make(number), table.space, gate)
        try:
            trial = study.ask(table.space)
        except NoFeasibleTrial:
            break
        cell = table.by_params[_key(trial.params)]
        known.add(_key(trial.params))
        verdict, took = _raced(cell, records) if race and number >= len(table.starts) else (None, cell.seconds)
        trial.set_user_attr("record", {"metric_error": cell.metric_error})
        study.tell(trial, [verdict.expected if verdict else cell.metric, cell.memory_mib, cell.time_s])
        if verdict is None:
            records.append(cell.record(number))
            ended.append(cell)
        else:
            wrongly += table.hypervolume([*ended, cell]) > table.hypervolume(ended)
        if number >= len(table.starts):
            spent += took + _priming_seconds(table, cell.priming_epochs, primed)
            seconds.append(spent)
            scores.append((table.hypervolume(ended) - lowest) / gap)
        primed.add(cell.priming_epochs)
        if scores and scores[-1] >= stop_at and spent >= least_seconds:
            break
    return Replay(seconds, scores, len(known), len(known) - len(ended), wrongly)


def _raced(cell: Cell, records: Sequence[Trial[Completed]]) -> tuple[Forecast | None, float]:
    """Return the verdict that stopped a training, if any, and the seconds of training and evaluations."""
    race = Race.of(records, cell.memory_mib, cell.time_s)
    looked = 0.0
    for look in cell.looks:
        looked += look.seconds
        verdict = race.forecast(look.point)
        if verdict is not None and verdict.stop:
            return verdict, look.after + looked
    return None, cell.seconds + looked


def _priming_seconds(table: Table, epochs: float, primed: set[float]) -> float:
    """Seconds of a new priming, which continues the longest shorter one."""
    if epochs == 0 or epochs in primed:
        return 0.0
    before = max((other for other in primed if other < epochs), default=0.0)
    return sum(seconds for length, seconds in table.primings.items() if before < length <= epochs)
