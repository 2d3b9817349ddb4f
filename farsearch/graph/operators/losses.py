"""Losses and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from farsearch.errors import BadInput
from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Extent, Operation, Size
from farsearch.graph.operators.registry import OPERATORS


def _ignored_index(builder: Builder, ignored: int | Extent) -> str:
    return builder.sizes([ignored]) if isinstance(ignored, Extent) else builder.scalar(ignored, np.int64)


def _targets(builder: Builder, target: Value, weight: Value | None, ignored: Any) -> tuple[str, str]:
    """Class of each row with 0 where none counts, and the weight of the row, both ``[rows, 1]``."""
    name = builder.node("Unsqueeze", [builder.dense(target), builder.integers(1)])
    left_out = builder.node("Equal", [name, _ignored_index(builder, ignored)])
    known = builder.node("Where", [left_out, builder.scalar(0, np.int64), name])
    counts = builder.node("Cast", [builder.node("Not", [left_out])], to=1)
    if weight is not None:
        counts = builder.node("Mul", [builder.node("Gather", [builder.dense(weight), known], axis=0), counts])
    return known, counts


@OPERATORS("nll_loss_forward")
def _nll_loss(
    builder: Builder, _node: Operation, logs: Value, target: Value, weight: Value | None, reduction: int,
    ignored: Any,
) -> tuple[Value, Value]:  # fmt: skip
    _check_mean(reduction)
    known, counts = _targets(builder, target, weight, ignored)
    picked = builder.node("Mul", [builder.node("GatherElements", [builder.dense(logs), known], axis=1), counts])
    total = builder.node("ReduceSum", [counts], keepdims=0)
    loss = builder.node("Neg", [builder.node("Div", [builder.node("ReduceSum", [picked], keepdims=0), total])])
    return Value(loss, ()), Value(total, ())


def _class_numbers(builder: Builder, count: Size) -> str:
    """``[1, classes]``; the classes of a span's end are the tokens."""
    if isinstance(count, int):
        return builder.constant(np.arange(count, dtype=np.int64)[None]).name
    end = builder.node("Squeeze", [builder.sizes([count])])
    numbers = builder.node("Range", [builder.scalar(0, np.int64), end, builder.scalar(1, np.int64)])
    return builder.node("Unsqueeze", [numbers, builder.integers(0)])  # type: ignore[no-any-return]


@OPERATORS("nll_loss_backward")
def _nll_loss_backward(
    builder: Builder, node: Operation, g: Value, logs: Value, target: Value, weight: Value | None,
    _reduction: int, ignored: Any, total: Value,
) -> Value:  # fmt: skip
    known, counts = _targets(builder, target, weight, ignored)
    classes = _class_numbers(builder, logs.shape[1])
    chosen = builder.node("Cast", [builder.node("Equal", [classes, known])], to=1)
    scale = builder.node("Div", [builder.node("Neg", [builder.dense(g)]), builder.dense(total)])
    counted = builder.node("Mul", [builder.node("Mul", [chosen, counts]), scale])
    return Value(counted, node.shape, dtype=node.dtype)


@OPERATORS("mse_loss")
def _mse_loss(builder: Builder, node: Operation, x: Value, y: Value, reduction: int = 1) -> Value:
    _check_mean(reduction)
    apart = builder.node("Sub", [builder.dense(x), builder.dense(y)])
    return Value(builder.node("ReduceMean", [builder.node("Mul", [apart, apart])], keepdims=0), node.shape)


@OPERATORS("mse_loss_backward")
def _mse_loss_backward(builder: Builder, node: Operation, g: Value, x: Value, y: Value, reduction: int) -> Value:
    _check_mean(reduction)
    apart = builder.node("Sub", [builder.dense(x), builder.dense(y)])
    count = builder.node("Cast", [builder.node("Size", [apart])], to=1)
    scale = builder.node("Div", [builder.node("Mul", [builder.dense(g), builder.scalar(2.0)]), count])
    return Value(builder.node("Mul", [apart, scale]), node.shape)


def _check_mean(reduction: int) -> None:
    if reduction != 1:
        raise BadInput("a loss that is no mean can't be compiled; use `engine` torch")
