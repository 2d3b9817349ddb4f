"""Build an ONNX graph: names, constants, shapes with a symbolic length, and transposes that are put off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import sympy
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, fx

__all__ = ["Builder", "Shape", "Value"]

Size = Any
"""An int, or a sympy expression of the length."""
Shape = tuple[Size, ...]


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
    dtype: Any = torch.float32


class Builder:
    """Nodes and initializers of one graph.

    Args:
        length_of: the input whose second dimension is the length, by name and as a traced tensor.
    """

    def __init__(self, length_of: tuple[str, Tensor]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._sizes: dict[Any, str] = {}
        self._count = 0
        name, value = length_of
        size: Any = value.shape[1]
        self.length = sympy.Symbol("length")
        self._symbol = size.node.expr
        self._source = name

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
        return Value(self._constants[key], tuple(array.shape))

    def scalar(self, number: float, dtype: Any = np.float32) -> str:
        """The name of a constant of no dimension."""
        return self.constant(np.asarray(number, dtype)).name

    def integers(self, *numbers: int) -> str:
        """The name of a constant of one dimension."""
        return self.constant(np.asarray(numbers, np.int64)).name

    def size(self, value: Any) -> Size:
        """A traced size as an int, or as an expression of the length."""
        if isinstance(value, fx.Node):
            value = value.meta["val"]
        if isinstance(value, torch.SymInt):
            value = value.node.expr
        if isinstance(value, sympy.Basic):
            value = value.subs({self._symbol: self.length})
            return int(value) if value.is_Integer else value
        return value

    def shape(self, sizes: Sequence[Any]) -> Shape:
        """Likewise for every dimension."""
        return tuple(self.size(size) for size in sizes)

    def is_tensor(self, node: fx.Node) -> bool:
        """The node's value is a tensor or several."""
        return isinstance(node.meta.get("val"), Tensor | tuple | list)

    def shape_of(self, node: fx.Node) -> Shape:
        """Of a node's value, a single tensor."""
        return self.shape(node.meta["val"].shape)

    def sizes(self, shape: Sequence[Size]) -> str:
        """The name of a tensor ``[dimensions]`` that holds a shape."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(*shape)
        key = tuple(shape)
        if key not in self._sizes:
            parts = [self.integers(size) if isinstance(size, int) else self._expression(size) for size in shape]
            self._sizes[key] = parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=0)
        return self._sizes[key]

    def _expression(self, size: Any) -> str:
        """An expression of the length as a tensor of one element: ``a length + b``."""
        if size not in self._sizes:
            if size == self.length:
                found = self.node("Shape", [self._source], start=1, end=2)
            else:
                slope, rest = sympy.Poly(size, self.length).all_coeffs()
                found = self._expression(self.length)
                if slope != 1:
                    found = self.node("Mul", [found, self.integers(int(slope))])
                if rest != 0:
                    found = self.node("Add", [found, self.integers(int(rest))])
            self._sizes[size] = found
        return self._sizes[size]

    def dense(self, value: Value) -> str:
        """The name of an ONNX value that holds it in its own order."""
        if value.fill is not None:
            array = np.asarray(value.fill, str(value.dtype).split(".")[1])
            name = self.constant(array).name
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
        open_sizes = [size for size in shape if not isinstance(size, int)]
        if len(open_sizes) <= 1:
            wanted = self.integers(*(size if isinstance(size, int) else -1 for size in shape))
        else:
            wanted = self.sizes(shape)
        return Value(self.node("Reshape", [self.dense(value), wanted]), shape)
