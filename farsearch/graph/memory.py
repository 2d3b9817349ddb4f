"""Memory of a compiled step, from its graphs, their order, and the lifetimes of their values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from farsearch.graph.compiler import PROGRAM, WEIGHTS, Compiled
from farsearch.runtime.onnx_engine.buffers import portion_rows, size_of
from farsearch.runtime.program_file import Call, Program, read_program

__all__ = ["EngineMemory", "StepMemory"]

_ARENA_SHARE = 0.3
"""Memory that onnxruntime's allocator holds beside the temporaries of graphs, as a share of them (docs/log.md)."""

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operators whose output is their input's memory."""
_IN_PLACE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Sqrt", "Reciprocal", "Neg", "Exp", "Tanh", "Relu", "Softmax", "Not", "Erf"}
)
"""Operators that write over an input of the same size that nothing takes afterwards."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step beside the process.

    Attributes:
        mapped: weights in their file, which the system reads as they are needed and may drop again.
        held: trained weights, the optimizer's state, and the sums of gradients of micro-batches.
        passing: peak of activations, gradients and masks.
        temporary: what of it onnxruntime allocates. The rest is in buffers that are kept, without holes between them.
    """

    mapped: int
    held: int
    passing: int
    temporary: int = 0

    @property
    def allocated(self) -> float:
        """``passing`` with what onnxruntime's allocator holds beside it."""
        return self.passing + _ARENA_SHARE * self.temporary

    @property
    def resident(self) -> float:
        """Everything, with all mapped weights in memory."""
        return self.mapped + self.held + self.allocated


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
    def of_folder(cls, folder: Path) -> EngineMemory:
        """Return the memory of an engine in a folder."""
        program = read_program(json.loads((folder / PROGRAM).read_text(encoding="utf-8")))
        graphs = [(folder / name).read_bytes() for name in program.graphs]
        return cls(program, graphs, (folder / WEIGHTS).stat().st_size)

    def step(self, rows: int, length: int, *, optimizer: str = "adamw", parts: bool = False) -> StepMemory:
        """Return the memory of a step of ``rows`` sequences of ``length`` tokens.

        Args:
            optimizer: ``adamw`` or ``sgd``.
            parts: the rows are part of a batch, whose gradients are added up.
        """
        program = self._program
        trained = sum(4 * int(np.prod(tensor.shape, dtype=np.int64)) for tensor in program.trained)
        held = trained * ({"adamw": 3, "sgd": 1}[optimizer] + int(parts))
        buffers, temporary, masks = self._passing(rows, length)
        return StepMemory(self._mapped, held, buffers + temporary + masks, temporary)

    def _passing(self, rows: int, length: int) -> tuple[int, int, int]:
        """Bytes of the runner's buffers, of what onnxruntime allocates, and of masks: the highest of each."""
        calls = self._program.step
        last = {value: i for i, call in enumerate(calls) for value in (*call.inputs.values(), *call.outputs.values())}
        pool, others = _Pool(), dict[str, int]()
        temporary = masks = 0
        for i, call in enumerate(calls):
            masks = max(masks, self._masks_of(call, rows, length))
            whole = _output_bytes(self._graphs[call.graph], rows, length)
            outside = sum(others.values())
            temporary = max(temporary, outside + self._inside(call, rows, length), outside + self._scattered(call))
            for name, value in call.outputs.items():
                if call.rows:
                    pool.take(value, whole[name])
                else:
                    others[value] = whole[name]
            if self._portion(rows, length) < rows and call.rows:
                pool.lend([whole[name] for name in call.outputs if name not in call.rows])
            for value in {*call.inputs.values(), *call.outputs.values()}:
                if last[value] == i:
                    pool.give(value)
                    others.pop(value, None)
        return pool.held, temporary, masks

    def _portion(self, rows: int, length: int) -> int:
        """Rows that are computed at once."""
        return portion_rows(rows, length, self._program.portion or rows * length)

    def _inside(self, call: Call, rows: int, length: int) -> int:
        """Bytes that onnxruntime allocates in a call, its outputs among them if the runner does not provide them."""
        if not call.rows:
            return _peaks(self._graphs[call.graph], rows, length)[0]
        return _peaks(self._graphs[call.graph], self._portion(rows, length), length)[1]

    def _scattered(self, call: Call) -> int:
        """Bytes of the gradient of a whole table, which the runner makes from those of its rows."""
        tables = {f"gradient:{tensor.name}": tensor for tensor in self._program.trained if tensor.ids is not None}
        made = [tables[value] for value in call.outputs.values() if value in tables]
        return sum(4 * int(np.prod(tensor.shape, dtype=np.int64)) for tensor in made)

    def _masks_of(self, call: Call, rows: int, length: int) -> int:
        sizes = {"rows": rows, "length": length}
        numbers = {value.removeprefix("dropout:") for value in call.inputs.values() if value.startswith("dropout:")}
        shapes = [self._program.dropouts[int(number)].shape for number in numbers]
        return sum(int(np.prod([sizes.get(size, size) for size in shape], dtype=np.int64)) for shape in shapes)


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
def _output_bytes(graph: bytes, rows: int, length: int) -> Mapping[str, int]:
    """Bytes of a graph's outputs by name."""
    return {info.name: _bytes(info) for info in _with_sizes(onnx.load_from_string(graph), rows, length).graph.output}


