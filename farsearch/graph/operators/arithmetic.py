"""Element by element, sums, comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Extent, Operation
from farsearch.graph.operators.registry import OPERATORS, Lowering


def _operand(builder: Builder, x: Any, dtype: str) -> str:
    """A tensor, a number or a size of the batch as ``dtype``."""
    if isinstance(x, Extent):
        x = Value(builder.sizes([x]), (1,), dtype="int64")
    if not isinstance(x, Value):
        return builder.scalar(x, dtype)
    return builder.dense(x) if x.dtype == dtype else _cast(builder, x, dtype)


def _cast(builder: Builder, x: Value, dtype: str) -> str:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return builder.node("Cast", [builder.dense(x)], to=element)  # type: ignore[no-any-return]


def _common(*operands: Any) -> str:
    """The type in which operands are compared."""
    dtypes = {x.dtype for x in operands if isinstance(x, Value)}
    if any(isinstance(x, float) for x in operands) or "float32" in dtypes:
        return "float32"
    return next((dtype for dtype in ("int64", "int32", "bool") if dtype in dtypes), "int64")


def _binary(op: str) -> Lowering:
    def lower(builder: Builder, node: Operation, x: Any, y: Any, *_: Any) -> Value:
        alpha: Any = node.kwargs.get("alpha", 1)
        if op == "Add" and alpha == 1:
            for zero, other in ((x, y), (y, x)):
                if isinstance(zero, Value) and zero.fill == 0.0 and isinstance(other, Value):
                    return other
        right = _operand(builder, y, node.dtype)
        if alpha != 1:
            right = builder.node("Mul", [right, builder.scalar(alpha, node.dtype)])
        return Value(builder.node(op, [_operand(builder, x, node.dtype), right]), node.shape, dtype=node.dtype)

    return lower


for _name, _op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"), ("bitwise_and", "And"),
                   ("logical_and", "And"), ("bitwise_or", "Or"), ("minimum", "Min"), ("maximum", "Max")):  # fmt: skip
    OPERATORS(_name)(_binary(_op))


def _comparison(op: str, negated: bool) -> Lowering:
    def lower(builder: Builder, node: Operation, x: Any, y: Any) -> Value:
        dtype = _common(x, y)
        name = builder.node(op, [_operand(builder, x, dtype), _operand(builder, y, dtype)])
        return Value(builder.node("Not", [name]) if negated else name, node.shape, dtype="bool")

    return lower


for _name, _op, _negated in (("eq", "Equal", False), ("ne", "Equal", True), ("lt", "Less", False),
                             ("gt", "Greater", False), ("le", "Greater", True), ("ge", "Less", True)):  # fmt: skip
    OPERATORS(_name)(_comparison(_op, _negated))


def _unary(op: str) -> Lowering:
    def lower(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
        return Value(builder.node(op, [builder.dense(x)]), node.shape, dtype=node.dtype)

    return lower


for _name, _op in (("relu", "Relu"), ("tanh", "Tanh"), ("logical_not", "Not"), ("bitwise_not", "Not"), ("neg", "Neg"),
                   ("exp", "Exp"), ("sigmoid", "Sigmoid"), ("log", "Log"), ("sqrt", "Sqrt"), ("abs", "Abs"),
                   ("sign", "Sign"), ("ceil", "Ceil"), ("cos", "Cos"), ("sin", "Sin")):  # fmt: skip
    OPERATORS(_name)(_unary(_op))


@OPERATORS("log1p")
def _log1p(builder: Builder, node: Operation, x: Value) -> Value:
    return Value(builder.node("Log", [builder.node("Add", [builder.dense(x), builder.scalar(1.0)])]), node.shape)


@OPERATORS("_to_copy", "to_float")
def _to_copy(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    return x if x.dtype == node.dtype else Value(_cast(builder, x, node.dtype), node.shape, dtype=node.dtype)


@OPERATORS("clamp")
def _clamp(builder: Builder, node: Operation, x: Value, low: Any = None, high: Any = None) -> Value:
    name = builder.dense(x)
    for op, bound in (("Max", low), ("Min", high)):
        if bound is not None:
            name = builder.node(op, [name, _operand(builder, bound, x.dtype)])
    return Value(name, node.shape, dtype=node.dtype)


OPERATORS("clamp_min")(_clamp)


@OPERATORS("where")
def _where(builder: Builder, node: Operation, condition: Value, x: Any, y: Any) -> Value:
    names = [builder.dense(condition), *(_operand(builder, each, node.dtype) for each in (x, y))]
    return Value(builder.node("Where", names), node.shape, dtype=node.dtype)


@OPERATORS("masked_fill")
def _masked_fill(builder: Builder, node: Operation, x: Value, mask: Value, number: Any) -> Value:
    names = [builder.dense(mask), _operand(builder, number, node.dtype), _operand(builder, x, node.dtype)]
    return Value(builder.node("Where", names), node.shape, dtype=node.dtype)


@OPERATORS("cumsum")
def _cumsum(builder: Builder, node: Operation, x: Value, dim: int, *_: Any) -> Value:
    name = builder.node("CumSum", [_operand(builder, x, node.dtype), builder.scalar(dim, np.int64)])
    return Value(name, node.shape, dtype=node.dtype)


@OPERATORS("sum")
def _sum(builder: Builder, node: Operation, x: Value, dims: Any = None, keepdim: bool = False, *_: Any) -> Value:
    axes = [builder.integers(*dims)] if dims else []
    name = builder.node("ReduceSum", [_operand(builder, x, node.dtype), *axes], keepdims=int(keepdim))
    return Value(name, node.shape, dtype=node.dtype)


@OPERATORS("mean")
def _mean(builder: Builder, node: Operation, x: Value, dims: Any = None, keepdim: bool = False, *_: Any) -> Value:
    axes = {"axes": list(dims)} if dims else {}
    return Value(builder.node("ReduceMean", [builder.dense(x)], keepdims=int(keepdim), **axes), node.shape)


@OPERATORS("threshold_backward")
def _threshold_backward(builder: Builder, node: Operation, g: Value, x: Value, threshold: float) -> Value:
    above = builder.node("Greater", [builder.dense(x), builder.scalar(threshold)])
    return Value(builder.node("Where", [above, builder.dense(g), builder.scalar(0.0)]), node.shape)


@OPERATORS("tanh_backward")
def _tanh_backward(builder: Builder, node: Operation, g: Value, y: Value) -> Value:
    name = builder.dense(y)
    slope = builder.node("Sub", [builder.scalar(1.0), builder.node("Mul", [name, name])])
    return Value(builder.node("Mul", [builder.dense(g), slope]), node.shape)
