"""Which calls can be computed in portions of a batch's rows, with their results joined or added up.

Each value of a call is followed from its inputs: whether an index of its first dimension belongs to a row, and whether
a result of all rows is the sum of the results of portions. What no rule covers is computed from all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from farsearch.graph.operation import Extent, Operation, operands

__all__ = ["Spread", "by_rows", "grows", "spreads"]


class Spread(Enum):
    """How a value relates to the rows of the batch.

    Attributes:
        SAME: each portion has the same.
        ROWS: the first dimension consists of the rows, one after another.
        TURNED: a matrix whose second dimension does.
        SUM: the sum of what the portions give.
        WHOLE: takes all rows at once.
    """

    SAME = "same"
    ROWS = "rows"
    TURNED = "turned"
    SUM = "sum"
    WHOLE = "whole"


_SAME, _ROWS, _TURNED, _SUM, _WHOLE = Spread

_VIEWS = frozenset(
    {"view", "view_copy", "_unsafe_view", "unsqueeze", "unsqueeze_copy", "squeeze", "squeeze_copy", "reshape"}
)
_ELEMENTWISE = frozenset(
    {
        "add", "sub", "mul", "div", "bitwise_and", "logical_and", "bitwise_or", "minimum", "maximum", "eq", "ne", "lt",
        "gt", "le", "ge", "relu", "tanh", "logical_not", "bitwise_not", "neg", "exp", "sigmoid", "log", "sqrt", "abs",
        "sign", "ceil", "cos", "sin", "log1p", "_to_copy", "to_float", "clamp", "clamp_min", "where", "masked_fill",
        "threshold_backward", "tanh_backward", "gelu", "gelu_backward", "drop", "scale_shift", "normalise",
    }
)  # fmt: skip
_LIKE = frozenset({"empty_like", "zeros_like", "ones_like", "full_like", "new_empty", "new_zeros", "new_ones"})
_ZEROS = frozenset({"empty_like", "zeros_like", "new_empty", "new_zeros", "zeros", "empty"})
"""Operators whose result is 0, as the lowering makes them."""
_ALONG = {
    "slice": 1, "slice_copy": 1, "select": 1, "select_copy": 1, "gather": 1, "split": 2, "split_copy": 2, "unbind": 1,
    "unbind_copy": 1, "cat": 1, "stack": 1, "select_backward": 2, "slice_backward": 2, "cumsum": 1, "scatter_add": 1,
    "_softmax": 1, "_log_softmax": 1, "_softmax_backward_data": 2, "_log_softmax_backward_data": 2,
}  # fmt: skip
"""Operators along one dimension: the place of that argument."""
_SPLITTING = frozenset({"split", "split_copy", "unbind", "unbind_copy"})


def by_rows(shape: Sequence[Any]) -> bool:
    """Whether the first dimension, and no other, grows with the rows."""
    return bool(shape) and grows(shape[:1]) and not grows(shape[1:]) and shape[0].offset == 0


def grows(sizes: Iterable[Any]) -> bool:
    """Whether a size grows with the rows."""
    return any(isinstance(size, Extent) and size.rows for size in sizes)


def spreads(group: Sequence[Operation]) -> dict[Operation, Any]:
    """Return how the values of a call, and those that it takes, relate to the rows.

    Of operations of several results all of theirs.
    """
    found: dict[Operation, Any] = {}
    for operation in group:
        for operand in operands(operation):
            if operand not in found:
                found[operand] = _given(operand)
        found[operation] = _spread(operation, found)
    return found


def _given(operation: Operation) -> Spread:
    """Of a value that the call takes."""
    if by_rows(operation.shape):
        return _ROWS
    return _WHOLE if grows(operation.shape) else _SAME


def _spread(operation: Operation, found: Mapping[Operation, Any]) -> Any:
    name, args = operation.name, operation.args
    kinds = [found[operand] for operand in operands(operation)]
    if name == "getitem":
        return kinds[0][args[1]] if isinstance(kinds[0], tuple) else kinds[0]
    if name in _LIKE:
        return _SAME
    if any(not isinstance(kind, Spread) or kind is _WHOLE for kind in kinds):
        return _WHOLE
    if all(kind is _SAME for kind in kinds):
        numbers = name in _ELEMENTWISE or name == "arange"
        return _WHOLE if numbers and grows(args) else _SAME
    rule = _RULES.get(name)
    if rule is not None:
        return rule(operation, kinds)
    if name in _VIEWS or name == "expand" or name == "expand_copy":
        return _viewed(operation, kinds[0])
    if name in _ALONG:
        return _along(operation, kinds)
    return _elementwise(operation, kinds) if name in _ELEMENTWISE else _WHOLE


def _viewed(operation: Operation, kind: Spread) -> Spread:
    if kind is _SUM:
        return kind
    (source, *_) = operands(operation)
    kept = source.shape[0] == operation.shape[0] if "expand" in operation.name else True
    return _ROWS if kind is _ROWS and kept and by_rows(operation.shape) else _WHOLE


def _along(operation: Operation, kinds: Sequence[Spread]) -> Any:
    """Of an operator along a dimension other than that of the rows."""
    place = _ALONG[operation.name]
    dim = operation.args[place] if len(operation.args) > place else 0
    shapes = operation.shape if operation.name in _SPLITTING else [operation.shape]
    sources = [operand.shape for operand in operands(operation)]
    rank = len(sources[0]) + (operation.name in ("stack", "select_backward"))
    rows = all(kind in (_ROWS, _SAME) for kind in kinds) and all(by_rows(shape) for shape in [*sources, *shapes])
    kind = _ROWS if rows and dim % rank else _WHOLE
    return (kind,) * len(shapes) if operation.name in _SPLITTING else kind


def _elementwise(operation: Operation, kinds: Sequence[Spread]) -> Any:
    both = operation.name == "normalise"
    shape = operation.shape[0] if both else operation.shape
    if operation.name in ("add", "sub") and _is_sum(operation, kinds):
        return _SUM
    if any(kind not in (_ROWS, _SAME) for kind in kinds) or not by_rows(shape):
        return _WHOLE
    if grows(operation.args):
        return _WHOLE
    for operand, kind in zip(operands(operation), kinds, strict=True):
        if kind is _ROWS and (len(operand.shape) != len(shape) or operand.shape[0] != shape[0]):
            return _WHOLE
    return (_ROWS, _ROWS) if both else _ROWS


def _is_sum(operation: Operation, kinds: Sequence[Spread]) -> bool:
    """Whether all that are added are sums over portions, or 0."""
    pairs = zip(operands(operation), kinds, strict=True)
    return all(kind is _SUM or operand.name in _ZEROS for operand, kind in pairs)


def _product(_operation: Operation, kinds: Sequence[Spread]) -> Spread:
    return {
        (_ROWS, _SAME): _ROWS, (_SAME, _TURNED): _TURNED, (_TURNED, _ROWS): _SUM, (_SUM, _SAME): _SUM,
        (_SAME, _SUM): _SUM,
    }.get((kinds[0], kinds[1]), _WHOLE)  # fmt: skip


def _product_and_sum(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    product = _product(operation, kinds[1:])
    (added, *_) = operands(operation)
    if product is _ROWS and (kinds[0] is _SAME or (kinds[0] is _ROWS and len(added.shape) == 2)):
        return _ROWS
    return _SUM if product is _SUM and (kinds[0] is _SUM or added.name in _ZEROS) else _WHOLE


def _products(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    alike = all(by_rows(each.shape) for each in [operation, *operands(operation)])
    return _ROWS if alike and all(kind in (_ROWS, _SAME) for kind in kinds) else _WHOLE


def _turned(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    """Of a transposed value."""
    kind = kinds[0]
    if kind is _SUM:
        return kind
    rank = len(operation.shape)
    dims = [dim % rank for dim in operation.args[1:3]] or [0, 1]
    if 0 not in dims:
        return kind
    return {_ROWS: _TURNED, _TURNED: _ROWS}.get(kind, _WHOLE) if rank == 2 else _WHOLE


def _permuted(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    first = operation.args[1][0] % len(operation.shape)
    return kinds[0] if kinds[0] is _SUM or (kinds[0] is _ROWS and first == 0) else _WHOLE


def _summed(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    kind = kinds[0]
    rank = len(operation.args[0].shape)
    dims = operation.args[1] if len(operation.args) > 1 and operation.args[1] else range(rank)
    over = 0 in [dim % rank for dim in dims]
    if kind is _SUM:
        return kind
    if kind is not _ROWS:
        return _WHOLE
    if over:
        return _SUM if operation.name == "sum" else _WHOLE
    return _ROWS


def _rows_of_table(_operation: Operation, kinds: Sequence[Spread]) -> Spread:
    return _ROWS if kinds[0] is _SAME and kinds[1] is _ROWS else _WHOLE


def _table_gradient(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    """From the gradients of rows and their ids, which may be the same in each."""
    expanded = kinds[1] is _SAME and by_rows(list(operands(operation))[1].shape)
    return _SUM if tuple(kinds) in ((_ROWS, _ROWS), (_SUM, _SAME)) or (kinds[0] is _ROWS and expanded) else _WHOLE


def _normalise_backward(_operation: Operation, kinds: Sequence[Spread]) -> Any:
    """Of the gradients of input, weight and bias from those of the output."""
    return (_ROWS, _SUM, _SUM) if kinds[0] is _ROWS else _WHOLE


def _padded(operation: Operation, kinds: Sequence[Spread]) -> Spread:
    rows = operation.args[1][2 * (len(operation.shape) - 1) :]
    inner = not any(rows)
    return _ROWS if kinds[0] is _ROWS and inner and by_rows(operation.shape) else _WHOLE


_RULES: Mapping[str, Callable[[Operation, Sequence[Spread]], Any]] = {
    "mm": _product, "addmm": _product_and_sum, "bmm": _products, "t": _turned, "t_copy": _turned,
    "transpose": _turned, "transpose_copy": _turned, "permute": _permuted, "permute_copy": _permuted, "sum": _summed,
    "mean": _summed, "embedding": _rows_of_table, "embedding_dense_backward": _table_gradient,
    "normalise_backward": _normalise_backward, "constant_pad_nd": _padded,
}  # fmt: skip
