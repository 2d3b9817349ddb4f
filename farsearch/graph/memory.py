"""Memory of a compiled step, from its graphs, their order, and the lifetimes of their values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import helper, shape_inference
from torch import nn

from farsearch.far.layout import ModelLayout
from farsearch.graph.compiler import PORTION, PROGRAM, WEIGHTS, Compiled, compile_training
from farsearch.graph.sizes import with_sizes
from farsearch.models.heads import Head
from farsearch.runtime.onnx_engine.buffers import portion_rows
from farsearch.runtime.program_file import Call, DropoutMask, Program, Stored, read_program

__all__ = ["Allocation", "CallMemory", "EngineMemory", "StepMemory", "held_bytes"]

_ARENA_SHARE = 0.8
"""Memory that onnxruntime's allocator holds beside the temporaries of graphs, as a share of them (docs/log.md)."""

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operators whose output is their input's memory."""
_IN_PLACE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Sqrt", "Reciprocal", "Neg", "Exp", "Tanh", "Relu", "Softmax", "Not", "Erf"}
)
"""Operators that write over an input of the same size that nothing takes afterwards."""


Bytes = TypeVar("Bytes", int, NDArray[np.float64])


class Allocation(NamedTuple):
    """Memory that is allocated, or freed where ``bytes`` is negative; ``shape`` is the tensor's."""

    bytes: int
    shape: tuple[int, ...]

    def freed(self) -> Allocation:
        """Return the end of this allocation."""
        return Allocation(-self.bytes, self.shape)


class CallMemory(NamedTuple):
    """Memory of one call of a program.

    Attributes:
        masks: of dropout, during the call.
        inside: what onnxruntime allocates and frees in the call, in order.
        tables: gradients of whole tables that numpy makes of those of their rows, after ``inside``.
        others: outputs that onnxruntime allocates, and that live on, by the program's names.
        buffers: likewise, those in blocks of the runner.
        lent: blocks that are taken for a moment.
        last: values of this and of earlier calls that are freed after it.
    """

    masks: tuple[Allocation, ...]
    inside: tuple[Allocation, ...]
    tables: tuple[Allocation, ...]
    others: Mapping[str, Allocation]
    buffers: Mapping[str, Allocation]
    lent: tuple[Allocation, ...]
    last: tuple[str, ...]


@dataclass(frozen=True)
class StepMemory(Generic[Bytes]):
    """Bytes of a training step beside the process, or of many.

    Attributes:
        mapped: weights in their file, which the system reads as they are needed and may drop again.
        held: trained weights, the optimizer's state, and the sums of gradients of micro-batches.
        passing: peak of activations, gradients and masks.
        temporary: peak of what of it onnxruntime allocates. The rest is numpy's: buffers that are kept, without holes
            between them, masks, and gradients of whole tables.
    """

    mapped: Bytes
    held: Bytes
    passing: Bytes
    temporary: Bytes

    @property
    def allocated(self) -> Any:
        """``passing`` with what onnxruntime's allocator holds beside it."""
        return self.passing + _ARENA_SHARE * self.temporary

    @property
    def resident(self) -> Any:
        """Everything, with all mapped weights in memory."""
        return self.mapped + self.held + self.allocated


def held_bytes(trained: Bytes, optimizer: str, parts: bool) -> Bytes:
    """Return ``StepMemory.held`` from the bytes of the trained weights."""
    return trained * ({"adamw": 3, "sgd": 1}[optimizer] + int(parts))


