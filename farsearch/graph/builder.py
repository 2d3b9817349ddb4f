"""Build one ONNX graph: names, constants, sizes that depend on the batch, and transposes that are put off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from farsearch.graph.operation import Extent, Shape, Size

__all__ = ["LENGTH", "OPSET", "ROWS", "Builder", "Value"]

OPSET = 15
"""The newest that onnxruntime 1.10 knows, the last one with a wheel for Python 3.6."""

ROWS, LENGTH = "size:rows", "size:length"
"""Inputs that hold the sizes of the batch, int64 ``[1]``."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: of the ONNX value that holds it.
        shape: of this value, so with ``swapped`` that of the transposed.
        swapped: the ONNX value has the last two dimensions in the other order: products take it as it is.
        fill: every element is this number; there is no ONNX value unless it is asked for.
    """

    name: str
    shape: Shape
    swapped: bool = False
    fill: float | None = None
    dtype: str = "float32"

    @property
    def stored_shape(self) -> Shape:
        """The shape of the ONNX value."""
        return (*self.shape[:-2], self.shape[-1], self.shape[-2]) if self.swapped else self.shape


class Builder:
    """Nodes and initializers of one graph.

    Attributes:
        opset: the lowest that has all operators.
        sizes_used: of the inputs ``ROWS`` and ``LENGTH`` those that a node takes.
    """

    def __init__(self) -> None:
        self.opset = OPSET
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.sizes_used: set[str] = set()
        self._constants: dict[tuple[Any, ...], str] = {}
        self._sizes: dict[Any, str] = {}
        self._count = 0

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str] | int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the names of several."""
        if isinstance(outputs, int):
            outputs = [self._name(op) for _ in range(outputs)]
        domain = attributes.pop("domain", "")
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), domain=domain, **attributes))
        return outputs[0] if len(outputs) == 1 else outputs

    def _name(self, op: str) -> str:
        self._count += 1
        return f"{op.lower()}_{self._count}"

    def constant(self, array: NDArray[Any]) -> Value:
        """A constant of the graph, each once."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._name("constant")
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return Value(self._constants[key], tuple(array.shape), dtype=str(array.dtype))

    def scalar(self, number: float, dtype: Any = np.float32) -> str:
        """The name of a constant of no dimension."""
        return self.constant(np.asarray(number, dtype)).name

    def integers(self, *numbers: int) -> str:
        """The name of a constant of one dimension."""
        return self.constant(np.asarray(numbers, np.int64)).name

    def sizes(self, shape: Sequence[Size]) -> str:
        """The name of a tensor ``[dimensions]`` that holds a shape."""
        fixed = [size for size in shape if isinstance(size, int)]
        if len(fixed) == len(shape):
            return self.integers(*fixed)
        key = tuple(shape)
        if key not in self._sizes:
            parts = [self.integers(size) if isinstance(size, int) else self._extent(size) for size in shape]
            self._sizes[key] = parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=0)
        return self._sizes[key]

    def _extent(self, size: Extent) -> str:
        """A size of the batch as a tensor of one element."""
        if size not in self._sizes:
            names = [name for name, used in ((ROWS, size.rows), (LENGTH, size.length)) if used]
            self.sizes_used.update(names)
            found = names[0] if len(names) == 1 else self.node("Mul", names)
            if size.factor != 1:
                found = self.node("Mul", [found, self.integers(size.factor)])
            if size.offset:
                found = self.node("Add", [found, self.integers(size.offset)])
            self._sizes[size] = found
        return self._sizes[size]

    def dense(self, value: Value) -> str:
        """The name of an ONNX value that holds it in its own order."""
        if value.fill is not None:
            name = self.constant(np.asarray(value.fill, value.dtype)).name
            return name if not value.shape else self.node("Expand", [name, self.sizes(value.shape)])
        return self.transpose(replace(value, swapped=False), None) if value.swapped else value.name

    def transpose(self, value: Value, order: Sequence[int] | None) -> str:
        """A transposed copy; ``order`` None swaps the last two dimensions."""
        if order is None:
            order = [*range(len(value.shape) - 2), len(value.shape) - 1, len(value.shape) - 2]
        return self.node("Transpose", [value.name], perm=list(order))  # type: ignore[no-any-return]

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same elements in another shape."""
        if value.shape == shape:
            return value
        if value.fill is not None:
            return replace(value, shape=shape)
        wanted: list[Size] = list(shape)
        open_sizes = [i for i, size in enumerate(shape) if not isinstance(size, int)]
        # 0 is the size that the input has at that place, -1 what is left
        for i in open_sizes:
            if i < len(value.shape) and value.shape[i] == shape[i]:
                wanted[i] = 0
        rest = [i for i in open_sizes if wanted[i] != 0]
        if len(rest) == 1:
            wanted[rest[0]] = -1
        return Value(self.node("Reshape", [self.dense(value), self.sizes(wanted)]), shape, dtype=value.dtype)
