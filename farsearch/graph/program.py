"""Cut a trace into calls of small graphs, which are equal for equal layers.

The runner makes the calls one after another and frees a value after its last use, so that the order in which torch
executes a step, and what it recomputes, is kept whatever order the inference engine prefers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Extent, Operation, Shape, operands
from farsearch.graph.operators import OPERATORS
from farsearch.graph.portions import Spread, by_rows, grows, spreads
from farsearch.graph.trace import Trace

__all__ = ["Call", "Graphs", "calls_of"]

_FREE = frozenset(
    {
        "view", "view_copy", "_unsafe_view", "unsqueeze", "unsqueeze_copy", "squeeze", "squeeze_copy", "reshape", "t",
        "t_copy", "transpose", "transpose_copy", "expand", "expand_copy", "clone", "detach", "detach_copy", "alias",
        "alias_copy", "lift_fresh_copy", "empty_like", "zeros_like", "ones_like", "new_empty", "new_zeros", "new_ones",
        "zeros", "ones", "empty", "full", "full_like", "constant", "arange", "to_float", "logical_not",
    }
)  # fmt: skip
"""Operations that are repeated in each call that needs them, instead of saving their result."""
_CHEAP = frozenset({"scale_shift"})
"""Likewise in the backward pass."""
_PADDED = frozenset({"constant_pad_nd", "select_backward", "slice_backward"})


@dataclass(frozen=True)
class Call:
    """A run of one graph.

    Attributes:
        graph: its number.
        inputs, outputs: names of the program's values by the names of the graph's.
        rows: of the graph's names those whose first dimension consists of the rows; a portion of the rows takes and
            gives a part of these, and the other outputs are added up. Empty for a call that takes all rows at once.
    """

    graph: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    rows: tuple[str, ...] = ()


@dataclass
class Graphs:
    """The different graphs of a program."""

    models: list[bytes] = field(default_factory=list)
    opset: int = 0

    def number(self, model: onnx.ModelProto) -> int:
        """The number of a graph, the same for equal ones."""
        self.opset = max(self.opset, model.opset_import[0].version)
        data = model.SerializeToString(deterministic=True)
        if data not in self.models:
            self.models.append(data)
        return self.models.index(data)


def calls_of(trace: Trace, graphs: Graphs) -> list[Call]:
    """Return the calls that compute a trace's outputs; their graphs are added to ``graphs``.

    Raises:
        BadInput: for an operator that can't be lowered.
    """
    cutter = _Cutter(trace)
    return [cutter.call(group, graphs) for group in cutter.groups if group]


class _Cutter:
    def __init__(self, trace: Trace) -> None:
        self._names = {value: name for name, value in trace.outputs.items()}
        self._place, self.groups = _grouped(trace)
        loss = trace.outputs.get("loss")
        self._turn = len(self.groups) if loss is None else self._place[loss]
        self._values: dict[Operation, Value] = {}
        """Values between calls, with the names of the program."""
        self._count = 0
        self.groups = [self._with_copies(number, group) for number, group in enumerate(self.groups)]
        needed = set(trace.outputs.values())
        for group in reversed(self.groups):
            for operation in reversed(group):
                if operation in needed:
                    needed.update(operands(operation))
        self.groups = [[operation for operation in group if operation in needed] for group in self.groups]
        self._wanted = set(trace.outputs.values())
        for number, group in enumerate(self.groups):
            taken = {operand for operation in group for operand in operands(operation)}
            self._wanted.update(operand for operand in taken if self._place.get(operand, number) != number)

    def _with_copies(self, number: int, group: list[Operation]) -> list[Operation]:
        """The operations of a group, with copies of the free ones of others that it needs."""
        copies: dict[Operation, Operation] = {}
        made: list[Operation] = []

        def here(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(here(each) for each in value)
            if not isinstance(value, Operation) or self._place.get(value, number) == number:
                return value
            free = value.name in _FREE or (value.name in _CHEAP and number > self._turn)
            if not free:
                return value
            if value not in copies:
                copies[value] = replace(value, args=here(value.args))
                self._place[copies[value]] = number
                made.append(copies[value])
            return copies[value]

        for operation in group:
            operation.args = here(operation.args)
            made.append(operation)
        return made

    def call(self, group: list[Operation], graphs: Graphs) -> Call:
        builder, lowering = Builder(), _Lowering(self._values)
        for operation in group:
            lowering.lower(builder, operation)
        outputs: dict[str, str] = {}
        results: dict[str, Operation] = {}
        infos: list[onnx.ValueInfoProto] = []
        for operation in group:
            if operation in self._wanted:
                self._publish(operation, lowering, builder, outputs, results, infos)
        nodes = _needed(builder.nodes, outputs)
        sizes = [_info(name, "int64", (1,)) for name in sorted(builder.sizes_used)]
        inner = _padded(group, lowering, {name for node in nodes for name in node.output} - set(outputs))
        graph = helper.make_graph(
            nodes, "call", [*lowering.infos, *sizes], infos, builder.initializers, value_info=inner
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", builder.opset), helper.make_opsetid("com.microsoft", 1)]
        )
        model.ir_version = 8
        inputs = {local: name for name, local in lowering.locals.items()}
        inputs.update((name, name) for name in sorted(builder.sizes_used))
        return Call(graphs.number(model), inputs, outputs, self._rows(group, lowering, results))

    def _rows(self, group: list[Operation], lowering: _Lowering, results: Mapping[str, Operation]) -> tuple[str, ...]:
        """Inputs and outputs that consist of the rows, if the call can be computed in portions of them."""
        rows = []
        for name, shape in lowering.shapes.items():
            if by_rows(shape):
                rows.append(name)
            elif grows(shape):
                return ()
        found = spreads(group)
        for name, operation in results.items():
            if found[operation] is Spread.ROWS and by_rows(self._values[operation].stored_shape):
                rows.append(name)
            elif found[operation] is not Spread.SUM:
                return ()
        return tuple(rows)

    def _publish(
        self, operation: Operation, lowering: _Lowering, builder: Builder, outputs: dict[str, str],
        results: dict[str, Operation], infos: list[onnx.ValueInfoProto],
    ) -> None:  # fmt: skip
        """Make a result one of the graph's outputs."""
        value = lowering.values[operation]
        final = self._names.get(operation)
        if isinstance(value, tuple):
            return  # its items are what others use
        if final is not None and (value.fill is not None or value.swapped):
            value = Value(builder.dense(value), value.shape, dtype=value.dtype)
        if value.fill is not None:
            self._values[operation] = value
            return
        known = {local: name for name, local in lowering.locals.items()}
        if value.name in known and final is None:
            self._values[operation] = replace(value, name=known[value.name])
            return
        if value.name in outputs and final is None:
            self._values[operation] = replace(value, name=outputs[value.name])
            return
        local = value.name
        if local in known or local in outputs or not any(local in node.output for node in builder.nodes):
            local = builder.node("Identity", [local])
        if final is None:
            final = f"v{self._count}"
            self._count += 1
        outputs[local] = final
        results[local] = operation
        infos.append(_info(local, value.dtype, value.stored_shape))
        self._values[operation] = replace(value, name=final)


