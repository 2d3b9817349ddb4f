"""The memory of compiled steps, which the engine without torch executes: of few layers, and composed from such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from farsearch.cost.layer_kinds import LayerKind, apply_kinds
from farsearch.cost.segment_costs import Rows
from farsearch.cost.segments import EVENT_KINDS, Array, Composed, Indices, Part, Tensors
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.trace import meta_tensors
from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.models.heads import Head

if TYPE_CHECKING:  # these need the package onnx, which takes time to import
    from farsearch.graph.memory import EngineMemory, StepMemory
    from farsearch.graph.segments import Place, SegmentEvent

__all__ = ["CompiledCosts", "CompiledStep", "compiled_step", "vocabulary_mib"]

_BYTES = 4
"""Bytes of a float32."""
_TEMPORARY = [EVENT_KINDS.index(kind) for kind in ("temporary", "gradient")]

_WORD_BYTES = {"unigram": 900, "others": 300}
"""Memory of a tokenizer for each word of its vocabulary: 765 to 1,044 bytes of a unigram model, 240 to 390 of word
pieces and byte pairs, in tokenizers 0.12 and 0.23 (docs/log.md)."""
_UNIGRAM = ("camembert", "deberta-v2", "xlm-roberta")
"""Families whose tokenizers are unigram models."""


def vocabulary_mib(config: Any) -> float:
    """Return the memory of a model's tokenizer in the process of a compiled step, by its transformers configuration."""
    kind = "unigram" if config.model_type in _UNIGRAM else "others"
    return float(_WORD_BYTES[kind] * int(config.vocab_size) / 2**20)


class CompiledStep(NamedTuple):
    """A compiled step of a model.

    Attributes:
        unused_bytes: of buffers that it does not take.
    """

    memory: EngineMemory
    layout: ModelLayout
    unused_bytes: int

    def segments(self, rows: int, length: int) -> Mapping[Place, Sequence[SegmentEvent]]:
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
        self._levels = Rows[Part](4, _levels)
        self._elements = Rows[Tensors](1, _elements)

    def memory(self, step: Composed) -> StepMemory[Array]:
        """Return the memory of a step's configurations, ``[configurations]`` each."""
        from farsearch.graph.memory import StepMemory, held_bytes  # needs the package onnx

        column = np.zeros(1, dtype=np.int64)
        rows = self._levels.find(step.parts, step.part_of, step.learners, column)
        high, temporary, net, masks = np.moveaxis(self._levels.values[rows, 0], -1, 0)
        before = np.cumsum(net, axis=0) - net
        groups = self._elements.find(step.tensors, step.tensors_of, step.tensor_learners, column)
        trained = _BYTES * self._elements.values[groups, 0, 0].sum(axis=0)
        held = held_bytes(trained, self._optimizer, self._parts)
        level, temporary = (high + before).max(axis=0), (temporary + before).max(axis=0)
        return StepMemory(step.static_bytes, held, _block_bytes(step) + level + masks.max(axis=0), temporary)


def _levels(parts: Sequence[Part], learners: Indices, _: Indices) -> Array:
    """Highest levels over that before, and that at the end, of each segment.

    They are the highest with gradients of tables, the highest and the last of temporaries alone, and that of masks.
    """
    numbers = []
    for part in parts:
        sizes = np.rint(part.sizes(0, learners))
        zero = np.zeros((1, len(learners)))
        every, temporary, masks = (
            np.concatenate([zero, np.cumsum(sizes[np.isin(part.event_kinds, kinds)], axis=0)])
            for kinds in (_TEMPORARY, _TEMPORARY[:1], [EVENT_KINDS.index("mask")])
        )
        numbers.append(np.stack([every.max(axis=0), temporary.max(axis=0), temporary[-1], masks.max(axis=0)], axis=1))
    return np.stack(numbers)[:, :, None]


def _block_bytes(step: Composed) -> Array:
    """Return the bytes of all blocks of each configuration: of each size as many as are taken at once.

    A block is used again for values of its own size alone.
    """
    events = [
        _taken([step.parts[i] for i in parts], learners)
        for parts, learners in zip(step.part_of, step.learners, strict=True)
    ]
    sizes = np.concatenate(events)
    order = np.argsort(np.abs(sizes), axis=0, kind="stable")
    sizes = np.take_along_axis(sizes, order, axis=0)
    counts = np.cumsum(np.sign(sizes), axis=0)  # of blocks taken, of this size and in the end none of smaller ones
    size = np.abs(sizes)
    total = np.zeros(sizes.shape[1])
    # the highest count in each run of equal sizes, by maxima from the right
    highest = np.zeros(sizes.shape[1])
    base = np.zeros(sizes.shape[1])
    for i in range(len(sizes)):
        new = size[i] != size[i - 1] if i else np.ones(sizes.shape[1], dtype=np.bool_)
        total += np.where(new & (i > 0), highest * size[i - 1], 0.0)
        base = np.where(new, counts[i - 1] if i else 0.0, base)
        highest = np.where(new, 0.0, highest)
        highest = np.maximum(highest, counts[i] - base)
    return np.asarray(total + highest * size[-1]) if len(sizes) else total


def _taken(parts: Sequence[Part], learners: Indices) -> Array:
    """Signed bytes of the blocks that a segment takes and gives back: ``[events, configurations]``, padded by 0."""
    columns: dict[tuple[Part, int], Array] = {}
    for part, k in zip(parts, learners.tolist(), strict=True):
        if (part, k) not in columns:
            saved = part.event_kinds == EVENT_KINDS.index("saved")
            columns[part, k] = np.rint(part.sizes(0, k))[saved]
    longest = max(len(column) for column in columns.values())
    padded = {key: np.pad(column, (0, longest - len(column))) for key, column in columns.items()}
    return np.stack([padded[key] for key in zip(parts, learners.tolist(), strict=True)], axis=1)


def _elements(groups: Sequence[Tensors], learners: Indices, _: Indices) -> Array:
    sizes: list[Any] = [group.sizes(learners).sum(axis=0) for group in groups]
    return np.stack(sizes)[:, :, None, None]
