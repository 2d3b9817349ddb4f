"""What a configuration costs on a device: the price of a job, from look-up tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from farsearch.cost.plans import exact_plans, ordinary_plan
from farsearch.cost.segment_costs import LookUp, Passes, Phase
from farsearch.cost.segments import Array, Composed
from farsearch.cost.software import Software, software_of
from farsearch.cost.traced_model import StepTable
from farsearch.cost.whole_model import trace_prepared
from farsearch.devices.profile import Profile
from farsearch.far.batches import phase_batches
from farsearch.far.display import shown_seconds
from farsearch.far.execution import rows_at_once
from farsearch.far.layout import ModelLayout
from farsearch.goals import Goal, best_plan
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan

__all__ = [
    "Cost",
    "Pricer",
    "Prices",
    "TableKey",
    "best_of",
    "full_fine_tuning",
    "priming_plan",
    "shared_tables",
]


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


@dataclass(frozen=True)
class Prices:
    """Predicted costs of many configurations on one device under one plan, ``[configurations]`` each.

    Attributes:
        memory, time: by category. fits: as ``Cost.fits``. The others are ``Cost``'s.
    """

    tensor_peak_mib: Array
    peak_memory_mib: Array
    peak_memory_range_mib: tuple[Array, Array]
    step_time_s: Array
    wall_time_s: Array
    wall_time_range_s: tuple[Array, Array]
    energy_j: Array | None
    memory: Mapping[str, Array]
    time: Mapping[str, Array]
    trainable: NDArray[np.int64]
    fits: NDArray[np.bool_]


def full_fine_tuning(layers: int, learning_rate: float = 5e-5, epochs: float = 1.0) -> FarConfig:
    """Plain fine-tuning of all parameters, as a configuration."""
    return FarConfig((0.0,) * layers, learning_rate, epochs)


def priming_plan(optimizer: Any, batch_size: int) -> StepPlan:
    """How priming is executed on a device: in micro-batches of a quarter batch, so that its peak stays low."""
    return StepPlan(optimizer=optimizer, micro_batch_size=max(1, batch_size // 4))


TableKey = tuple[int, StepPlan, int | None, Software]
"""Rows at once, the plan as far as a trace depends on it, the rows of a portion, and the device's software likewise."""


def _traced_as(plan: StepPlan, micro_batch_size: int | None = None) -> StepPlan:
    """The plan as far as the trace of forward and backward pass depends on it: not by its optimizer."""
    return dataclasses.replace(
        plan, micro_batch_size=micro_batch_size, optimizer="adamw", optimizer_kernel="loop", optimizer_step="end"
    )


def best_of(priced: Sequence[tuple[StepPlan, Cost]], goal: Goal) -> tuple[StepPlan, Cost]:
    """The plan that serves a goal best, as ``best_plan`` chooses it, and its cost."""
    costs = [cost for _, cost in priced]
    best = best_plan(
        [cost.peak_memory_mib for cost in costs],
        [cost.wall_time_s for cost in costs],
        [cost.fits for cost in costs],
        goal,
    )
    return priced[int(best)]


def shared_tables(config: Any, head: Head) -> dict[TableKey, StepTable]:
    """The look-up tables of a model, traced once a process, whatever job or device they are asked for."""
    return _tables(config.to_json_string(use_diff=False), head)


@lru_cache(maxsize=16)
def _tables(_config: str, _head: Head) -> dict[TableKey, StepTable]:
    return {}


