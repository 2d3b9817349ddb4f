"""Views, parts, and tensors of one number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from farsearch.errors import BadInput
from farsearch.graph.builder import Builder, Value
from farsearch.graph.operation import Extent, Operation, Size
from farsearch.graph.operators.registry import OPERATORS


@OPERATORS("getitem")
def _item(_builder: Builder, _node: Operation, values: Any, index: int) -> Any:
    return values[index]


# Shapes


@OPERATORS("view_copy", "view", "_unsafe_view", "unsqueeze_copy", "unsqueeze", "squeeze_copy", "squeeze", "reshape")
def _view(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    return builder.reshape(x, node.shape)


@OPERATORS("clone", "contiguous", "detach_copy", "detach", "alias_copy", "lift_fresh_copy")
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
    return Value(builder.transpose(replace(x, name=builder.dense(x), swapped=False), order), shape, dtype=x.dtype)


@OPERATORS("expand_copy", "expand")
def _expand(builder: Builder, node: Operation, x: Value, *_: Any) -> Value:
    shape = node.shape
    if x.shape == shape:
        return x
    return Value(builder.node("Expand", [builder.dense(x), builder.sizes(shape)]), shape, dtype=x.dtype)


@OPERATORS("slice_copy", "slice")
def _slice(
    builder: Builder, node: Operation, x: Value, dim: int = 0, start: Any = 0, end: Any = None, *_: Any
) -> Value:
    shape = node.shape
    if shape == x.shape:
        return x
    last = builder.sizes([end]) if end is not None else builder.integers(np.iinfo(np.int64).max)
    bounds = [builder.sizes([start or 0]), last, builder.integers(dim)]
    return Value(builder.node("Slice", [builder.dense(x), *bounds]), shape, dtype=x.dtype)


@OPERATORS("split_copy", "split")
def _split(builder: Builder, node: Operation, x: Value, _size: int, dim: int = 0) -> tuple[Value, ...]:
    shapes = node.shape
    if len(shapes) == 1:
        return (x,)
    sizes = builder.sizes([shape[dim] for shape in shapes])
    names = builder.node("Split", [builder.dense(x), sizes], len(shapes), axis=dim)
    return tuple(Value(name, shape, dtype=x.dtype) for name, shape in zip(names, shapes, strict=True))


@OPERATORS("gather")
def _gather(builder: Builder, node: Operation, x: Value, dim: int, index: Value, *_: Any) -> Value:
    name = builder.node("GatherElements", [builder.dense(x), builder.dense(index)], axis=dim)
    return Value(name, node.shape, dtype=x.dtype)


@OPERATORS("slice_scatter")
def _slice_scatter(_builder: Builder, _node: Operation, x: Value, source: Value, *_: Any) -> Value:
    if x.shape != source.shape:
        raise BadInput("a part of a tensor is written to, which can't be compiled; use `engine` torch")
    return source


@OPERATORS("select_copy", "select")
def _select(builder: Builder, node: Operation, x: Value, dim: int, index: int) -> Value:
    name = builder.node("Gather", [builder.dense(x), builder.scalar(index, np.int64)], axis=dim)
    return Value(name, node.shape, dtype=node.dtype)


@OPERATORS("select_backward")
def _select_backward(builder: Builder, node: Operation, g: Value, _sizes: Any, dim: int, index: int) -> Value:
    shape = node.shape
    rank = len(shape)
    pads: list[Any] = [0] * (2 * rank)
    pads[dim], pads[rank + dim] = index, shape[dim] - 1 - index
    one = builder.node("Unsqueeze", [builder.dense(g), builder.integers(dim)])
    return Value(builder.node("Pad", [one, builder.sizes(pads)]), shape)


@OPERATORS("slice_backward")
def _slice_backward(
    builder: Builder, node: Operation, g: Value, _sizes: Any, dim: int, start: Any, _end: Any, step: int
) -> Value:
    if step != 1:
        raise BadInput("a part of every second element can't be compiled; use `engine` torch")
    before = start + node.shape[dim] if isinstance(start, int) and start < 0 else start
    after = _difference(_difference(node.shape[dim], g.shape[dim]), before)
    pads: list[Size] = [0] * (2 * len(node.shape))
    pads[dim], pads[len(node.shape) + dim] = before, after
    return Value(builder.node("Pad", [builder.dense(g), builder.sizes(pads)]), node.shape)


def _difference(size: Size, other: Size) -> Size:
    if isinstance(size, Extent) and isinstance(other, Extent):
        if replace(size, offset=0) != replace(other, offset=0):
            raise BadInput("a part whose size depends otherwise on the batch can't be compiled; use `engine` torch")
        return size.offset - other.offset
    if isinstance(other, Extent):
        raise BadInput("a part that is longer than its whole can't be compiled; use `engine` torch")
    return size - other


@OPERATORS("constant_pad_nd")
def _pad(builder: Builder, node: Operation, x: Value, pads: list[Any], number: float = 0.0) -> Value:
    """Pads from the last dimension on; those below 0 cut."""
    rank = len(node.shape)
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    names = [builder.dense(x), builder.sizes([*before, *after]), builder.scalar(number, x.dtype)]
    return Value(builder.node("Pad", names), node.shape, dtype=node.dtype)


@OPERATORS("cat")
def _cat(builder: Builder, node: Operation, values: list[Value], dim: int = 0) -> Value:
    names = [builder.dense(value) for value in values]
    return Value(builder.node("Concat", names, axis=dim), node.shape, dtype=node.dtype)


@OPERATORS("stack")
def _stack(builder: Builder, node: Operation, values: list[Value], dim: int = 0) -> Value:
    axis = dim % len(node.shape)
    names = [builder.node("Unsqueeze", [builder.dense(value), builder.integers(axis)]) for value in values]
    return Value(builder.node("Concat", names, axis=axis), node.shape, dtype=node.dtype)


@OPERATORS("unbind_copy", "unbind")
def _unbind(builder: Builder, node: Operation, x: Value, dim: int = 0) -> tuple[Value, ...]:
    name, axis = builder.dense(x), dim % len(x.shape)
    return tuple(
        Value(builder.node("Gather", [name, builder.scalar(i, np.int64)], axis=axis), shape, dtype=x.dtype)
        for i, shape in enumerate(node.shape)
    )


@OPERATORS("permute_copy", "permute")
def _permute(builder: Builder, node: Operation, x: Value, order: list[int]) -> Value:
    order = [dim % len(x.shape) for dim in order]
    return Value(builder.transpose(replace(x, name=builder.dense(x)), order), node.shape, dtype=node.dtype)


@OPERATORS("repeat")
def _repeat(builder: Builder, node: Operation, x: Value, times: list[Size]) -> Value:
    x = builder.reshape(x, (1,) * (len(times) - len(x.shape)) + x.shape)
    return Value(builder.node("Tile", [builder.dense(x), builder.sizes(times)]), node.shape, dtype=node.dtype)


@OPERATORS("arange")
def _arange(builder: Builder, node: Operation, *bounds: Any) -> Value:
    start, end = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    scalars = [
        builder.node("Squeeze", [builder.sizes([each])]) if isinstance(each, Extent) else builder.scalar(each, np.int64)
        for each in (start, end)
    ]
    return Value(builder.node("Range", [*scalars, builder.scalar(1, np.int64)]), node.shape, dtype="int64")


@OPERATORS("scatter_add")
def _scatter_add(builder: Builder, node: Operation, x: Value, dim: int, index: Value, source: Value) -> Value:
    builder.opset = max(builder.opset, 16)
    names = [builder.dense(x), builder.dense(index), builder.dense(source)]
    return Value(builder.node("ScatterElements", names, axis=dim % len(x.shape), reduction="add"), node.shape)


@OPERATORS("full", "full_like", "fill")
def _full(_builder: Builder, node: Operation, _like: Any, number: Any, *_: Any) -> Value:
    return Value("", node.shape, fill=number, dtype=node.dtype)


@OPERATORS("empty_like", "zeros_like", "new_empty", "new_zeros", "zeros", "empty")
def _zeros(builder: Builder, node: Operation, *_: Any) -> Value:
    return Value("", node.shape, fill=0.0, dtype=node.dtype)


@OPERATORS("ones_like", "new_ones", "ones")
def _ones(builder: Builder, node: Operation, *_: Any) -> Value:
    return Value("", node.shape, fill=1.0, dtype=node.dtype)
