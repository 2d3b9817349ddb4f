"""Compute what follows the last attention for the first token alone, where the head takes no other.

Classification takes the first token of the last layer. So that layer's output projection, LayerNorms and feed-forward
block are not needed for the other tokens, and the gradient of their output is zero there: neither is computed. A value
of ``[rows, length, k]``, or ``[rows length, k]``, is narrow if only its first token is taken, or the others are zero.
The results are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from farsearch.graph.operation import Extent, Operation, operands
from farsearch.graph.trace import Trace

__all__ = ["narrowed"]

_ROWS, _LENGTH, _TOKENS = Extent(1, True, False), Extent(1, False, True), Extent(1, True, True)

_VIEWS = frozenset({"view", "view_copy", "_unsafe_view", "reshape"})
_TURNS = frozenset({"t", "t_copy"})
_SPLITS = ("split", "split_copy")
_ELEMENTWISE = frozenset(
    {
        "add", "sub", "mul", "div", "relu", "tanh", "neg", "sigmoid", "_to_copy", "masked_fill", "threshold_backward",
        "tanh_backward", "gelu", "gelu_backward", "drop", "scale_shift", "normalise", "normalise_backward",
        "logical_not", "to_float",
    }
)  # fmt: skip
_OF_FIRST = frozenset(
    {
        "neg", "div", "_to_copy", "masked_fill", "threshold_backward", "tanh_backward", "gelu_backward", "drop",
        "normalise_backward", "mm", "getitem", "split", "split_copy",
    }
)  # fmt: skip
"""Operators whose result is zero where their first operand is."""
_ZEROS = frozenset({"zeros_like", "empty_like", "new_zeros", "new_empty"})


def narrowed(trace: Trace) -> Trace:
    """Return an equal trace, whose operations are those of ``trace``, changed."""
    narrower = _Narrower(trace)
    return narrower.run() if narrower.heads else trace


def _form(shape: Any) -> str:
    """How a shape has the tokens: ``deep``, ``flat``, ``turned``, or ``""`` for not at all."""
    if len(shape) == 3 and shape[:2] == (_ROWS, _LENGTH) and isinstance(shape[2], int):
        return "deep"
    if len(shape) != 2:
        return ""
    if shape[0] == _TOKENS and isinstance(shape[1], int):
        return "flat"
    return "turned" if shape[1] == _TOKENS and isinstance(shape[0], int) else ""


def _is_plain(shape: Any) -> bool:
    return all(isinstance(size, int) for size in shape)


def _main_shape(operation: Operation) -> Any:
    """Of operations of several results that of the first."""
    several = operation.shape and isinstance(operation.shape[0], tuple)
    return operation.shape[0] if several else operation.shape


def _narrow_shape(shape: Any) -> Any:
    if shape and isinstance(shape[0], tuple):
        return tuple(_narrow_shape(each) for each in shape)
    form = _form(shape)
    if form == "deep":
        return (_ROWS, 1, shape[2])
    return {"flat": (_ROWS, *shape[1:]), "turned": (shape[0], _ROWS)}.get(form, shape) if form else shape


class _Narrower:
    """Finds the narrow operations of a trace, and changes them.

    Attributes:
        heads: operations that take the first token.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._outputs = {*trace.outputs.values(), *(ids for ids, _ in trace.tables.values())}
        self._users: Mapping[Operation, list[Operation]] = defaultdict(list)
        for operation in trace.operations:
            for operand in operands(operation):
                self._users[operand].append(operation)
        self.heads = {
            each for each in trace.operations if each.name in ("select", "select_copy") and _takes_first(each)
        }
        self._narrow = self._with_zeros()
        self._sums = {each for each in trace.operations if self._is_sum(each)}
        self._add_taken()
        self._after: dict[Operation, list[Operation]] = defaultdict(list)
        """Operations that follow one."""
        self._first: dict[Operation, Operation] = {}
        self._wide: dict[Operation, Operation] = {}

    def _with_zeros(self) -> set[Operation]:
        """Values that are zero but for the first token."""
        found: set[Operation] = set()
        for operation in self._trace.operations:
            source = operation.name == "select_backward" and operation.args[2:4] == (1, 0)
            if (source and _form(operation.shape)) or self._keeps_zeros(operation, found):
                found.add(operation)
        return found

    def _keeps_zeros(self, operation: Operation, zeros: set[Operation]) -> bool:
        taken = list(operands(operation))
        if not _is_by_token(operation):
            return False
        if operation.name == "mul":
            return any(operand in zeros for operand in taken)
        if operation.name in ("add", "sub", "cat"):
            return len(taken) > 1 and all(operand in zeros for operand in taken)
        if operation.name == "addmm":
            return taken[1] in zeros and (taken[0] in zeros or taken[0].name in _ZEROS)
        if operation.name == "masked_fill" and operation.args[2] != 0:
            return False
        return operation.name in _OF_FIRST | _VIEWS | _TURNS and taken[0] in zeros

    def _is_sum(self, operation: Operation) -> bool:
        """Whether it sums over all tokens, of which only the first ones are not zero."""
        taken = list(operands(operation))
        if operation.name == "sum" and taken[0] in self._narrow:
            dims = set(operation.args[1] if len(operation.args) > 1 and operation.args[1] else range(3))
            return {"deep": {0, 1}, "flat": {0}}.get(_form(taken[0].shape), {-1}) <= dims
        if operation.name not in ("mm", "addmm"):
            return False
        left, right = taken[-2:]
        forms = _form(left.shape), _form(right.shape)
        return forms == ("turned", "flat") and (left in self._narrow or right in self._narrow)

    def _add_taken(self) -> None:
        """Add the values of which only the first token is taken."""
        for operation in reversed(self._trace.operations):
            users = self._users.get(operation)
            if operation in self._narrow or operation in self._outputs or not users or not _is_by_token(operation):
                continue
            if all(user in self.heads or user in self._sums or user in self._narrow for user in users):
                self._narrow.add(operation)

    def run(self) -> Trace:
        made: list[Operation] = []
        for operation in self._trace.operations:
            before: list[Operation] = []
            if operation.name == "cut":
                self._wide.clear()
            elif operation in self._narrow or operation in self._sums or operation in self.heads:
                self._narrow_down(operation)
            else:
                operation.args = self._mapped(operation.args, lambda x: self._widened(x, before))  # noqa: B023
            made += [*before, operation]
        outputs = {name: self._widened(value, made) for name, value in self._trace.outputs.items()}
        placed = [each for operation in made for each in (operation, *self._placed_after(operation))]
        return replace(self._trace, operations=placed, outputs=outputs)

    def _placed_after(self, operation: Operation) -> list[Operation]:
        return [each for first in self._after.get(operation, []) for each in (first, *self._placed_after(first))]

    def _mapped(self, value: Any, function: Any) -> Any:
        if isinstance(value, Operation):
            return function(value)
        if isinstance(value, list | tuple):
            return type(value)(self._mapped(each, function) for each in value)
        return value

    def _narrow_down(self, operation: Operation) -> None:
        if operation in self.heads or operation.name == "select_backward":
            (source, *_) = operands(operation)
            operation.name, operation.args = "view_copy", (self._narrow_of(source), [])
        else:
            operation.args = self._mapped(operation.args, self._narrow_of)
        if operation in self._narrow:
            operation.shape = _narrow_shape(operation.shape)

    def _narrow_of(self, value: Operation) -> Operation:
        """The first token of a value; a value without tokens itself."""
        form = _form(value.shape) if value not in self._narrow else ""
        if not form:
            return value
        if value not in self._first:
            deep = (_ROWS, _LENGTH, value.shape[-1] if form != "turned" else value.shape[0])
            source = self._put(value, "t", (_TOKENS, deep[2])) if form == "turned" else value
            source = source if form == "deep" else self._put(source, "view_copy", deep, [])
            first = self._put(source, "slice_copy", (_ROWS, 1, deep[2]), 1, 0, 1)
            first = first if form == "deep" else self._put(first, "view_copy", (_ROWS, deep[2]), [])
            self._first[value] = self._put(first, "t", (deep[2], _ROWS)) if form == "turned" else first
        return self._first[value]

    def _put(self, source: Operation, name: str, shape: Any, *args: Any) -> Operation:
        """Make an operation that follows its only operand."""
        operation = Operation(name, (source, *args), {}, shape, source.dtype)
        self._after[source].append(operation)
        return operation

    def _widened(self, value: Operation, made: list[Operation]) -> Operation:
        """A value with all tokens, made from a narrow one by operations that are added to ``made``."""
        if value not in self._narrow or isinstance(value.dtype, tuple):
            return value
        if value not in self._wide:
            turned = value.shape[-1] == _ROWS
            steps: list[Operation] = []

            def then(source: Operation, name: str, shape: Any, *args: Any) -> Operation:
                steps.append(Operation(name, (source, *args), {}, shape, value.dtype))
                return steps[-1]

            width = value.shape[0] if turned else value.shape[-1]
            row = then(value, "t", (_ROWS, width)) if turned else value
            row = then(row, "view_copy", (_ROWS, width), [])
            wide = then(row, "select_backward", (_ROWS, _LENGTH, width), [], 1, 0)
            if len(value.shape) == 2:
                wide = then(wide, "view_copy", (_TOKENS, width), [])
            self._wide[value] = then(wide, "t", (width, _TOKENS)) if turned else wide
            made += steps
        return self._wide[value]