class EngineMemory:
    """Predicts the memory of a compiled engine's steps.

    Args:
        graphs: files of the program's graphs.
        mapped: bytes of all weights.
    """

    def __init__(self, program: Program, graphs: Sequence[bytes], mapped: int) -> None:
        self._program, self._graphs, self._mapped = program, graphs, mapped

    @classmethod
    def of(cls, compiled: Compiled) -> EngineMemory:
        """Return the memory of an engine that is not written."""
        mapped = sum(value.numel() * value.element_size() for value in compiled.tensors.values())
        return cls(read_program(json.loads(json.dumps(compiled.program))), compiled.graphs, mapped)

    @classmethod
    def of_training(cls, model: nn.Module, layout: ModelLayout, head: Head) -> EngineMemory:
        """Return the memory of a reconfigured model's training step, of which nothing else is compiled.

        Its ``mapped`` bytes are those of all parameters and buffers.

        Raises:
            BadInput: as ``compile_step``.
        """
        entries, graphs = compile_training(model, layout, head)
        trained = (Stored(each["name"], each["shape"], ids=each.get("ids")) for each in entries["trained"])
        dropouts = (DropoutMask(tuple(each["shape"]), each["p"]) for each in entries["dropouts"])
        step = (Call(**{**each, "rows": tuple(each["rows"])}) for each in entries["step"])
        program = Program(
            graphs.opset, (), (), tuple(trained), (), tuple(dropouts), tuple(step), (), (), portion=PORTION
        )
        mapped = sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])
        return cls(program, graphs.models, mapped)

    def unused_bytes(self, model: nn.Module) -> int:
        """Return the bytes of the model's buffers that are neither saved nor taken by the step."""
        taken = {value for call in self._program.step for value in call.inputs.values()}
        saved = model.state_dict()
        buffers = {name: value for name, value in model.named_buffers() if name not in saved}
        return sum(
            value.numel() * value.element_size() for name, value in buffers.items() if f"weight:{name}" not in taken
        )

    @property
    def program(self) -> Program:
        """The program."""
        return self._program

    @property
    def trained_bytes(self) -> int:
        """The bytes of the trained tensors."""
        return sum(4 * int(np.prod(tensor.shape, dtype=np.int64)) for tensor in self._program.trained)

    @classmethod
    def of_folder(cls, folder: Path) -> EngineMemory:
        """Return the memory of an engine in a folder."""
        program = read_program(json.loads((folder / PROGRAM).read_text(encoding="utf-8")))
        graphs = [(folder / name).read_bytes() for name in program.graphs]
        return cls(program, graphs, (folder / WEIGHTS).stat().st_size)

    def step(self, rows: int, length: int, *, optimizer: str = "adamw", parts: bool = False) -> StepMemory[int]:
        """Return the memory of a step of ``rows`` sequences of ``length`` tokens.

        Args:
            optimizer: ``adamw`` or ``sgd``.
            parts: the rows are part of a batch, whose gradients are added up.
        """
        trained = self.trained_bytes
        pool, others = _Pool(), dict[str, int]()
        temporary = level = masks = 0
        for call in self.calls(rows, length):
            masks, before = max(masks, _highest(call.masks)), sum(others.values())
            temporary = max(temporary, before + _highest(call.inside))
            level = max(level, before + _highest((*call.inside, *call.tables)))
            others.update((value, made.bytes) for value, made in call.others.items())
            for value, made in call.buffers.items():
                pool.take(value, made.bytes)
            pool.lend([each.bytes for each in call.lent])
            for value in call.last:
                pool.give(value)
                others.pop(value, None)
        held = held_bytes(trained, optimizer, parts)
        return StepMemory(self._mapped, held, pool.held + level + masks, temporary)

    def calls(self, rows: int, length: int) -> Iterator[CallMemory]:
        """Yield the memory of each call of a step of ``rows`` sequences of ``length`` tokens."""
        calls = self._program.step
        last = {value: i for i, call in enumerate(calls) for value in (*call.inputs.values(), *call.outputs.values())}
        live: set[str] = set()
        for i, call in enumerate(calls):
            graph = self._graphs[call.graph]
            whole = _outputs(graph, rows, length)
            made = {value: whole[name] for name, value in call.outputs.items()}
            live.update(made)
            freed = tuple(value for value in sorted(live) if last[value] <= i)
            live.difference_update(freed)
            portion = self._portion(rows, length)
            inside = _inside(graph, portion if call.rows else rows, length, with_outputs=not call.rows)
            in_portions = bool(call.rows) and portion < rows
            lent = [whole[name] for name in call.outputs if in_portions and name not in call.rows]
            yield CallMemory(
                tuple(_briefly(self._masks_of(call, rows, length))),
                inside,
                tuple(_briefly(self._tables(call))),
                {} if call.rows else made,
                made if call.rows else {},
                tuple(_briefly(lent)),
                freed,
            )

    def _portion(self, rows: int, length: int) -> int:
        """Rows that are computed at once."""
        return portion_rows(rows, length, self._program.portion or rows * length)

    def _tables(self, call: Call) -> list[Allocation]:
        tables = {f"gradient:{tensor.name}": tensor for tensor in self._program.trained if tensor.ids is not None}
        return [_allocation(4, tables[value].shape) for value in call.outputs.values() if value in tables]

    def _masks_of(self, call: Call, rows: int, length: int) -> list[Allocation]:
        sizes = {"rows": rows, "length": length}
        numbers = {value.removeprefix("dropout:") for value in call.inputs.values() if value.startswith("dropout:")}
        shapes = [self._program.dropouts[int(number)].shape for number in sorted(numbers)]
        return [_allocation(1, [sizes.get(size, size) for size in shape]) for shape in shapes]


