"""Predicted costs of configurations of a job on a device.

Longer than others: all that decides a price is in one class, a third of it the documentation of its arguments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from farsearch.cost.beside_steps import best_state_mib, clipping_seconds, evaluation_seconds
from farsearch.cost.compiled import CompiledCosts, vocabulary_mib
from farsearch.cost.constraints import Constraints, Peaks
from farsearch.cost.memory import MIB
from farsearch.cost.narrow_top import with_narrow_top
from farsearch.cost.plans import (
    check_precision,
    compiled_plans,
    exact_plans,
    half_plans,
    ordinary_plan,
    stepped_at_end,
)
from farsearch.cost.prices import Price, Prices, total_of, worse_of
from farsearch.cost.segment_costs import Passes, SegmentCosts
from farsearch.cost.segments import Array, Composed
from farsearch.cost.software import Software, software_of
from farsearch.cost.step_table import StepTable
from farsearch.cost.traced_model import TableKey, TracedModel, traced_plan
from farsearch.cost.whole_model import Prepare
from farsearch.cost.workload import Epochs, Workload
from farsearch.devices.profile import Profile
from farsearch.goals import Goal, best_plan
from farsearch.models.heads import Head
from farsearch.records import Engine, FarConfig, Precision, StepPlan

__all__ = ["Price", "Pricer", "Prices", "best_of", "full_fine_tuning", "priming_plan"]


def full_fine_tuning(layers: int, learning_rate: float = 5e-5, epochs: float = 1.0) -> FarConfig:
    """Return the configuration of plain fine-tuning of all parameters."""
    return FarConfig((0.0,) * layers, learning_rate, epochs)


def priming_plan(optimizer: Any, batch_size: int) -> StepPlan:
    """Return the plan of priming on a device: micro-batches of a quarter batch, for a low peak."""
    return StepPlan(optimizer=optimizer, micro_batch_size=max(1, batch_size // 4))


def best_of(priced: Sequence[tuple[StepPlan, Price]], goal: Goal) -> tuple[StepPlan, Price]:
    """Return the best plan for a goal, as ``best_plan`` selects it, and its cost."""
    costs = [cost for _, cost in priced]
    best = best_plan(
        [cost.peak_memory_mib for cost in costs],
        [cost.wall_time_s for cost in costs],
        [cost.fits for cost in costs],
        goal,
    )
    return priced[int(best)]


class _Side(NamedTuple):
    """A device as one engine has it.

    Attributes:
        profile: with the engine's figures.
        software: of the torch whose operations are timed.
    """

    profile: Profile
    software: Software
    passes: Passes
    constraints: Constraints


class _Tensors(NamedTuple):
    """MiB of tensors at the peak, ``[configurations]``: by category, and the low and high end of their sum."""

    memory: Mapping[str, Array]
    low: Array
    high: Array


class Pricer:
    """Predicts the costs of configurations of one job on one device.

    Args:
        model_config: transformers configuration of the model.
        head: of the model.
        batch_size: rows of an optimizer step.
        max_length: tokens at which peak memory is predicted: the prediction must hold for the longest row.
        profile: the device.
        engines: those whose plans compete, with the device's profile for each, as ``Profile.for_engine`` returns it;
            None for torch alone. A compiled step's time is that of torch's operations on its profile.
        lengths: tokens of each training row, from which the padded batches follow; None prices one epoch of a single
            step at ``max_length``.
        seed: of the order of the batches.
        prime_on_device: priming runs on the device too, with ``priming_plan``'s micro-batches.
        priming_optimizer: ``adamw`` or ``sgd``.
        precision: of the layers in the plans that compete; ordinary modules, baselines and priming have float32.
        max_memory_mib, max_time_s: limits of the user.
        device_samples: rows that the device trains on; None for as many as ``lengths``.
        watched_rows: rows of each evaluation of a phase whose best state is kept (``runtime.best_state``): its copy of
            the trained tensors and the evaluations are priced, and no step is taken to be saved. None without.
        clips: the norm of all gradients is clipped: only plans whose optimizer steps at the end compete.
        tables, traces: as in ``TracedModel``.

    Raises:
        BadInput: for a precision that the device, the model or an engine lacks.
    """

    def __init__(
        self,
        model_config: Any,
        head: Head,
        batch_size: int,
        max_length: int,
        profile: Profile,
        *,
        engines: Mapping[Engine, Profile] | None = None,
        lengths: Sequence[int] | None = None,
        seed: int = 0,
        prime_on_device: bool = False,
        priming_optimizer: str = "adamw",
        precision: Precision = "float32",
        max_memory_mib: float | None = None,
        max_time_s: float | None = None,
        device_samples: int | None = None,
        watched_rows: int | None = None,
        clips: bool = False,
        tables: MutableMapping[TableKey, StepTable] | None = None,
        traces: Path | None = None,
    ) -> None:
        self.workload = Workload(
            batch_size, max_length, None if lengths is None else tuple(lengths), seed, device_samples
        )
        self.prime_on_device, self.priming_optimizer, self.precision = prime_on_device, priming_optimizer, precision
        self.watched_rows, self.clips = watched_rows, clips
        self._model = TracedModel(model_config, head, tables, traces)
        self._segment_costs: dict[StepPlan, SegmentCosts] = {}
        self._compiled_costs: dict[tuple[str, bool], CompiledCosts] = {}
        self._steps = lru_cache(maxsize=64)(self.workload.steps)
        self.engines: tuple[Engine, ...] = ("torch",) if engines is None else tuple(engines)
        check_precision(precision, profile, self._model.layout, self.engines)
        # ordinary modules, baselines and priming are priced with torch in any case
        self._sides = {
            engine: _Side(
                each, software_of(each, max_length), Passes(each, self._steps),
                Constraints(each, max_memory_mib, max_time_s),
            )
            for engine, each in {"torch": profile, **(engines or {})}.items()
        }  # fmt: skip

    @property
    def profile(self) -> Profile:
        """The device, with torch's figures."""
        return self._sides["torch"].profile

    @property
    def constraints(self) -> Constraints:
        """Limits of the user, and of the device with torch."""
        return self._sides["torch"].constraints

    def profile_of(self, plan: StepPlan) -> Profile:
        """Return the device with the figures of a plan's engine."""
        return self._sides[plan.engine].profile

    @property
    def head(self) -> Head:
        """The head of the model."""
        return self._model.head

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return len(self._model.layout.layers)

    @property
    def batch_size(self) -> int:
        """Rows of an optimizer step."""
        return self.workload.batch_size

    @property
    def plans(self) -> list[StepPlan]:
        """The plans of the device's engines by which the model can be executed: exact ones, or those of the precision.

        Priming needs torch, so where it runs on the device, no other engine's plans are among them.
        """
        if self.precision != "float32":
            return half_plans(self.profile, self.precision)
        plans = exact_plans(self.profile, self._model.layout) if "torch" in self.engines else []
        compiled = "onnx" in self.engines and not self.prime_on_device
        plans += compiled_plans(self._model.layout) * compiled
        return list(dict.fromkeys(map(stepped_at_end, plans))) if self.clips else plans

    @property
    def ordinary_plans(self) -> list[StepPlan]:
        """The plan by which each engine executes a step unless asked for another."""
        if self.precision != "float32":
            return self.plans[:1]
        compiled = [plan for plan in self.plans if plan.engine == "onnx"][:1]
        return [ordinary_plan(self.profile)] * ("torch" in self.engines) + compiled

    def _executed(self, plan: StepPlan) -> StepPlan:
        """Return the plan as the training loop executes it: a micro-batch of the whole batch or more is none."""
        whole = plan.micro_batch_size is not None and plan.micro_batch_size >= self.batch_size
        return dataclasses.replace(plan, micro_batch_size=None) if whole else plan

    def table(self, plan: StepPlan) -> StepTable:
        """Return the step table of a plan."""
        return self._table(plan, plan.engine)

    def price(self, config: FarConfig, plan: StepPlan | None = None) -> Price:
        """Return the cost of one configuration under one plan; None for ``ordinary_plan``."""
        plan = plan or ordinary_plan(self.profile)
        return self._cost(self.price_many([config], plan), plan)

    def price_many(self, configs: Sequence[FarConfig], plan: StepPlan | None = None) -> Prices:
        """Return the costs of at least one configuration under one plan, in order; None for ``ordinary_plan``.

        They are summed at once from the step tables: ten thousand configurations take about a second.

        Raises:
            BadInput: for a configuration whose number of layers is not the model's.
        """
        return self.price_plans(configs, [plan or ordinary_plan(self.profile)])[0]

    def price_plans(self, configs: Sequence[FarConfig], plans: Sequence[StepPlan]) -> list[Prices]:
        """Like ``price_many``, for each of ``plans``; those that differ only in the optimizer share most work."""
        epochs, single = [config.epochs for config in configs], [None] * len(configs)
        priming = np.array([config.priming_epochs for config in configs])
        shared: dict[StepPlan, tuple[Composed, Composed | None, Array, Array]] = {}
        prices = []
        for plan in map(self._executed, plans):
            costs, key = self._costs_of(plan), traced_plan(plan, plan.micro_batch_size)
            if key not in shared:
                step, rest = self._timed(plan, configs)
                passes, one_pass = (self._pass_seconds(plan, step, rest, phases) for phases in (epochs, single))
                shared[key] = step, rest, passes, one_pass
            step, rest, passes, one_pass = shared[key]
            tensors = self._tensors(plan, step, rest, configs)
            time = costs.seconds(step, epochs, passes)
            step_time = total_of(costs.seconds(step, single, one_pass))
            tensors, time = self._beside_steps(plan, tensors, time, epochs, costs.elements(step))
            if self.prime_on_device and priming.any():
                memory, time = self._with_priming(priming, tensors.memory, time)
                tensors = self._of_torch(memory)
            prices.append(self._prices(plan, tensors, time, step_time, costs.elements(step)))
        return prices

    def step_time_s(self, config: FarConfig, plan: StepPlan) -> float:
        """Return the seconds of one step at full length, as ``price`` does, without the memory: nothing is compiled."""
        plan = self._executed(plan)
        step, rest = self._timed(plan, [config])
        passes = self._pass_seconds(plan, step, rest, [None])
        return float(total_of(self._costs_of(plan).seconds(step, [None], passes))[0])

    def _table(self, plan: StepPlan, engine: Engine) -> StepTable:
        """Return the step table of a plan with the software on an engine's profile."""
        rows = min(self.batch_size, plan.micro_batch_size or self.batch_size)
        return self._model.table(plan, rows, self.workload.max_length, self._sides[engine].software)

    def _timed(self, plan: StepPlan, configs: Sequence[FarConfig]) -> tuple[Composed, Composed | None]:
        """Return the steps whose operations are timed, torch's, of a whole micro-batch and of the smaller last one."""
        timed = dataclasses.replace(plan, engine="torch")
        step, rest = self._table(timed, plan.engine).compose(configs), self._rest(timed, plan.engine, configs)
        if plan.engine == "torch" or not self._model.first_token_alone:
            return step, rest
        return with_narrow_top(step, self.layers), None if rest is None else with_narrow_top(rest, self.layers)

    def _tensors(self, plan: StepPlan, step: Composed, rest: Composed | None, configs: Sequence[FarConfig]) -> _Tensors:
        """Return the memory at the peak; of a compiled plan, that of its own graphs."""
        if plan.engine == "torch":
            return self._of_torch(self._memory(plan, step, rest))
        kind = (plan.optimizer, self.clips or plan.micro_batch_size is not None)
        costs = self._compiled_costs.setdefault(kind, CompiledCosts(*kind))
        found = costs.memory(self.table(plan).compose(configs))
        vocabulary = np.full(len(configs), vocabulary_mib(self._model.config))
        memory = {
            "vocabulary": vocabulary,
            "trained weights, optimizer": found.held / MIB,
            "activations": found.allocated / MIB,
            "mapped weights": found.mapped / MIB,
        }
        # the system may drop mapped weights, and the allocator's share may be 0
        return _Tensors(memory, vocabulary + (found.held + found.passing) / MIB, total_of(memory))

    def _of_torch(self, memory: Mapping[str, Array]) -> _Tensors:
        total = total_of(memory)
        return _Tensors(memory, total, total * (1 + self.profile.held_share))

    def _beside_steps(
        self, plan: StepPlan, tensors: _Tensors, time: dict[str, Array], epochs: Sequence[Epochs], elements: Array
    ) -> tuple[_Tensors, dict[str, Array]]:
        """Return memory and time with the best state, the evaluations and the clipping of a phase."""
        if self.clips:
            steps = np.array([sum(self._steps(each).values()) for each in epochs])
            time = {**time, "clipping": clipping_seconds(elements, steps, self.profile_of(plan))}
        if self.watched_rows is None:
            return tensors, time
        copy, ordinary = best_state_mib(elements), ordinary_plan(self.profile)
        step = self._table(ordinary, "torch").compose([full_fine_tuning(self.layers)])
        passes = self._pass_seconds(ordinary, step, None, [1.0])
        full, rows = self._costs_of(ordinary).seconds(step, [1.0], passes), sum(self._steps(1.0).values())
        seconds = evaluation_seconds(full, rows * self.batch_size, self.watched_rows)
        memory = {**tensors.memory, "best state": copy}
        return _Tensors(memory, tensors.low + copy, tensors.high + copy), {
            **time,
            "evaluations": np.full(len(epochs), seconds),
        }

    def _rest(self, plan: StepPlan, engine: Engine, configs: Sequence[FarConfig]) -> Composed | None:
        """Return the steps of a batch's last, smaller micro-batch; None if all micro-batches are equal."""
        rows = 0 if plan.micro_batch_size is None else self.batch_size % plan.micro_batch_size
        smaller = dataclasses.replace(plan, micro_batch_size=rows) if rows else None
        return None if smaller is None else self._table(smaller, engine).compose(configs)

    def _memory(self, plan: StepPlan, step: Composed, rest: Composed | None) -> dict[str, Array]:
        """Return the worst moment; that of a smaller second micro-batch adds to the gradients of the first."""
        rows = plan.micro_batch_size
        if rest is None or rows is None or self.batch_size > 2 * rows:
            return self._costs_of(plan).memory(step).by_category()
        first = self._costs_of(dataclasses.replace(plan, micro_batch_size=None))
        return worse_of(first.memory(step).by_category(), self._costs_of(plan).memory(rest).by_category())

    def _pass_seconds(self, plan: StepPlan, step: Composed, rest: Composed | None, phases: Sequence[Epochs]) -> Array:
        """Return seconds of forward and backward pass of all micro-batches: ``[configurations, CATEGORIES]``."""
        parts = 1 if plan.micro_batch_size is None else self.batch_size // plan.micro_batch_size
        segments = self._sides[plan.engine].passes.of_segments
        seconds = segments(step, phases) * parts
        return seconds if rest is None else seconds + segments(rest, phases)

    def _costs_of(self, plan: StepPlan) -> SegmentCosts:
        if plan not in self._segment_costs:
            self._segment_costs[plan] = self._new_costs(plan, self._sides[plan.engine].passes)
        return self._segment_costs[plan]

    def _new_costs(self, plan: StepPlan, passes: Passes) -> SegmentCosts:
        profile = self.profile_of(plan)
        return SegmentCosts(plan, profile, self.batch_size, self.workload.max_length, self._steps, passes)

    def _with_priming(
        self, priming: Array, memory: Mapping[str, Array], time: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the worse moment of priming and FAR phase, and the time of both; ``priming`` are epochs."""
        plan = self._executed(priming_plan(self.priming_optimizer, self.batch_size))
        table, costs = self.table(plan), self._costs_of(plan)
        epochs, which = np.unique(priming[priming > 0], return_inverse=True)
        configs = [full_fine_tuning(table.layers)] * len(epochs)
        step, rest = table.compose(configs), self._rest(plan, "torch", configs)
        seconds = np.zeros(len(priming))
        passes = self._pass_seconds(plan, step, rest, epochs.tolist())
        seconds[priming > 0] = total_of(costs.seconds(step, epochs.tolist(), passes))[which]
        parts = self._memory(plan, step, rest)
        other = {name: parts.get(name, np.zeros(1))[:1] for name in memory}
        return worse_of(memory, other, priming > 0), {**time, "priming": seconds}

    def price_prepared(self, prepare: Prepare, epochs: float) -> Price:
        """Return the cost of training the model as ``prepare`` changes it, with gradients where it leaves them.

        Its modules are executed as they are, with ``ordinary_plan``'s optimizer.
        """
        step = self._model.step_of(prepare, self.batch_size, self._sides["torch"].software)
        # not the cached costs of the plan: no other configuration has a segment of this model
        passes = Passes(self.profile, self._steps)
        plan = ordinary_plan(self.profile)
        costs = self._new_costs(plan, passes)
        memory = self._of_torch(costs.memory(step).by_category())
        time = costs.seconds(step, [epochs], passes.of_segments(step, [epochs]))
        memory, time = self._beside_steps(plan, memory, time, [epochs], costs.elements(step))
        step_time = total_of(costs.seconds(step, [None], passes.of_segments(step, [None])))
        return self._cost(self._prices(plan, memory, time, step_time, costs.elements(step)), plan)

    def all_plans(self, config: FarConfig) -> list[tuple[StepPlan, Price]]:
        """Return the cost of one configuration under every plan that competes on the device."""
        return self.priced(config, self.plans)

    def priced(self, config: FarConfig, plans: Sequence[StepPlan]) -> list[tuple[StepPlan, Price]]:
        """Return the cost of one configuration under each of ``plans``."""
        prices = self.price_plans([config], plans)
        return [(plan, self._cost(each, plan)) for plan, each in zip(plans, prices, strict=True)]

    def best(self, config: FarConfig, goal: Goal) -> tuple[StepPlan, Price]:
        """Return the best plan for a goal, and its cost."""
        return best_of(self.all_plans(config), goal)

    def _prices(
        self, plan: StepPlan, tensors: _Tensors, time: Mapping[str, Array], step_time: Array, trainable: Array
    ) -> Prices:
        profile, constraints = self.profile_of(plan), self._sides[plan.engine].constraints
        process, factor = profile.process_mib, profile.time_factor
        total, wall = total_of(tensors.memory), total_of(time)
        high = tensors.high + process.high
        return Prices(
            tensor_peak_mib=total,
            peak_memory_mib=total + process.value,
            peak_memory_range_mib=(tensors.low + process.low, high),
            step_time_s=step_time,
            wall_time_s=wall,
            wall_time_range_s=(wall * factor.low / factor.value, wall * factor.high / factor.value),
            energy_j=None if profile.power_w is None else profile.power_w.value * wall,
            memory=tensors.memory,
            time=time,
            trainable=np.rint(trainable).astype(np.int64),
            fits=constraints.fits(Peaks(high, total + process.value, wall)),
        )

    def _cost(self, prices: Prices, plan: StepPlan) -> Price:
        """Return the cost of a single priced configuration."""
        side = self._sides[plan.engine]
        peak, wall = prices.peak_memory_range_mib, prices.wall_time_range_s
        problems = side.constraints.problems(Peaks(peak[1], prices.peak_memory_mib, prices.wall_time_s))
        return Price(
            tensor_peak_mib=float(prices.tensor_peak_mib[0]),
            peak_memory_mib=float(prices.peak_memory_mib[0]),
            peak_memory_range_mib=(float(peak[0][0]), float(peak[1][0])),
            available_range_mib=side.profile.available_mib,
            step_time_s=float(prices.step_time_s[0]),
            wall_time_s=float(prices.wall_time_s[0]),
            wall_time_range_s=(float(wall[0][0]), float(wall[1][0])),
            energy_j=None if prices.energy_j is None else float(prices.energy_j[0]),
            memory={name: float(values[0]) for name, values in prices.memory.items()},
            time={name: float(values[0]) for name, values in prices.time.items()},
            trainable=int(prices.trainable[0]),
            feasible=not problems,
            problems=problems,
        )
