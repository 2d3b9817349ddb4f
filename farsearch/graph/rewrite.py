"""Rewrite a trace before it is cut: what is saved of a LayerNorm, dropout's masks as inputs, no transposed products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from farsearch.graph.operation import Operation, operands
from farsearch.graph.operators.products import MOST_ROWS
from farsearch.graph.trace import Trace

__all__ = ["Dropout", "rewritten"]

_COPIES = ("clone", "detach", "detach_copy", "alias", "alias_copy", "lift_fresh_copy")


@dataclass(frozen=True)
class Dropout:
    """A mask that the runner draws.

    Attributes:
        value: its name in the program.
        p: probability of dropping an element.
    """

    value: str
    shape: Any
    p: float


def rewritten(trace: Trace) -> tuple[Trace, list[Dropout]]:
    """Return an equal trace with fewer tensors saved for the backward pass, and the masks that it takes."""
    dropouts: list[Dropout] = []
    rewriter = _Rewriter(_users(trace), dropouts)
    made: list[Operation] = []
    for operation in trace.operations:
        made += rewriter.rewrite(operation)
    outputs = {name: rewriter.now(value) for name, value in trace.outputs.items()}
    tables: dict[str, tuple[Operation, int]] = {}
    for name, value in outputs.items():
        if value.name == "embedding_dense_backward" and value.args[2] > MOST_ROWS:
            outputs[name], ids, _, padding, _ = value.args
            tables[name.removeprefix("gradient:")] = ids, padding
    needed = [*outputs.values(), *(ids for ids, _ in tables.values())]
    return Trace(_alive(made, needed), outputs, tables), dropouts


def _users(trace: Trace) -> Counter[Operation]:
    counted = Counter(operand for operation in trace.operations for operand in operands(operation))
    counted.update(trace.outputs.values())
    return counted


def _alive(operations: list[Operation], outputs: Iterable[Operation]) -> list[Operation]:
    """The operations that an output depends on, and the boundaries."""
    needed = set(outputs)
    for operation in reversed(operations):
        if operation in needed:
            needed.update(operands(operation))
    return [operation for operation in operations if operation in needed or operation.name == "cut"]


class _Rewriter:
    """Rewrites operations one after another; ``now`` maps those of the trace to what replaces them."""

    def __init__(self, users: Counter[Operation], dropouts: list[Dropout]) -> None:
        self._users, self._dropouts = users, dropouts
        self._now: dict[Operation, Operation] = {}
        self._masks: dict[int, Operation] = {}
        self._items: dict[Operation, Mapping[int, Operation]] = {}
        """Results of operations of several results that were replaced."""
        self._normals: dict[Operation, Operation] = {}
        """Normalised inputs by their 1 / deviation."""
        self._rules: Mapping[str, Callable[[Operation], list[Operation]]] = {
            "boundary": self._boundary,
            "dropped": self._dropped,
            "bernoulli": self._bernoulli,
            "native_dropout": self._native_dropout,
            "native_dropout_backward": self._native_dropout_backward,
            "native_layer_norm": self._native_layer_norm,
            "native_layer_norm_backward": self._native_layer_norm_backward,
            "getitem": self._getitem,
            "copy": self._written,
            "slice_scatter": self._written,
            "slice": self._whole,
            "slice_copy": self._whole,
            "split": self._undivided,
            "split_copy": self._undivided,
            **dict.fromkeys(_COPIES, self._copied),
            "t": self._t,
            "t_copy": self._t,
        }

    def now(self, value: Any) -> Any:
        if isinstance(value, Operation):
            return self._now.get(value, value)
        if isinstance(value, list | tuple):
            return type(value)(self.now(each) for each in value)
        return value

    def rewrite(self, operation: Operation) -> list[Operation]:
        """The operations that replace one, which may be none."""
        operation.args = self.now(operation.args)
        rule = self._rules.get(operation.name)
        return [operation] if rule is None else rule(operation)

    def _boundary(self, operation: Operation) -> list[Operation]:
        self._now[operation] = operation.args[0]
        return [Operation("cut", ())]

    def _dropped(self, operation: Operation) -> list[Operation]:
        """The mask of dropout by its number: in the backward pass the same input again."""
        _, p, number = operation.args
        known = self._masks.get(number)
        if known is None:
            self._masks[number] = known = self._mask(operation.shape, p)
            self._now[operation] = known
            return [known]
        self._now[operation] = known
        return []

    def _mask(self, shape: Any, p: float) -> Operation:
        value = f"dropout:{len(self._dropouts)}"
        self._dropouts.append(Dropout(value, shape, p))
        return Operation("input", (value,), {}, shape, "bool")

    def _bernoulli(self, operation: Operation) -> list[Operation]:
        """The elements that torch's own dropout keeps, as 1.0."""
        mask = self._mask(operation.shape, 1.0 - operation.args[1])
        kept = Operation("logical_not", (mask,), {}, operation.shape, "bool")
        number = Operation("to_float", (kept,), {}, operation.shape, operation.dtype)
        self._now[operation] = number
        return [mask, kept, number]

    def _native_layer_norm(self, operation: Operation) -> list[Operation]:
        """Save the normalised input, from which the output follows, and neither the input nor the mean."""
        x, _, weight, bias, eps = operation.args
        shape, _, row = operation.shape
        both = Operation("normalise", (x, eps), {}, (shape, row), ("float32", "float32"))
        normal = Operation("getitem", (both, 0), {}, shape)
        inverse = Operation("getitem", (both, 1), {}, row)
        y = Operation("scale_shift", (normal, weight, bias), {}, shape) if weight is not None else normal
        # the mean is used only by the backward pass, which does not need it any more
        self._items[operation] = {0: y, 2: inverse}
        self._normals[inverse] = normal
        return [both, normal, inverse, *([y] if weight is not None else [])]

    def _native_layer_norm_backward(self, operation: Operation) -> list[Operation]:
        g, _, _, _, inverse, weight, _, wanted = operation.args
        operation.name, operation.args = "normalise_backward", (g, self._normals[inverse], inverse, weight, wanted)
        return [operation]

    def _native_dropout(self, operation: Operation) -> list[Operation]:
        x, p, _ = operation.args
        mask = self._mask(operation.shape[0], p)
        y = Operation("drop", (x, mask, 1.0 / (1.0 - p)), {}, operation.shape[0])
        self._items[operation] = {0: y, 1: mask}
        return [mask, y]

    def _native_dropout_backward(self, operation: Operation) -> list[Operation]:
        operation.name = "drop"
        return [operation]

    def _copied(self, operation: Operation) -> list[Operation]:
        self._now[operation] = operation.args[0]
        return []

    def _written(self, operation: Operation) -> list[Operation]:
        """A tensor that is overwritten is what is written to it."""
        target, source = operation.args[:2]
        if target.shape != source.shape:
            return [operation]
        self._now[operation] = source
        return []

    def _whole(self, operation: Operation) -> list[Operation]:
        """A part that is the whole."""
        return [operation] if operation.shape != operation.args[0].shape else self._copied(operation)

    def _undivided(self, operation: Operation) -> list[Operation]:
        """The only part of a split."""
        if len(operation.shape) != 1:
            return [operation]
        self._items[operation] = {0: operation.args[0]}
        return []

    def _getitem(self, operation: Operation) -> list[Operation]:
        source, index = operation.args
        if source not in self._items:
            return [operation]
        if index in self._items[source]:
            self._now[operation] = self._items[source][index]
        return []

    def _t(self, operation: Operation) -> list[Operation]:
        """``(A B)'`` as ``B' A'``: no product is transposed afterwards."""
        (source,) = operation.args
        if not isinstance(source, Operation) or source.name != "mm" or self._users[source] != 1:
            return [operation]
        left, right = source.args
        turned = [Operation("t", (each,), {}, each.shape[::-1], each.dtype) for each in (right, left)]
        operation.name, operation.args = "mm", tuple(turned)
        return [*turned, operation]