class Pricer:
    """Prices configurations of one job on one device.

    Args:
        model_config: transformers configuration of the model.
        head: what stands on it.
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
        tables: look-up tables, filled as they are needed. Pricers of one model and head can share
            them: they depend on neither lengths nor, but for its software, the profile.
    """

    def __init__(
        self,
        model_config: Any,
        head: Head,
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
        self._model = (model_config, head)
        self._tables = {} if tables is None else tables
        self._look_ups: dict[StepPlan, LookUp] = {}
        self._steps = lru_cache(maxsize=64)(self._padded_lengths)
        self._passes = Passes(profile, self._steps)

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return self.table(StepPlan()).layers

    @property
    def plans(self) -> list[StepPlan]:
        """The exact plans of the device that the model can be executed by."""
        return exact_plans(self.profile, layout_of(self._model[0]))

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
        key = (rows, _traced_as(plan), chunk, software_of(self.profile, self.max_length))
        if key not in self._tables:
            self._tables[key] = StepTable(*self._model, rows, key[1], chunk, key[3])
        return self._tables[key]

    def _padded_lengths(self, phase: Phase) -> Mapping[int, float]:
        """Steps of a phase by the length that their batch is padded to."""
        if phase is None or self._lengths is None:
            return {self.max_length: 1.0}
        batches = phase_batches(self._lengths, self.batch_size, phase, self._seed)
        counts = Counter(max(self._lengths[row] for row in batch) for batch in batches)
        return {length: count * self._scale for length, count in counts.items()}

    def price(self, config: FarConfig, plan: StepPlan | None = None) -> Cost:
        """The cost of one configuration under one plan; None for ``ordinary_plan``."""
        return self._cost(self.price_many([config], plan))

    def price_many(self, configs: Sequence[FarConfig], plan: StepPlan | None = None) -> Prices:
        """The costs of at least one configuration under one plan, in their order; None for ``ordinary_plan``.

        All are added up at once from what the tables know of their layers: ten thousand take about a second.

        Raises:
            BadInput: for a configuration of another number of layers than the model.
        """
        return self.price_plans(configs, [plan or ordinary_plan(self.profile)])[0]

    def price_plans(self, configs: Sequence[FarConfig], plans: Sequence[StepPlan]) -> list[Prices]:
        """Likewise under each of ``plans``; those that differ in their optimizer alone share most of the work."""
        epochs, single = [config.epochs for config in configs], [None] * len(configs)
        priming = np.array([config.priming_epochs for config in configs])
        shared: dict[StepPlan, tuple[Composed, Composed | None, Array, Array]] = {}
        found = []
        for plan in map(self._executed, plans):
            look_up, key = self._look_up(plan), _traced_as(plan, plan.micro_batch_size)
            if key not in shared:
                step, rest = self.table(plan).compose(configs), self._rest(plan, configs)
                passes, one_pass = (self._pass_seconds(plan, step, rest, phases) for phases in (epochs, single))
                shared[key] = step, rest, passes, one_pass
            step, rest, passes, one_pass = shared[key]
            memory, time = self._memory(plan, step, rest), look_up.seconds(step, epochs, passes)
            step_time = _total(look_up.seconds(step, single, one_pass))
            if self.prime_on_device and priming.any():
                memory, time = self._with_priming(priming, memory, time)
            found.append(self._prices(memory, time, step_time, look_up.elements(step)))
        return found

    def _rest(self, plan: StepPlan, configs: Sequence[FarConfig]) -> Composed | None:
        """The steps of the rows that are left when a batch is cut into micro-batches; None where none are."""
        rows = 0 if plan.micro_batch_size is None else self.batch_size % plan.micro_batch_size
        return self.table(dataclasses.replace(plan, micro_batch_size=rows)).compose(configs) if rows else None

    def _memory(self, plan: StepPlan, step: Composed, rest: Composed | None) -> dict[str, Array]:
        """The worst moment: of the second part, upon the gradients of the first, where that is as large."""
        rows = plan.micro_batch_size
        if rest is None or rows is None or self.batch_size > 2 * rows:
            return self._look_up(plan).memory(step).breakdown()
        first = self._look_up(dataclasses.replace(plan, micro_batch_size=None))
        return _worse(first.memory(step).breakdown(), self._look_up(plan).memory(rest).breakdown())

    def _pass_seconds(self, plan: StepPlan, step: Composed, rest: Composed | None, phases: Sequence[Phase]) -> Array:
        """Seconds of forward and backward pass of whole batches, in their parts: ``[configurations, CATEGORIES]``."""
        parts = 1 if plan.micro_batch_size is None else self.batch_size // plan.micro_batch_size
        seconds = self._passes.of_segments(step, phases) * parts
        return seconds if rest is None else seconds + self._passes.of_segments(rest, phases)

    def _look_up(self, plan: StepPlan) -> LookUp:
        if plan not in self._look_ups:
            self._look_ups[plan] = LookUp(
                plan, self.profile, self.batch_size, self.max_length, self._steps, self._passes
            )
        return self._look_ups[plan]

    def _with_priming(
        self, priming: Array, memory: dict[str, Array], time: dict[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The worse moment of priming and FAR phase, and the time of both; ``priming`` are epochs, 0 for none."""
        plan = self._executed(priming_plan(self.priming_optimizer, self.batch_size))
        table, look_up = self.table(plan), self._look_up(plan)
        epochs, which = np.unique(priming[priming > 0], return_inverse=True)
        configs = [full_fine_tuning(table.layers)] * len(epochs)
        step, rest = table.compose(configs), self._rest(plan, configs)
        seconds = np.zeros(len(priming))
        passes = self._pass_seconds(plan, step, rest, epochs.tolist())
        seconds[priming > 0] = _total(look_up.seconds(step, epochs.tolist(), passes))[which]
        other = {name: values[:1] for name, values in self._memory(plan, step, rest).items()}
        return _worse(memory, other, priming > 0), {**time, "priming": seconds}

    def price_prepared(self, prepare: Callable[[nn.Module, ModelLayout], None], epochs: float) -> Cost:
        """The cost of training any model: one that ``prepare`` has changed, with gradients where it left them.

        Its modules are executed as they are, with ``ordinary_plan``'s optimizer.
        """
        step = trace_prepared(*self._model, self.batch_size, prepare, software_of(self.profile, self.max_length))
        # not the look-up of the plan: no other configuration has a segment of this model
        passes = Passes(self.profile, self._steps)
        plan = ordinary_plan(self.profile)
        look_up = LookUp(plan, self.profile, self.batch_size, self.max_length, self._steps, passes)
        memory, time = (
            look_up.memory(step).breakdown(),
            look_up.seconds(step, [epochs], passes.of_segments(step, [epochs])),
        )
        step_time = _total(look_up.seconds(step, [None], passes.of_segments(step, [None])))
        return self._cost(self._prices(memory, time, step_time, look_up.elements(step)))

    def all_plans(self, config: FarConfig) -> list[tuple[StepPlan, Cost]]:
        """The cost of one configuration under every exact plan of the device."""
        return self.priced(config, self.plans)

    def priced(self, config: FarConfig, plans: Sequence[StepPlan]) -> list[tuple[StepPlan, Cost]]:
        """The cost of one configuration under each of ``plans``."""
        prices = self.price_plans([config], plans)
        return [(plan, self._cost(each)) for plan, each in zip(plans, prices, strict=True)]

    def best(self, config: FarConfig, goal: Goal) -> tuple[StepPlan, Cost]:
        """The exact plan that serves a goal best, and its cost."""
        return best_of(self.all_plans(config), goal)

    def _prices(
        self, memory: Mapping[str, Array], time: Mapping[str, Array], step_time: Array, trainable: Array
    ) -> Prices:
        profile = self.profile
        process, factor = profile.process_mib, profile.time_factor
        tensors, wall = _total(memory), _total(time)
        prices = Prices(
            tensor_peak_mib=tensors,
            peak_memory_mib=tensors + process.value,
            peak_memory_range_mib=(tensors + process.low, tensors * (1 + profile.held_share) + process.high),
            step_time_s=step_time,
            wall_time_s=wall,
            wall_time_range_s=(wall * factor.low / factor.value, wall * factor.high / factor.value),
            energy_j=None if profile.power_w is None else profile.power_w.value * wall,
            memory=memory,
            time=time,
            trainable=np.rint(trainable).astype(np.int64),
            fits=np.ones(len(wall), dtype=np.bool_),
        )
        fits = np.logical_and.reduce([values <= bound for values, bound, *_ in self._bounds(prices)])
        return dataclasses.replace(prices, fits=fits)

    def _bounds(self, prices: Prices) -> list[tuple[Array, float, str, Callable[[float], str]]]:
        """What must be at most what, what is wrong where it is more, and how both are shown in that."""
        name, have = self.profile.name, self.profile.available_mib[0]
        mib: Callable[[float], str] = "{:.0f} MiB".format
        words = f"memory: up to {{}}, {name} surely has {{}}"
        bounds = [(prices.peak_memory_range_mib[1], have, words, mib)]
        if self.max_memory_mib is not None:
            words = "max-memory: {}, allowed are {}"
            bounds.append((prices.peak_memory_mib, self.max_memory_mib, words, mib))
        if self.max_time_s is not None:
            bounds.append((prices.wall_time_s, self.max_time_s, "max-time: {}, allowed are {}", shown_seconds))
        return bounds

    def _cost(self, prices: Prices) -> Cost:
        """The cost of the one configuration that was priced."""
        peak, wall = prices.peak_memory_range_mib, prices.wall_time_range_s
        return Cost(
            tensor_peak_mib=float(prices.tensor_peak_mib[0]),
            peak_memory_mib=float(prices.peak_memory_mib[0]),
            peak_memory_range_mib=(float(peak[0][0]), float(peak[1][0])),
            available_range_mib=self.profile.available_mib,
            step_time_s=float(prices.step_time_s[0]),
            wall_time_s=float(prices.wall_time_s[0]),
            wall_time_range_s=(float(wall[0][0]), float(wall[1][0])),
            energy_j=None if prices.energy_j is None else float(prices.energy_j[0]),
            memory={name: float(values[0]) for name, values in prices.memory.items()},
            time={name: float(values[0]) for name, values in prices.time.items()},
            trainable=int(prices.trainable[0]),
            problems=tuple(
                words.format(human(float(values[0])), human(bound))
                for values, bound, words, human in self._bounds(prices)
                if values[0] > bound
            ),
        )


def _total(parts: Mapping[str, Array]) -> Array:
    return np.asarray(sum(parts.values()))


def _worse(
    one: Mapping[str, Array], other: Mapping[str, Array], may: NDArray[np.bool_] | bool = True
) -> dict[str, Array]:
    """The moment that takes more, by category; that of ``other`` only where it ``may`` be."""
    worse = may & (_total(other) > _total(one))
    return {name: np.where(worse, other[name], values) for name, values in one.items()}
