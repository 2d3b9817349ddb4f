"""Each aten operator that a training step consists of, as ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from farsearch.errors import BadInput
from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Operation

__all__ = ["OPERATORS"]

Lowering = Callable[..., Any]


class _Operators:
    """Functions by the name of their operator; each takes the builder, the node and its arguments' values."""

    def __init__(self) -> None:
        self._by_name: dict[str, Lowering] = {}

    def __call__(self, *names: str) -> Callable[[Lowering], Lowering]:
        def register(function: Lowering) -> Lowering:
            self._by_name.update(dict.fromkeys(names, function))
            return function

        return register

    def lower(self, builder: Builder, operation: Operation, values: Mapping[Operation, Any]) -> Any:
        """The value, or the values, of an operation.

        Raises:
            BadInput: for an operator without a function.
        """
        if operation.name not in self._by_name:
            raise BadInput(f"the operator {operation.name} can't be compiled; use --engine torch")

        def value_of(argument: Any) -> Any:
            if isinstance(argument, Operation):
                return values[argument]
            if isinstance(argument, list | tuple):
                return [value_of(each) for each in argument]
            return argument

        return self._by_name[operation.name](builder, operation, *(value_of(argument) for argument in operation.args))


OPERATORS = _Operators()


@OPERATORS("getitem")
def _item(_builder: Builder, _node: Operation, values: Any, index: int) -> Any:
    return values[index]


# Shapes