def _padded(group: list[Operation], lowering: _Lowering, names: set[str]) -> list[onnx.ValueInfoProto]:
    """Shapes of padded values: that they follow from the batch is not inferred from a graph (memory.py needs them)."""
    values = [lowering.values[each] for each in group if each.name in _PADDED]
    return [_info(each.name, each.dtype, each.stored_shape) for each in values if each.name in names]


def _needed(nodes: list[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that an output depends on: onnxruntime would execute the others too."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _grouped(trace: Trace) -> tuple[dict[Operation, int], list[list[Operation]]]:
    """The group of each operation, and the groups; inputs belong to none."""
    place: dict[Operation, int] = {}
    groups: list[list[Operation]] = [[]]
    for operation in trace.operations:
        if operation.name == "cut":
            if groups[-1]:
                groups.append([])
        elif operation.name != "input":
            place[operation] = len(groups) - 1
            groups[-1].append(operation)
    return place, groups


class _Lowering:
    """The values of one graph."""

    def __init__(self, outer: Mapping[Operation, Value]) -> None:
        self._outer = outer
        self.values: dict[Operation, Any] = {}
        self.locals: dict[str, str] = {}
        """Names of the graph's inputs by those of the program's values."""
        self.infos: list[onnx.ValueInfoProto] = []
        self.shapes: dict[str, Shape] = {}
        """Shapes of the graph's inputs, as they are stored."""

    def lower(self, builder: Builder, operation: Operation) -> None:
        for operand in operands(operation):
            if operand not in self.values:
                self.values[operand] = self._input(operand)
        if operation.name == "constant":
            self.values[operation] = builder.constant(operation.args[0])
        else:
            self.values[operation] = OPERATORS.lower(builder, operation, self.values)

    def _input(self, operation: Operation) -> Value:
        if operation.name == "input":
            value = Value(operation.args[0], operation.shape, dtype=operation.dtype)
        else:
            value = self._outer[operation]
        if value.fill is not None:
            return value
        if value.name not in self.locals:
            self.locals[value.name] = f"in_{len(self.locals)}"
            self.infos.append(_info(self.locals[value.name], value.dtype, value.stored_shape))
            self.shapes[self.locals[value.name]] = value.stored_shape
        return replace(value, name=self.locals[value.name])


def _info(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(_dims(shape)))


def _dims(shape: Shape) -> Iterator[int | str]:
    for size in shape:
        if isinstance(size, Extent):
            parts = [*(["rows"] if size.rows else []), *(["length"] if size.length else [])]
            factor = [str(size.factor)] if size.factor != 1 else []
            yield "*".join(factor + parts) + (f"{size.offset:+d}" if size.offset else "")
        else:
            yield size