def _allocation(element: int, shape: Sequence[int]) -> Allocation:
    return Allocation(int(element * np.prod(shape, dtype=np.int64)), tuple(shape))


def _briefly(allocations: Sequence[Allocation]) -> list[Allocation]:
    """Allocate all, then free all."""
    return [*allocations, *(each.freed() for each in allocations)]


def _highest(allocations: Iterable[Allocation]) -> int:
    """The highest level of bytes over that before, at least 0."""
    return max(accumulate((each.bytes for each in allocations), initial=0))


class _Pool:
    """The blocks of ``onnx_engine.buffers`` in a step.

    Attributes:
        held: bytes of all blocks.
    """

    def __init__(self) -> None:
        self.held = 0
        self._free: Counter[int] = Counter()
        self._taken: dict[str, int] = {}

    def take(self, value: str, size: int) -> None:
        self._taken[value] = size
        if self._free[size]:
            self._free[size] -= 1
        else:
            self.held += size

    def give(self, value: str) -> None:
        if value in self._taken:
            self._free[self._taken.pop(value)] += 1

    def lend(self, sizes: Sequence[int]) -> None:
        """Take blocks of these sizes for a moment."""
        for i, size in enumerate(sizes):
            self.take(f"lent {i}", size)
        for i in range(len(sizes)):
            self.give(f"lent {i}")


@lru_cache(maxsize=4096)
def _outputs(graph: bytes, rows: int, length: int) -> Mapping[str, Allocation]:
    """A graph's outputs by name."""
    model = with_sizes(graph, rows, length)
    return {info.name: _described(info) for info in model.graph.output}


@lru_cache(maxsize=4096)
def _inside(graph: bytes, rows: int, length: int, with_outputs: bool) -> tuple[Allocation, ...]:
    """What a graph allocates and frees, with its outputs or without; in the end all is freed."""
    model = shape_inference.infer_shapes(with_sizes(graph, rows, length), data_prop=True)
    sizes = {info.name: _described(info) for info in (*model.graph.value_info, *model.graph.output)}
    results = {info.name for info in model.graph.output}
    owner = {name: name for name in sizes}
    uses = Counter(name for node in model.graph.node for name in node.input)
    live: Counter[str] = Counter()
    held: dict[str, Allocation] = {}
    log: list[Allocation] = []
    for node in model.graph.node:
        made = [name for name in node.output if name in sizes]
        taken = [owner[name] for name in node.input if name in owner]
        if node.op_type in _VIEWS and taken and made and made[0] not in results:
            owner[made[0]] = taken[0]
            live[taken[0]] += uses[made[0]]
        else:
            reused = _reused(node, made, taken, sizes, live, results)
            for name in made:
                if reused is not None:
                    owner[name] = reused
                    live[reused] += uses[name]
                    reused = None
                    continue
                live[name] = uses[name] + (name in results)
                if with_outputs or name not in results:
                    held[name] = sizes[name]
                    log.append(sizes[name])
        for name in taken:
            live[name] -= 1
            if live[name] == 0 and name in held:
                log.append(held.pop(name).freed())
    return (*log, *(each.freed() for each in held.values()))


def _reused(
    node: Any, made: list[str], taken: list[str], sizes: Mapping[str, Allocation], live: Mapping[str, int],
    results: set[str],
) -> str | None:  # fmt: skip
    """The operand whose memory the only output takes over."""
    if node.op_type not in _IN_PLACE or len(made) != 1 or made[0] in results:
        return None
    size = sizes[made[0]].bytes
    return next((name for name in taken if live[name] == taken.count(name) and sizes[name].bytes == size), None)


def _described(info: Any) -> Allocation:
    tensor = info.type.tensor_type
    element = helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    return _allocation(element, list(_dimensions(tensor)))


def _dimensions(tensor: Any) -> Iterator[int]:
    for dimension in tensor.shape.dim:
        if not dimension.HasField("dim_value"):
            raise ValueError("a size of a graph is not known")
        yield dimension.dim_value
