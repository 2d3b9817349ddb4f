"""Activations: GELU(x) = x F(x) and GELU'(x) = F(x) + x f(x), with F and f of the normal distribution."""

from __future__ import annotations

import math
from typing import Any

from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Operation
from farsearch.graph.operators.registry import OPERATORS


def _normal(builder: Builder, x: str) -> str:
    """``2 F(x)``."""
    erf = builder.node("Erf", [builder.node("Mul", [x, builder.scalar(math.sqrt(0.5))])])
    return builder.node("Add", [erf, builder.scalar(1.0)])  # type: ignore[no-any-return]


_ROOT, _CUBE = math.sqrt(2 / math.pi), 0.044715
"""Of the approximation by tanh: ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``."""


def _tanh_of(builder: Builder, x: str, square: str) -> str:
    inner = builder.node("Add", [builder.node("Mul", [square, builder.scalar(_ROOT * _CUBE)]), builder.scalar(_ROOT)])
    return builder.node("Tanh", [builder.node("Mul", [inner, x])])  # type: ignore[no-any-return]


@OPERATORS("gelu")
def _gelu(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    name = builder.dense(x)
    if node.kwargs.get("approximate", "none") == "none":
        return Value(builder.node("Gelu", [name], domain="com.microsoft"), node.shape)
    tanh = _tanh_of(builder, name, builder.node("Mul", [name, name]))
    half = builder.node("Mul", [name, builder.scalar(0.5)])
    return Value(builder.node("Mul", [half, builder.node("Add", [tanh, builder.scalar(1.0)])]), node.shape)


@OPERATORS("gelu_backward")
def _gelu_backward(builder: Builder, node: Operation, g: Value, x: Value, *_: Any) -> Value:
    name = builder.dense(x)
    square = builder.node("Mul", [name, name])
    if node.kwargs.get("approximate", "none") == "none":
        below = builder.node("Mul", [_normal(builder, name), builder.scalar(0.5)])
        density = builder.node("Exp", [builder.node("Mul", [square, builder.scalar(-0.5)])])
        rest = builder.node("Mul", [builder.node("Mul", [name, density]), builder.scalar(1 / math.sqrt(2 * math.pi))])
    else:
        tanh = _tanh_of(builder, name, square)
        below = builder.node("Mul", [builder.node("Add", [tanh, builder.scalar(1.0)]), builder.scalar(0.5)])
        falling = builder.node("Sub", [builder.scalar(1.0), builder.node("Mul", [tanh, tanh])])
        inner = builder.node("Mul", [square, builder.scalar(1.5 * _ROOT * _CUBE)])
        slope = builder.node("Mul", [name, builder.node("Add", [inner, builder.scalar(0.5 * _ROOT)])])
        rest = builder.node("Mul", [falling, slope])
    return Value(builder.node("Mul", [builder.dense(g), builder.node("Add", [below, rest])]), node.shape)
