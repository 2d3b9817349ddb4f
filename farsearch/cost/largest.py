"""The largest batch that fits a device."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from farsearch.cost.prices import Price

__all__ = ["largest_batch"]

_FIRST = 8
"""Rows that are priced first."""
_MOST = 2**16
"""Rows above which no batch is sought."""
_FASTEST = 8
"""Largest factor from a batch that fits to the next that is priced."""


def largest_batch(price: Callable[[int], Price], most: int | None = None) -> int:
    """Return the largest batch that fits, while one more row does not; 0 where a single row does not fit.

    Memory is nearly linear in the rows, so the line through two prices leads to the next one: about five batches are
    traced. Every fifth halves the interval, which bounds their number.

    Args:
        price: of a batch of so many rows, under the plan that takes the least memory.
        most: rows of an epoch; None for 65,536. The returned batch is at most this.
    """
    low, high = 0, (most or _MOST) + 1
    excess: dict[int, float] = {}
    rows = min(_FIRST, high - 1)
    while high - low > 1:
        cost = price(rows)
        excess[rows] = cost.peak_memory_range_mib[1] - cost.available_range_mib[0]
        low, high = (rows, high) if cost.fits else (low, rows)
        middle = len(excess) % 5 == 0 and high in excess
        target = (low + high) // 2 if middle else _crossing(excess)
        rows = max(low + 1, min(target, high - 1, _FASTEST * max(low, 1)))
    return low


def _crossing(excess: dict[int, float]) -> int:
    """Return the rows at which the line through the two prices nearest to the limit reaches it.

    A single price, or a line that does not rise, leads to half or twice the rows.
    """
    nearest = sorted(sorted(excess, key=lambda rows: abs(excess[rows]))[:2])
    for few, many in pairwise(nearest):
        slope = (excess[many] - excess[few]) / (many - few)
        if slope > 0:
            return int(few - excess[few] / slope)
    return max(excess) * 2 if excess[max(excess)] <= 0 else min(excess) // 2
