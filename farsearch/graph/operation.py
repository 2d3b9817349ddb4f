"""The operations of a traced step, with sizes that depend on the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Extent", "Operation", "Shape", "Size", "extent_of", "operands"]


@dataclass(frozen=True)
class Extent:
    """A size ``factor rows^a length^b + offset`` of a batch of ``rows`` sequences of ``length`` tokens.

    Attributes:
        rows, length: whether it is proportional to them, ``a`` and ``b``.
    """

    factor: int
    rows: bool
    length: bool
    offset: int = 0

    def __add__(self, other: int) -> Size:
        return Extent(self.factor, self.rows, self.length, self.offset + other)

    def __sub__(self, other: int) -> Size:
        return self + -other

    def at(self, rows: int, length: int) -> int:
        """The size of one batch."""
        return self.factor * (rows if self.rows else 1) * (length if self.length else 1) + self.offset


Size = int | Extent
Shape = tuple[Size, ...]


def extent_of(first: int, second: int, batches: tuple[tuple[int, int], tuple[int, int]]) -> Size:
    """Return the size that is ``first`` and ``second`` with the rows and lengths of two batches.

    Raises:
        ValueError: where it is none of the supported form.
    """
    if first == second:
        return first
    for rows, length in ((True, True), (True, False), (False, True)):
        unit, other = (Extent(1, rows, length).at(*batch) for batch in batches)
        if first % unit == 0 and first // unit * other == second:
            return Extent(first // unit, rows, length)
    for rows, length in ((False, True), (True, False)):
        unit, other = (Extent(1, rows, length).at(*batch) for batch in batches)
        if first - unit == second - other:
            return Extent(1, rows, length, first - unit)
    raise ValueError(f"a size is {first} with {batches[0]} rows and tokens, and {second} with {batches[1]}")


@dataclass(eq=False)
class Operation:
    """One operator call.

    Attributes:
        name: of the aten operator without its overload; ``input`` and ``constant`` are leaves.
        args, kwargs: operations, numbers, sizes, and lists of these.
        shape: of the result; of several results the shapes of all.
        dtype: likewise, such as ``float32``.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    shape: Any = ()
    dtype: Any = "float32"

    def __repr__(self) -> str:
        return f"{self.name}{self.shape}"


def operands(operation: Operation) -> Iterator[Operation]:
    """The operations that one takes, in the order of its arguments."""
    yield from _within((*operation.args, *operation.kwargs.values()))


def _within(values: Any) -> Iterator[Operation]:
    for value in values:
        if isinstance(value, Operation):
            yield value
        elif isinstance(value, list | tuple):
            yield from _within(value)
