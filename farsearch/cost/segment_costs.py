"""Memory and time of the segments of steps on a device by their numbers of learners, computed once and cached.

A layer of a kind with k learners costs the same in every configuration, so ten thousand configurations need only some
thousand distinct layers. The costs are summed over the segments for all configurations at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from farsearch.cost.memory import LEVELS, SIZES, MemoryBreakdown, group_sizes, memory_breakdown, segment_levels
from farsearch.cost.operations import CATEGORIES
from farsearch.cost.optimizer import stepped_part, sweep_at_once, sweep_part
from farsearch.cost.segments import Array, Composed, Indices, Part, Tensors
from farsearch.cost.timing import weighted_seconds
from farsearch.cost.workload import Epochs
from farsearch.devices.profile import Profile
from farsearch.records import StepPlan

__all__ = ["Passes", "Rows", "SegmentCosts"]

_PHASES = 8
"""Phases that are computed together; twice as many are cached. A space has few lengths of a phase, or so many that none
recurs."""

_T = TypeVar("_T", Part, Tensors)


class Rows(Generic[_T]):
    """Numbers of parts or groups of tensors, a row for each number of learners; NaN until they are computed.

    Attributes:
        values: ``[rows, columns, numbers]``.
    """

    def __init__(self, numbers: int, compute: Callable[[Sequence[_T], Indices, Indices], Array]) -> None:
        self.values = np.empty((0, 0, numbers))
        self._compute: Callable[[Sequence[_T], Indices, Indices], Array] = compute
        self._first: dict[_T, int] = {}

    def find(self, things: Sequence[_T], which: Indices, learners: Indices, columns: Indices) -> Indices:
        """Return the row of each of ``things[which]`` with its learners, computed in all ``columns``."""
        first, rows = [], len(self.values)
        for thing in things:
            first.append(self._first.setdefault(thing, rows))
            rows += (thing.width + 1) * (first[-1] == rows)
        self._grow(rows, int(columns.max()) + 1)
        row_of: Indices = np.array(first, dtype=np.int64)[which] + learners
        unknown = np.isnan(self.values[row_of[..., None], columns, 0]).any(axis=-1)
        varies = np.array([thing.width > 0 for thing in things])[which]
        for missing in (unknown & varies, unknown & ~varies):
            if missing.any():
                counts, new = np.unique(learners[missing]), np.unique(which[missing])
                numbers = self._compute([things[i] for i in new], counts, columns)
                for i, values in zip(new, numbers, strict=True):
                    self.values[(first[i] + counts)[:, None], columns] = values
        return row_of

    def _grow(self, rows: int, columns: int) -> None:
        old = self.values
        if rows > len(old) or columns > old.shape[1]:
            shape = (rows, max(columns, old.shape[1]), old.shape[2])
            self.values = np.full(shape, np.nan)
            self.values[: len(old), : old.shape[1]] = old

    def clear(self) -> None:
        """Drop all numbers."""
        self.values = self.values[:, :0]


class Passes:
    """Seconds of the segments of steps on a device, which plans that differ only in the optimizer share.

    Args:
        steps: batches of a phase by the length that they are padded to.
    """

    def __init__(self, profile: Profile, steps: Callable[[Epochs], Mapping[int, float]]) -> None:
        self._profile, self._steps = profile, steps
        self._seconds = Rows[Part](len(CATEGORIES), self._compute_seconds)
        self._columns: dict[Epochs, int] = {}
        self._sweeps: dict[tuple[str, str, Tensors], Part] = {}

    def _compute_seconds(self, parts: Sequence[Part], learners: Indices, columns: Indices) -> Array:
        phases = {column: self._steps(phase) for phase, column in self._columns.items()}
        steps = [phases[column] for column in columns]
        lengths = sorted(set().union(*steps))
        weights = np.array([[counts.get(length, 0) for length in lengths] for counts in steps], dtype=np.float64)
        return weighted_seconds(parts, learners, np.array(lengths, dtype=np.float64), weights, self._profile)

    def of_segments(self, step: Composed, phases: Sequence[Epochs]) -> Array:
        """Return the seconds of each configuration's phase, one pass per batch: ``[configurations, CATEGORIES]``."""
        return self._sum(step.parts, step.part_of, step.learners, phases)

    def of_sweeps(self, step: Composed, phases: Sequence[Epochs], plan: StepPlan) -> Array:
        """Like ``of_segments``, for an optimizer that steps the trained tensors one after another."""
        sweeps = []
        for tensors in step.tensors:
            key = (plan.optimizer, plan.optimizer_kernel, tensors)
            if key not in self._sweeps:
                self._sweeps[key] = sweep_part(plan, tensors)
            sweeps.append(self._sweeps[key])
        return self._sum(sweeps, step.tensors_of, step.tensor_learners, phases)

    def _sum(self, parts: Sequence[Part], part_of: Indices, learners: Indices, phases: Sequence[Epochs]) -> Array:
        different = list(dict.fromkeys(phases))
        number = {phase: i for i, phase in enumerate(different)}
        which = np.array([number[phase] for phase in phases])
        seconds = np.zeros((len(phases), len(CATEGORIES)))
        for start in range(0, len(different), _PHASES):
            chunk = np.flatnonzero(which // _PHASES == start // _PHASES)
            columns = self._columns_of(different[start : start + _PHASES])
            rows = self._seconds.find(parts, part_of[:, chunk], learners[:, chunk], columns)
            seconds[chunk] = self._seconds.values[rows, columns[which[chunk] - start]].sum(axis=0)
        return seconds

    def _columns_of(self, phases: Sequence[Epochs]) -> Indices:
        new = [phase for phase in phases if phase not in self._columns]
        if len(self._columns) + len(new) > 2 * _PHASES:
            self._seconds.clear()
            self._columns.clear()
            new = list(phases)
        for phase in new:
            self._columns[phase] = len(self._columns)
        return np.array([self._columns[phase] for phase in phases])


class SegmentCosts:
    """The memory and time of composed steps on one device under one plan.

    Args:
        plan: as executed: its micro-batch is smaller than the batch.
        batch_size: rows of an optimizer step.
        max_length: tokens at which memory is priced.
        steps: batches of a phase by the length that they are padded to.
        passes: of the device and ``steps``.
    """

    def __init__(
        self,
        plan: StepPlan,
        profile: Profile,
        batch_size: int,
        max_length: int,
        steps: Callable[[Epochs], Mapping[int, float]],
        passes: Passes,
    ) -> None:
        self._plan, self._profile, self._batch_size = plan, profile, batch_size
        self._steps, self._max_length, self._passes = steps, max_length, passes
        self._levels = Rows[Part](len(LEVELS), self._compute_levels)
        self._sizes = Rows[Tensors](len(SIZES), self._compute_sizes)

    def _compute_levels(self, parts: Sequence[Part], learners: Indices, _: Indices) -> Array:
        if self._plan.optimizer_step == "backward":
            parts = [stepped_part(self._plan, part) for part in parts]
        each = [segment_levels(part, self._max_length, learners, self._plan, self._profile) for part in parts]
        return np.stack(each)[:, :, None]

    def _compute_sizes(self, groups: Sequence[Tensors], learners: Indices, _: Indices) -> Array:
        return np.stack([group_sizes(group, learners, self._plan) for group in groups])[:, :, None]

    def _group_sizes(self, step: Composed) -> Array:
        """Sizes of the groups of trained tensors: ``[groups, configurations, SIZES]``."""
        rows = self._sizes.find(step.tensors, step.tensors_of, step.tensor_learners, np.zeros(1, dtype=np.int64))
        return np.asarray(self._sizes.values[rows, 0])

    def elements(self, step: Composed) -> Array:
        """Return the number of trained parameters of each configuration."""
        return np.asarray(self._group_sizes(step)[..., SIZES.index("elements")].sum(axis=0))

    def memory(self, step: Composed) -> MemoryBreakdown:
        """Return the memory at the peak of each configuration."""
        rows = self._levels.find(step.parts, step.part_of, step.learners, np.zeros(1, dtype=np.int64))
        levels = self._levels.values[rows, 0]
        return memory_breakdown(levels, self._group_sizes(step), step.static_bytes, self._plan, self._profile)

    def seconds(self, step: Composed, phases: Sequence[Epochs], passes: Array) -> dict[str, Array]:
        """Return the seconds of a phase of each configuration by category, ``[configurations]`` each.

        Args:
            passes: seconds of forward and backward pass of whole batches, ``[configurations, CATEGORIES]``.
        """
        plan, profile, sizes = self._plan, self._profile, self._group_sizes(step)
        different = {phase: self._steps(phase) for phase in dict.fromkeys(phases)}
        totals = {
            phase: (sum(counts.values()), sum(count * length for length, count in counts.items()))
            for phase, counts in different.items()
        }
        batches, tokens = np.array([totals[phase] for phase in phases]).T
        calls = np.ones(len(phases))
        if plan.optimizer_step == "end" and plan.optimizer_kernel != "loop":
            # one call of each operation, or of the optimizer's own kernel, for all tensors
            elements, matrices = (sizes[..., SIZES.index(name)].sum(axis=0) for name in ("elements", "matrix_elements"))
            stepping = batches * sweep_at_once(plan, matrices, elements - matrices, profile)
        else:
            swept = self._passes.of_sweeps(step, phases, plan)
            stepping = swept[:, CATEGORIES.index("optimizer")]
        if plan.optimizer_step == "backward":
            calls = sizes[..., SIZES.index("tensors")].sum(axis=0)
        seconds = dict(zip(CATEGORIES, passes.T, strict=True))
        seconds["optimizer"] = seconds["optimizer"] + stepping + batches * calls * profile.step_us.value * 1e-6
        seconds["loading"] = self._batch_size * tokens * profile.token_us.value * 1e-6
        return {name: value * profile.time_factor.value for name, value in seconds.items()}