@lru_cache(maxsize=4096)
def _peaks(graph: bytes, rows: int, length: int) -> tuple[int, int]:
    """Highest bytes of a graph's values: with its outputs, and without."""
    model = shape_inference.infer_shapes(_with_sizes(onnx.load_from_string(graph), rows, length), data_prop=True)
    sizes = {info.name: _bytes(info) for info in (*model.graph.value_info, *model.graph.output)}
    results = {info.name for info in model.graph.output}
    owner = {name: name for name in sizes}
    uses = Counter(name for node in model.graph.node for name in node.input)
    live: Counter[str] = Counter()
    held = given = peak = inside = 0
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
                held += sizes[name]
                given += sizes[name] if name in results else 0
        peak, inside = max(peak, held), max(inside, held - given)
        for name in taken:
            live[name] -= 1
            if live[name] == 0:
                held -= sizes[name]
    return peak, inside


def _reused(
    node: Any, made: list[str], taken: list[str], sizes: Mapping[str, int], live: Mapping[str, int], results: set[str]
) -> str | None:
    """The operand whose memory the only output takes over."""
    if node.op_type not in _IN_PLACE or len(made) != 1 or made[0] in results:
        return None
    return next((name for name in taken if live[name] == taken.count(name) and sizes[name] == sizes[made[0]]), None)


def _with_sizes(model: Any, rows: int, length: int) -> Any:
    """The graph with the sizes of one batch in place of names such as ``2*rows*length``."""
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = size_of(dimension.dim_param, rows, length)
    given = {"size:rows": rows, "size:length": length}
    for info in list(model.graph.input):
        if info.name in given:
            model.graph.input.remove(info)
            value = helper.make_tensor(info.name, onnx.TensorProto.INT64, [1], [given[info.name]])
            model.graph.initializer.append(value)
    _fold_sizes(model.graph)
    return model


_OF_SIZES: Mapping[str, Callable[..., Any]] = {
    "Mul": np.multiply,
    "Add": np.add,
    "Concat": lambda *parts: np.concatenate(parts),
}
"""Operators that compute sizes from sizes, all of one dimension."""


def _fold_sizes(graph: Any) -> None:
    """Replace what is computed from sizes alone by its result: onnx takes the pads of a Pad from a constant only."""
    known = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in list(graph.node):
        if node.op_type in _OF_SIZES and all(name in known and known[name].dtype == np.int64 for name in node.input):
            (name,) = node.output
            known[name] = _OF_SIZES[node.op_type](*(known[each] for each in node.input))
            graph.initializer.append(numpy_helper.from_array(known[name], name))
            graph.node.remove(node)


def _bytes(info: Any) -> int:
    tensor = info.type.tensor_type
    element = helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    return int(element * np.prod(list(_dimensions(tensor)), dtype=np.int64))


def _dimensions(tensor: Any) -> Iterator[int]:
    for dimension in tensor.shape.dim:
        if not dimension.HasField("dim_value"):
            raise ValueError("a size of a graph is not known")
        yield dimension.dim_value
