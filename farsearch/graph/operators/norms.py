"""LayerNorm, softmax and dropout."""

from __future__ import annotations

from typing import Any

from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Operation
from farsearch.graph.operators.registry import OPERATORS


@OPERATORS("drop")
def _drop(builder: Builder, node: Operation, x: Value, mask: Value, scale: float) -> Value:
    kept = builder.node("Where", [builder.dense(mask), builder.scalar(0.0), builder.dense(x)])
    return Value(builder.node("Mul", [kept, builder.scalar(scale)]), node.shape, dtype=node.dtype)


@OPERATORS("normalise")
def _normalise(builder: Builder, node: Operation, x: Value, eps: float) -> tuple[Value, ...]:
    """The normalised input, and 1 / deviation."""
    name = builder.dense(x)
    centred = builder.node("Sub", [name, builder.node("ReduceMean", [name], axes=[-1])])
    variance = builder.node("ReduceMean", [builder.node("Mul", [centred, centred])], axes=[-1])
    inverse = builder.node("Reciprocal", [builder.node("Sqrt", [builder.node("Add", [variance, builder.scalar(eps)])])])
    normal = builder.node("Mul", [centred, inverse])
    return tuple(Value(each, shape) for each, shape in zip((normal, inverse), node.shape, strict=True))


@OPERATORS("scale_shift")
def _scale_shift(builder: Builder, node: Operation, normal: Value, weight: Value, bias: Value | None) -> Value:
    y = builder.node("Mul", [builder.dense(normal), builder.dense(weight)])
    return Value(y if bias is None else builder.node("Add", [y, builder.dense(bias)]), node.shape, dtype=node.dtype)


@OPERATORS("normalise_backward")
def _normalise_backward(
    builder: Builder, node: Operation, g: Value, normal: Value, rstd: Value, weight: Value, wanted: list[bool]
) -> tuple[Value | None, ...]:
    """``dx = r (u - mean(u) - n mean(u n))`` with n the normalised input, ``u = g w``, and r 1 / deviation."""
    above, n = builder.dense(g), builder.dense(normal)
    rest = builder.integers(*range(len(g.shape) - 1))
    found: list[str | None] = [None, None, None]
    if wanted[0]:
        u = builder.node("Mul", [above, builder.dense(weight)])
        along = builder.node("ReduceMean", [builder.node("Mul", [u, n])], axes=[-1])
        flat = builder.node("Sub", [u, builder.node("ReduceMean", [u], axes=[-1])])
        part = builder.node("Sub", [flat, builder.node("Mul", [n, along])])
        found[0] = builder.node("Mul", [part, builder.dense(rstd)])
    if wanted[1]:
        found[1] = builder.node("ReduceSum", [builder.node("Mul", [above, n]), rest], keepdims=0)
    if wanted[2]:
        found[2] = builder.node("ReduceSum", [above, rest], keepdims=0)
    return tuple(None if name is None else Value(name, shape) for name, shape in zip(found, node.shape, strict=True))


@OPERATORS("_softmax")
def _softmax(builder: Builder, node: Operation, x: Value, dim: int, _half: bool) -> Value:
    return Value(builder.node("Softmax", [builder.dense(x)], axis=dim), node.shape, dtype=node.dtype)


@OPERATORS("_log_softmax")
def _log_softmax(builder: Builder, node: Operation, x: Value, dim: int, _half: bool) -> Value:
    return Value(builder.node("LogSoftmax", [builder.dense(x)], axis=dim), node.shape, dtype=node.dtype)


@OPERATORS("_softmax_backward_data")
def _softmax_backward(builder: Builder, node: Operation, g: Value, y: Value, dim: int, _dtype: Any) -> Value:
    product = builder.node("Mul", [builder.dense(g), builder.dense(y)])
    total = builder.node("ReduceSum", [product, builder.integers(dim)])
    return Value(builder.node("Sub", [product, builder.node("Mul", [builder.dense(y), total])]), node.shape)


@OPERATORS("_log_softmax_backward_data")
def _log_softmax_backward(builder: Builder, node: Operation, g: Value, y: Value, dim: int, _dtype: Any) -> Value:
    above = builder.dense(g)
    total = builder.node("ReduceSum", [above, builder.integers(dim)])
    share = builder.node("Mul", [builder.node("Exp", [builder.dense(y)]), total])
    return Value(builder.node("Sub", [above, share]), node.shape, dtype=node.dtype)