def _takes_first(operation: Operation) -> bool:
    return operation.args[1:3] == (1, 0) and _form(operation.args[0].shape) == "deep"


def _is_by_token(operation: Operation) -> bool:
    """Whether each token of the result depends on the same token of the operands alone."""
    name, taken = operation.name, list(operands(operation))
    form, forms = _form(_main_shape(operation)), [_form(_main_shape(operand)) for operand in taken]
    if not form or not all(each or _is_plain(operand.shape) for each, operand in zip(forms, taken, strict=True)):
        return False
    if name in _VIEWS:
        return form != "turned" and forms[0] in ("deep", "flat")
    if name in _TURNS:
        return {form, forms[0]} == {"flat", "turned"}
    if name == "mm":
        return form == "flat" and forms == ["flat", ""]
    if name == "addmm":
        return form == "flat" and forms[1:] == ["flat", ""] and forms[0] in ("flat", "")
    if name == "getitem":
        return taken[0].name in ("normalise", "normalise_backward", *_SPLITS)
    if name in (*_SPLITS, "cat"):
        # the two halves of a gated block
        axis = operation.args[-1] if len(operation.args) > 1 + (name != "cat") else 0
        return form == "deep" and set(forms) == {form} and axis in (-1, 2)
    return name in _ELEMENTWISE and form != "turned" and bool(taken) and set(forms) <= {form, ""}
