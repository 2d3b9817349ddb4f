"""The memory of compiled steps, which the engine without torch executes: of few layers, and composed from such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from farsearch.cost.layer_kinds import LayerKind, apply_kinds
from farsearch.cost.segment_costs import Rows
from farsearch.cost.segments import Array, Composed, Indices, Part, Tensors
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.trace import meta_tensors
from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.models.heads import Head

if TYPE_CHECKING:  # these need the package onnx, which takes time to import
    from farsearch.graph.memory import Allocation, EngineMemory, StepMemory
    from farsearch.graph.segments import Place

__all__ = ["CompiledCosts", "CompiledStep", "compiled_step"]

_BYTES = 4
"""Bytes of a float32."""


class CompiledStep(NamedTuple):
    """A compiled step of a model.

    Attributes:
        unused_bytes: of buffers that it does not take.
    """

    memory: EngineMemory
    layout: ModelLayout
    unused_bytes: int

    def segments(self, rows: int, length: int) -> Mapping[Place, Sequence[Allocation]]:
        """Return what a step of ``rows`` sequences of ``length`` tokens allocates and frees, by segment."""
        from farsearch.graph.segments import step_segments

        return step_segments(self.memory, self.layout, rows, length)


def compiled_step(
    config: Any, head: Head, kinds: tuple[LayerKind, ...], learners: int, execution: Execution
) -> CompiledStep:
    """Return the compiled step of a model whose layers are of these kinds; each is compiled once in a process.

    Args:
        config: transformers configuration of the model.
        learners: of split layers.

    Raises:
        BadInput: for a model that can't be compiled.
    """
    from farsearch.graph.memory import EngineMemory

    known = _compiled_steps(config.to_json_string(use_diff=False), head)
    key = (kinds, learners, execution)
    if key not in known:
        with meta_tensors():
            model, layout = build_ordinary(config, head, Software())
        apply_kinds(model, layout, kinds, learners, execution)
        # the tracer mixes the model's tensors with new ones, which are not of the meta device
        memory = EngineMemory.of_training(model.to_empty(device="cpu"), layout, head)
        known[key] = CompiledStep(memory, layout, memory.unused_bytes(model))
    return known[key]


@lru_cache(maxsize=64)
def _compiled_steps(_config: str, _head: Head) -> dict[Any, CompiledStep]:
    return {}


class CompiledCosts:
    """The memory of composed steps, as ``EngineMemory.step`` has it for one.

    Args:
        optimizer: ``adamw`` or ``sgd``.
        parts: the rows are part of a batch, whose gradients are added up.
    """

    def __init__(self, optimizer: str, parts: bool) -> None:
        self._optimizer, self._parts = optimizer, parts
        self._levels = Rows[Part](2, _levels)
        self._elements = Rows[Tensors](1, _elements)

    def memory(self, step: Composed) -> StepMemory[Array]:
        """Return the memory of a step's configurations, ``[configurations]`` each."""
        from farsearch.graph.memory import StepMemory, held_bytes  # needs the package onnx

        column = np.zeros(1, dtype=np.int64)
        rows = self._levels.find(step.parts, step.part_of, step.learners, column)
        high, net = np.moveaxis(self._levels.values[rows, 0], -1, 0)
        before = np.cumsum(net, axis=0) - net
        groups = self._elements.find(step.tensors, step.tensors_of, step.tensor_learners, column)
        trained = _BYTES * self._elements.values[groups, 0, 0].sum(axis=0)
        held = held_bytes(trained, self._optimizer, self._parts)
        return StepMemory(step.static_bytes, held, (high + before).max(axis=0))


def _levels(parts: Sequence[Part], learners: Indices, _: Indices) -> Array:
    """The highest level of each segment over that before, and the level at its end: ``[parts, learners, 1, 2]``."""
    numbers = []
    for part in parts:
        level = np.cumsum(np.rint(part.sizes(0, learners)), axis=0)
        ends = (level.max(axis=0), level[-1]) if len(level) else (np.zeros(len(learners)),) * 2
        numbers.append(np.stack(ends, axis=1))
    return np.stack(numbers)[:, :, None]


def _elements(groups: Sequence[Tensors], learners: Indices, _: Indices) -> Array:
    sizes: list[Any] = [group.sizes(learners).sum(axis=0) for group in groups]
    return np.stack(sizes)[:, :, None, None]
