"""The lowerings of aten's operators by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from farsearch.errors import BadInput
from farsearch.graph.builder import Builder
from farsearch.graph.operation import Operation

__all__ = ["OPERATORS", "Lowering"]

_KEYWORDS = frozenset({"alpha", "approximate", "device", "dtype", "layout", "memory_format", "pin_memory"})
"""Keywords that the lowerings read, or that are described by shape and type of the result."""

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
            raise BadInput(f"the operator {operation.name} can't be compiled; use `engine` torch")
        unknown = set(operation.kwargs) - _KEYWORDS
        if unknown:
            raise BadInput(f"the operator {operation.name} with {min(unknown)} can't be compiled; use `engine` torch")

        def value_of(argument: Any) -> Any:
            if isinstance(argument, Operation):
                return values[argument]
            if isinstance(argument, list | tuple):
                return [value_of(each) for each in argument]
            return argument

        return self._by_name[operation.name](builder, operation, *(value_of(argument) for argument in operation.args))


OPERATORS = _Operators()