@OPERATORS("view_copy", "view", "_unsafe_view", "unsqueeze_copy", "unsqueeze", "squeeze_copy", "reshape")
def _view(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    return builder.reshape(x, node.shape)


@OPERATORS("clone", "detach_copy", "detach", "alias_copy", "lift_fresh_copy")
def _same(_builder: Builder, _node: Operation, x: Value, *_: Any) -> Value:
    return x


@OPERATORS("copy")
def _copied(_builder: Builder, _node: Operation, _x: Value, source: Value, *_: Any) -> Value:
    return source


@OPERATORS("t_copy", "t")
def _t(builder: Builder, node: Operation, x: Value) -> Value:
    return replace(x, shape=node.shape, swapped=not x.swapped)


@OPERATORS("transpose_copy", "transpose")
def _transpose(builder: Builder, node: Operation, x: Value, one: int, other: int) -> Value:
    rank = len(x.shape)
    one, other = sorted((one % rank, other % rank))
    shape = node.shape
    if (one, other) == (rank - 2, rank - 1):
        return replace(x, shape=shape, swapped=not x.swapped)
    order = list(range(rank))
    order[one], order[other] = other, one
    return Value(builder.transpose(replace(x, name=builder.dense(x), swapped=False), order), shape)


@OPERATORS("expand_copy", "expand")
def _expand(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    shape = node.shape
    if x.shape == shape:
        return x
    return Value(builder.node("Expand", [builder.dense(x), builder.sizes(shape)]), shape)


@OPERATORS("slice_copy", "slice")
def _slice(builder: Builder, node: Operation, x: Value, dim: int = 0, start: Any = 0, end: Any = None, *_: Any) -> Value:
    shape = node.shape
    if shape == x.shape:
        return x
    last = builder.sizes([end]) if end is not None else builder.integers(np.iinfo(np.int64).max)
    bounds = [builder.sizes([start or 0]), last, builder.integers(dim)]
    return Value(builder.node("Slice", [builder.dense(x), *bounds]), shape)


@OPERATORS("split_copy", "split")
def _split(builder: Builder, node: Operation, x: Value, _size: int, dim: int = 0) -> tuple[Value, ...]:
    shapes = node.shape
    if len(shapes) == 1:
        return (x,)
    sizes = builder.sizes([shape[dim] for shape in shapes])
    names = builder.node("Split", [builder.dense(x), sizes], len(shapes), axis=dim)
    return tuple(Value(name, shape) for name, shape in zip(names, shapes, strict=True))


@OPERATORS("gather")
def _gather(builder: Builder, node: Operation, x: Value, dim: int, index: Value, *_: Any) -> Value:
    name = builder.node("GatherElements", [builder.dense(x), builder.dense(index)], axis=dim)
    return Value(name, node.shape, dtype=x.dtype)


@OPERATORS("slice_scatter")
def _slice_scatter(_builder: Builder, _node: Operation, x: Value, source: Value, *_: Any) -> Value:
    if x.shape != source.shape:
        raise BadInput("a part of a tensor is written to, which can't be compiled; use --engine torch")
    return source


@OPERATORS("select_copy", "select")
def _select(builder: Builder, node: Operation, x: Value, dim: int, index: int) -> Value:
    name = builder.node("Gather", [builder.dense(x), builder.scalar(index, np.int64)], axis=dim)
    return Value(name, node.shape)


@OPERATORS("select_backward")
def _select_backward(builder: Builder, node: Operation, g: Value, _sizes: Any, dim: int, index: int) -> Value:
    shape = node.shape
    rank = len(shape)
    pads: list[Any] = [0] * (2 * rank)
    pads[dim], pads[rank + dim] = index, shape[dim] - 1 - index
    one = builder.node("Unsqueeze", [builder.dense(g), builder.integers(dim)])
    return Value(builder.node("Pad", [one, builder.sizes(pads)]), shape)


@OPERATORS("empty_like", "zeros_like", "new_empty", "new_zeros", "zeros", "empty")
def _zeros(builder: Builder, node: Operation, *_: Any) -> Value:
    return Value("", node.shape, fill=0.0, dtype=node.dtype)


@OPERATORS("ones_like", "new_ones", "ones")
def _ones(builder: Builder, node: Operation, *_: Any) -> Value:
    return Value("", node.shape, fill=1.0, dtype=node.dtype)


# Products


def _product(builder: Builder, node: Operation, left: Value, right: Value, bias: Value | None = None) -> Value:
    """Of matrices; a transposed factor is taken as it lies."""
    names = [_factor(builder, left), _factor(builder, right)]
    if bias is not None and bias.fill != 0.0:
        names.append(builder.dense(bias))
    name = builder.node("Gemm", names, transA=int(left.swapped), transB=int(right.swapped))
    return Value(name, node.shape)


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
    return Value(builder.node("FusedMatMul" if kind else "MatMul", names, **kind), node.shape)


@OPERATORS("embedding")
def _embedding(builder: Builder, node: Operation, table: Value, ids: Value, *_: Any) -> Value:
    return Value(builder.node("Gather", [builder.dense(table), builder.dense(ids)], axis=0), node.shape)


# Arithmetic


def _operand(builder: Builder, x: Any, like: Value | None = None) -> str:
    if isinstance(x, Value):
        return builder.dense(x)
    dtype = np.float32 if like is None else like.dtype
    return builder.scalar(x, dtype)


def _binary(op: str) -> Lowering:
    def lower(builder: Builder, node: Operation, x: Any, y: Any, *_: Any) -> Value:
        alpha: Any = node.kwargs.get("alpha", 1)
        if op == "Add" and alpha == 1:
            for zero, other in ((x, y), (y, x)):
                if isinstance(zero, Value) and zero.fill == 0.0 and isinstance(other, Value):
                    return other
        like = x if isinstance(x, Value) else y
        right = _operand(builder, y, like)
        if alpha != 1:
            right = builder.node("Mul", [right, builder.scalar(alpha)])
        return Value(builder.node(op, [_operand(builder, x, like), right]), node.shape, dtype=like.dtype)

    return lower


for _name, _op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"), ("bitwise_and", "And")):
    OPERATORS(_name)(_binary(_op))


def _unary(op: str) -> Lowering:
    def lower(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
        return Value(builder.node(op, [builder.dense(x)]), node.shape, dtype=node.dtype)

    return lower


for _name, _op in (("relu", "Relu"), ("tanh", "Tanh"), ("logical_not", "Not"), ("neg", "Neg"), ("exp", "Exp"),
                   ("sigmoid", "Sigmoid"), ("log", "Log"), ("sqrt", "Sqrt")):  # fmt: skip
    OPERATORS(_name)(_unary(_op))


@OPERATORS("sum")
def _sum(builder: Builder, node: Operation, x: Value, dims: Any = None, keepdim: bool = False, *_: Any) -> Value:
    axes = [] if dims is None else [builder.integers(*dims)]
    return Value(builder.node("ReduceSum", [builder.dense(x), *axes], keepdims=int(keepdim)), node.shape)


@OPERATORS("masked_fill")
def _masked_fill(builder: Builder, node: Operation, x: Value, mask: Value, number: float) -> Value:
    names = [builder.dense(mask), builder.scalar(number), builder.dense(x)]
    return Value(builder.node("Where", names), node.shape)


@OPERATORS("threshold_backward")
def _threshold_backward(builder: Builder, node: Operation, g: Value, x: Value, threshold: float) -> Value:
    above = builder.node("Greater", [builder.dense(x), builder.scalar(threshold)])
    return Value(builder.node("Where", [above, builder.dense(g), builder.scalar(0.0)]), node.shape)


@OPERATORS("tanh_backward")
def _tanh_backward(builder: Builder, node: Operation, g: Value, y: Value) -> Value:
    slope = builder.node("Sub", [builder.scalar(1.0), _square(builder, builder.dense(y))])
    return Value(builder.node("Mul", [builder.dense(g), slope]), node.shape)


def _square(builder: Builder, name: str) -> str:
    return builder.node("Mul", [name, name])  # type: ignore[no-any-return]


# Activations: GELU(x) = x F(x) and GELU'(x) = F(x) + x f(x), with F and f of the normal distribution


def _normal(builder: Builder, x: str) -> str:
    """``2 F(x)``."""
    erf = builder.node("Erf", [builder.node("Mul", [x, builder.scalar(math.sqrt(0.5))])])
    return builder.node("Add", [erf, builder.scalar(1.0)])  # type: ignore[no-any-return]


@OPERATORS("gelu")
def _gelu(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    if node.kwargs.get("approximate", "none") != "none":
        raise NotImplementedError("GELU by tanh")
    name = builder.node("Gelu", [builder.dense(x)], domain="com.microsoft")
    return Value(name, node.shape)


@OPERATORS("gelu_backward")
def _gelu_backward(builder: Builder, node: Operation, g: Value, x: Value, *_: Any) -> Value:
    if node.kwargs.get("approximate", "none") != "none":
        raise NotImplementedError("GELU by tanh")
    name = builder.dense(x)
    below = builder.node("Mul", [_normal(builder, name), builder.scalar(0.5)])
    density = builder.node("Exp", [builder.node("Mul", [_square(builder, name), builder.scalar(-0.5)])])
    slope = builder.node("Mul", [builder.node("Mul", [name, density]), builder.scalar(1 / math.sqrt(2 * math.pi))])
    return Value(builder.node("Mul", [builder.dense(g), builder.node("Add", [below, slope])]), node.shape)


# Normalisation, dropout and losses


@OPERATORS("drop")
def _drop(builder: Builder, node: Operation, x: Value, mask: Value, scale: float) -> Value:
    kept = builder.node("Where", [builder.dense(mask), builder.scalar(0.0), builder.dense(x)])
    return Value(builder.node("Mul", [kept, builder.scalar(scale)]), node.shape)


@OPERATORS("to_float")
def _to_float(builder: Builder, node: Operation, x: Value) -> Value:
    return Value(builder.node("Cast", [builder.dense(x)], to=1), node.shape)


@OPERATORS("normalise")
def _normalise(builder: Builder, node: Operation, x: Value, eps: float) -> tuple[Value, ...]:
    """The normalised input, and 1 / deviation."""
    name = builder.dense(x)
    centred = builder.node("Sub", [name, builder.node("ReduceMean", [name], axes=[-1])])
    variance = builder.node("ReduceMean", [_square(builder, centred)], axes=[-1])
    inverse = builder.node("Reciprocal", [builder.node("Sqrt", [builder.node("Add", [variance, builder.scalar(eps)])])])
    normal = builder.node("Mul", [centred, inverse])
    return tuple(Value(each, shape) for each, shape in zip((normal, inverse), node.shape, strict=True))


@OPERATORS("scale_shift")
def _scale_shift(builder: Builder, node: Operation, normal: Value, weight: Value, bias: Value | None) -> Value:
    y = builder.node("Mul", [builder.dense(normal), builder.dense(weight)])
    return Value(y if bias is None else builder.node("Add", [y, builder.dense(bias)]), node.shape)


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
    return tuple(
        None if name is None else Value(name, shape) for name, shape in zip(found, node.shape, strict=True)
    )


@OPERATORS("_softmax")
def _softmax(builder: Builder, node: Operation, x: Value, dim: int, _half: bool) -> Value:
    return Value(builder.node("Softmax", [builder.dense(x)], axis=dim), node.shape)


@OPERATORS("_log_softmax")
def _log_softmax(builder: Builder, node: Operation, x: Value, dim: int, _half: bool) -> Value:
    return Value(builder.node("LogSoftmax", [builder.dense(x)], axis=dim), node.shape)


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
    return Value(builder.node("Sub", [above, share]), node.shape)


def _targets(builder: Builder, target: Value, ignored: int) -> tuple[str, str]:
    """Class of each row with 0 where none counts, and 1.0 where one does, both ``[rows, 1]``."""
    name = builder.node("Unsqueeze", [builder.dense(target), builder.integers(1)])
    left_out = builder.node("Equal", [name, builder.scalar(ignored, np.int64)])
    known = builder.node("Where", [left_out, builder.scalar(0, np.int64), name])
    counts = builder.node("Cast", [builder.node("Not", [left_out])], to=1)
    return known, counts


@OPERATORS("nll_loss_forward")
def _nll_loss(
    builder: Builder, _node: Operation, logs: Value, target: Value, weight: None, reduction: int, ignored: int
) -> tuple[Value, Value]:
    if weight is not None or reduction != 1:
        raise BadInput("a loss with class weights, or that is no mean, can't be compiled; use --engine torch")
    known, counts = _targets(builder, target, ignored)
    picked = builder.node("Mul", [builder.node("GatherElements", [builder.dense(logs), known], axis=1), counts])
    total = builder.node("ReduceSum", [counts], keepdims=0)
    loss = builder.node("Neg", [builder.node("Div", [builder.node("ReduceSum", [picked], keepdims=0), total])])
    return Value(loss, ()), Value(total, ())


@OPERATORS("nll_loss_backward")
def _nll_loss_backward(
    builder: Builder, node: Operation, g: Value, logs: Value, target: Value, _weight: None, _reduction: int,
    ignored: int, total: Value,
) -> Value:  # fmt: skip
    known, counts = _targets(builder, target, ignored)
    classes = builder.constant(np.arange(logs.shape[1], dtype=np.int64)[None]).name
    chosen = builder.node("Cast", [builder.node("Equal", [classes, known])], to=1)
    scale = builder.node("Div", [builder.node("Neg", [builder.dense(g)]), builder.dense(total)])
    counted = builder.node("Mul", [builder.node("Mul", [chosen, counts]), scale])
    return Value(counted, node.shape)
