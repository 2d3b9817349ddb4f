"""One number of a profile: value, range, basis and source."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from farsearch.errors import ProfileError
from farsearch.far.display import shown

__all__ = ["Basis", "Figure", "check", "listed"]

Basis = Literal["read", "derived", "measured", "assumed"]
"""Origin of a value: read in a data sheet or report, derived from such by arithmetic, measured on the device, or
assumed."""


@dataclass(frozen=True)
class Figure:
    """One number of a profile.

    Attributes:
        low, high: the likely range of the number.
        source: of ``value`` and its range; with the arithmetic of a derived value.

    Raises:
        ProfileError: for a value that is negative or not finite, or outside its range.
    """

    value: float
    low: float
    high: float
    source: str
    basis: Basis

    def __post_init__(self) -> None:
        for key in ("value", "low", "high"):
            number = getattr(self, key)
            check(math.isfinite(number), f"{key} is {number}; it must be a finite number")
            check(number >= 0, f"{key} is {number:g}; it must be at least 0")
        check(self.low <= self.value, f"low is {self.low:g}; it must be at most the value {self.value:g}")
        check(self.high >= self.value, f"high is {self.high:g}; it must be at least the value {self.value:g}")
        check(
            self.basis in get_args(Basis), f"basis is {shown(self.basis)}; it must be one of {listed(get_args(Basis))}"
        )
        check(bool(self.source.strip()), "source is empty; it must name the source of the value")


def check(condition: bool, message: str) -> None:
    """Raise ProfileError with the message unless the condition holds."""
    if not condition:
        raise ProfileError(message)


def listed(names: Iterable[object]) -> str:
    """Return the names with commas between them."""
    return ", ".join(map(str, names))
