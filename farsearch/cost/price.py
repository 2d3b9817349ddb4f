"""What a configuration costs on a device: the price of a job, from look-up tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import nn

from farsearch.cost.direct import trace_prepared
from farsearch.cost.memory import MemoryAccount, memory_account
from farsearch.cost.plans import Goal, exact_plans
from farsearch.cost.seconds import step_seconds
from farsearch.cost.table import Composed, StepTable
from farsearch.devices.profile import Profile
from farsearch.far.batches import phase_batches
from farsearch.far.execution import rows_at_once
from farsearch.far.layout import ModelLayout
from farsearch.records import FarConfig, StepPlan

__all__ = ["Cost", "Pricer", "TableKey", "best_of", "full_fine_tuning", "priming_plan"]


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one configuration on one device. Units are in the names.

    Attributes:
        memory: breakdown of ``tensor_peak_mib`` at its worst moment.
        time: breakdown of ``wall_time_s`` by operation class; ``priming`` is the whole priming on the device.
        step_time_s: one step of the FAR phase at full length.
        trainable: parameters with a gradient in the FAR phase.
        problems: why it is not feasible, in words a user can act on; empty when it is.
    """

    tensor_peak_mib: float
    peak_memory_mib: float
    peak_memory_range_mib: tuple[float, float]
    available_range_mib: tuple[float, float]
    step_time_s: float
    wall_time_s: float
    wall_time_range_s: tuple[float, float]
    energy_j: float | None
    memory: Mapping[str, float]
    time: Mapping[str, float]
    trainable: int
    problems: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """The high end of the peak is at most the low end of what the device has, and every bound is kept."""
        return not self.problems


def full_fine_tuning(layers: int, learning_rate: float = 5e-5, epochs: float = 1.0) -> FarConfig:
    """Plain fine-tuning of all parameters, as a configuration."""
    return FarConfig((0.0,) * layers, learning_rate, epochs)


