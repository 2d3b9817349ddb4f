"""Products of matrices, and rows of tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from farsearch.errors import BadInput
from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Operation
from farsearch.graph.operators.registry import OPERATORS

__all__ = ["MOST_ROWS"]


def _product(builder: Builder, node: Operation, left: Value, right: Value, bias: Value | None = None) -> Value:
    """Of matrices; a transposed factor is taken as it lies."""
    names = [_factor(builder, left), _factor(builder, right)]
    if bias is not None and bias.fill != 0.0:
        names.append(builder.dense(bias))
    name = builder.node("Gemm", names, transA=int(left.swapped), transB=int(right.swapped))
    return Value(name, node.shape, dtype=node.dtype)


def _factor(builder: Builder, x: Value) -> str:
    return x.name if x.swapped else builder.dense(x)


@OPERATORS("mm")
def _mm(builder: Builder, node: Operation, left: Value, right: Value) -> Value:
    return _product(builder, node, left, right)


@OPERATORS("addmm")
def _addmm(builder: Builder, node: Operation, bias: Value, left: Value, right: Value) -> Value:
    return _product(builder, node, left, right, bias)


@OPERATORS("bmm")
def _bmm(builder: Builder, node: Operation, left: Value, right: Value) -> Value:
    names = [_factor(builder, left), _factor(builder, right)]
    swaps = {"transA": int(left.swapped), "transB": int(right.swapped)}
    kind: dict[str, Any] = {"domain": "com.microsoft", **swaps} if any(swaps.values()) else {}
    return Value(builder.node("FusedMatMul" if kind else "MatMul", names, **kind), node.shape, dtype=node.dtype)


@OPERATORS("embedding")
def _embedding(builder: Builder, node: Operation, table: Value, ids: Value, *_: Any) -> Value:
    return Value(
        builder.node("Gather", [builder.dense(table), builder.dense(ids)], axis=0), node.shape, dtype=node.dtype
    )


MOST_ROWS = 4096
"""The gradient of a larger table is left as the gradients of the rows that a batch uses."""


@OPERATORS("embedding_dense_backward")
def _embedding_backward(
    builder: Builder, node: Operation, g: Value, ids: Value, count: int, padding: int, by_frequency: bool
) -> Value:
    """The gradient of a small table, by a product with the ids as unit vectors; that of a large one is left as rows."""
    if by_frequency or count > MOST_ROWS:
        raise BadInput("a table that is used twice, or by frequency, can't be compiled; use `engine` torch")
    width = g.shape[-1]
    wide = builder.node("Reshape", [builder.dense(g), builder.sizes([-1, width])])
    flat = builder.node("Reshape", [builder.dense(ids), builder.integers(-1)])
    units = builder.node(
        "OneHot", [flat, builder.scalar(count, np.int64), builder.constant(np.array([0.0, 1.0], np.float32)).name]
    )
    product = builder.node("Gemm", [units, wide], transA=1)
    if padding >= 0:
        counted = np.ones((count, 1), np.float32)
        counted[padding] = 0.0
        product = builder.node("Mul", [product, builder.constant(counted).name])
    return Value(product, node.shape)
