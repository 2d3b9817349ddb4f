"""Methods that take the fields of a record as keyword arguments, declared once: in the record."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

__all__ = ["takes_fields"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


def takes_fields(record: Callable[P, T]) -> Callable[[Callable[[S, T], R]], Callable[Concatenate[S, P], R]]:
    """Convert a method of one record into a method of the record's fields.

    Type checkers, ``help`` and completion see the fields with their types and defaults.

    Args:
        record: the class of the record.
    """

    def decorate(method: Callable[[S, T], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(method)
        def with_fields(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self, record(*args, **kwargs))

        own = inspect.signature(method)
        first = next(iter(own.parameters.values())).replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        fields = inspect.signature(record).parameters.values()
        signature = own.replace(parameters=[first, *fields])
        with_fields.__signature__ = signature  # type: ignore[attr-defined]
        with_fields.__doc__ = f"{inspect.getdoc(method)}\n\n{_described(record)}"
        return cast("Callable[Concatenate[S, P], R]", with_fields)

    return decorate


def _described(record: Any) -> str:
    """Return the ``Args`` of a record's fields, where their metadata describe them."""
    helps = [(field.name, field.metadata.get("help")) for field in dataclasses.fields(record)]
    lines = [f"    {name}: {text}" for name, text in helps if text]
    return "\n".join(["Args:", *lines]) if lines else str(inspect.getdoc(record))