def priming_plan(optimizer: Any, batch_size: int) -> StepPlan:
    """How priming is executed on a device: in micro-batches of a quarter batch, so that its peak stays low."""
    return StepPlan(optimizer=optimizer, micro_batch_size=max(1, batch_size // 4))


_SCORES: Mapping[Goal, Callable[[Cost], tuple[float, ...]]] = {
    "memory": lambda cost: (cost.peak_memory_mib, cost.wall_time_s),
    "time": lambda cost: (cost.wall_time_s, cost.peak_memory_mib),
    "balanced": lambda cost: (cost.peak_memory_mib * cost.wall_time_s,),
}

TableKey = tuple[int, StepPlan, int | None]
"""Rows at once, the plan as far as a trace depends on it, and the rows of a portion."""


def _traced_as(plan: StepPlan) -> StepPlan:
    """The plan as far as the trace of forward and backward pass depends on it."""
    if plan.optimizer_step == "backward":
        return plan
    return dataclasses.replace(plan, micro_batch_size=None, optimizer="adamw", optimizer_kernel="loop")


def best_of(priced: Sequence[tuple[StepPlan, Cost]], goal: Goal) -> tuple[StepPlan, Cost]:
    """The plan that serves a goal best, among those with which the configuration fits.

    Where none fits it is the one of the least peak, for that is what would have to shrink.
    """
    fitting = [pair for pair in priced if pair[1].fits]
    score = _SCORES[goal if fitting else "memory"]
    return min(fitting or priced, key=lambda pair: score(pair[1]))


class Pricer:
    """Prices configurations of one job on one device.

    Args:
        model_config: transformers configuration of the model.
        classes: size of its head.
        batch_size: rows of an optimizer step.
        max_length: tokens at which peak memory is priced: a promise must hold for the longest text.
        lengths: tokens of each training row, from which the batches as really padded follow; None prices one
            epoch of a single step at ``max_length``.
        seed: of the batches' order.
        profile: the device.
        prime_on_device: priming runs on the device too, with ``priming_plan``'s micro-batches.
        priming_optimizer: ``adamw`` or ``sgd``.
        max_memory_mib, max_time_s: bounds beside the device's own.
        device_samples: rows that the device trains on; None for the rows of ``lengths``.
        tables: look-up tables, filled as they are needed. Pricers of one model and classes can share
            them: they depend on neither profile nor lengths.
    """

    def __init__(
        self,
        model_config: Any,
        classes: int,
        batch_size: int,
        max_length: int,
        profile: Profile,
        *,
        lengths: Sequence[int] | None = None,
        seed: int = 0,
        prime_on_device: bool = False,
        priming_optimizer: str = "adamw",
        max_memory_mib: float | None = None,
        max_time_s: float | None = None,
        device_samples: int | None = None,
        tables: MutableMapping[TableKey, StepTable] | None = None,
    ) -> None:
        self.profile = profile
        self.batch_size, self.max_length = batch_size, max_length
        self.max_memory_mib, self.max_time_s = max_memory_mib, max_time_s
        self.prime_on_device, self.priming_optimizer = prime_on_device, priming_optimizer
        self._lengths = None if lengths is None else [min(length, max_length) for length in lengths]
        self._scale = 1.0 if device_samples is None or lengths is None else device_samples / len(lengths)
        self._seed = seed
        self._model = (model_config, classes)
        self._tables = {} if tables is None else tables
        self._steps_by_epochs = lru_cache(maxsize=64)(self._padded_lengths)

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return self.table(StepPlan()).layers

    def _executed(self, plan: StepPlan) -> StepPlan:
        """The plan as the training loop executes it: a part of the whole batch or more is no part."""
        whole = plan.micro_batch_size is not None and plan.micro_batch_size >= self.batch_size
        return dataclasses.replace(plan, micro_batch_size=None) if whole else plan

    def table(self, plan: StepPlan) -> StepTable:
        """The look-up table of a plan.

        It works in portions as at the full length. Shorter rows are worked on in fewer portions, so their time is
        priced with some launches too many.
        """
        rows = min(self.batch_size, plan.micro_batch_size or self.batch_size)
        whole = plan.feed_forward == plan.attention == "modules"
        chunk = None if whole else min(rows, rows_at_once((rows, self.max_length, 0)))
        key = (rows, _traced_as(plan), chunk)
        if key not in self._tables:
            self._tables[key] = StepTable(*self._model, rows, key[1], chunk)
        return self._tables[key]

    def _padded_lengths(self, epochs: float) -> Counter[int]:
        """Steps of ``epochs`` epochs by the length that their batch is padded to."""
        if self._lengths is None:
            return Counter({self.max_length: 1})
        batches = phase_batches(self._lengths, self.batch_size, epochs, self._seed)
        return Counter(max(self._lengths[row] for row in batch) for batch in batches)

    def price(self, config: FarConfig, plan: StepPlan | None = None) -> Cost:
        """The cost of one configuration under one plan."""
        plan = self._executed(plan or StepPlan())
        table = self.table(plan)
        step = table.compose(config)
        account = memory_account(table.static_bytes(config), step, self.max_length, plan, self.profile)
        time, step_time = self._seconds(step, plan, config.epochs)
        if self.prime_on_device and config.priming_epochs > 0:
            full = full_fine_tuning(table.layers)
            priming = self._executed(priming_plan(self.priming_optimizer, self.batch_size))
            primed = self.table(priming)
            whole = primed.compose(full)
            other = memory_account(primed.static_bytes(full), whole, self.max_length, priming, self.profile)
            account = max(account, other, key=lambda a: a.tensor_peak_mib)
            time["priming"] = sum(self._seconds(whole, priming, config.priming_epochs)[0].values())
        return self._cost(account, time, step_time, round(step.trained.sum()))

    def _seconds(self, step: Composed, plan: StepPlan, epochs: float) -> tuple[dict[str, float], float]:
        """Seconds of a phase by operation class, and of one step at full length."""
        counts = self._steps_by_epochs(epochs)
        lengths = np.array([*counts, self.max_length], dtype=np.float64)
        steps = np.array([*counts.values(), 0], dtype=np.float64) * self._scale
        each = step_seconds(step, lengths, plan, self.batch_size, self.profile)
        totals = {kind: float(seconds @ steps) for kind, seconds in each.items()}
        return totals, float(sum(seconds[-1] for seconds in each.values()))

    def price_prepared(self, prepare: Callable[[nn.Module, ModelLayout], None], epochs: float) -> Cost:
        """The cost of training any model: one that ``prepare`` has changed, with gradients where it left them.

        Its modules are executed as they are, with AdamW.
        """
        plan, traced = StepPlan(), trace_prepared(*self._model, self.batch_size, prepare)
        account = memory_account(traced.static_bytes, traced.step, self.max_length, plan, self.profile)
        time, step_time = self._seconds(traced.step, plan, epochs)
        return self._cost(account, time, step_time, round(traced.step.trained.sum()))

    def all_plans(self, config: FarConfig) -> list[tuple[StepPlan, Cost]]:
        """The cost of one configuration under every exact plan of the device."""
        return [(plan, self.price(config, plan)) for plan in exact_plans(self.profile)]

    def best(self, config: FarConfig, goal: Goal) -> tuple[StepPlan, Cost]:
        """The exact plan that serves a goal best, and its cost."""
        return best_of(self.all_plans(config), goal)

    def _cost(self, account: MemoryAccount, time: dict[str, float], step_time: float, trainable: int) -> Cost:
        profile = self.profile
        process, factor = profile.process_mib, profile.time_factor
        tensors, wall = account.tensor_peak_mib, sum(time.values())
        peak_range = (tensors + process.low, tensors + process.high)
        cost = Cost(
            tensor_peak_mib=tensors,
            peak_memory_mib=tensors + process.value,
            peak_memory_range_mib=peak_range,
            available_range_mib=profile.available_mib,
            step_time_s=step_time,
            wall_time_s=wall,
            wall_time_range_s=(wall * factor.low / factor.value, wall * factor.high / factor.value),
            energy_j=None if profile.power_w is None else profile.power_w.value * wall,
            memory=account.breakdown(),
            time=time,
            trainable=trainable,
            problems=(),
        )
        return dataclasses.replace(cost, problems=tuple(self._problems(cost)))

    def _problems(self, cost: Cost) -> list[str]:
        problems = []
        need, have = cost.peak_memory_range_mib[1], cost.available_range_mib[0]
        if need > have:
            problems.append(f"memory: up to {need:.0f} MiB, {self.profile.name} surely has {have:.0f} MiB")
        if self.max_memory_mib is not None and cost.peak_memory_mib > self.max_memory_mib:
            problems.append(f"max-memory: {cost.peak_memory_mib:.0f} MiB, allowed are {self.max_memory_mib:.0f} MiB")
        if self.max_time_s is not None and cost.wall_time_s > self.max_time_s:
            problems.append(f"max-time: {cost.wall_time_s:.0f} s, allowed are {self.max_time_s:.0f} s")
        return problems
