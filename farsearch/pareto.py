"""Pareto dominance. All objectives are minimised.

Point a dominates point b if no objective of a is larger than that of b and at least one is smaller.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["dominates", "non_dominated"]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether point ``a`` dominates point ``b``."""
    pairs = list(zip(a, b, strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def non_dominated(points: ArrayLike, *, distinct: bool = False) -> NDArray[np.intp]:
    """Return the indices of the points that no other point dominates, in lexicographic order of the points.

    The points are swept in that order. A staircase of the last two objectives, one rising and the other falling, bounds
    the region that the points before dominate, so n points take O(n log n) comparisons (Kung, Luccio and Preparata,
    "On finding the maxima of a set of vectors", JACM 22(4), 1975).

    Args:
        points: two or three finite objectives, ``[points, objectives]``.
        distinct: of equal points return the first alone, else all of them.
    """
    costs = np.asarray(points, dtype=np.float64)
    if not len(costs):
        return np.zeros(0, dtype=np.intp)
    order = np.lexsort(costs.T[::-1])
    is_new = np.ones(len(costs), dtype=np.bool_)
    is_new[1:] = (costs[order[1:]] != costs[order[:-1]]).any(axis=1)
    in_front = _sweep(costs[order[is_new], -2:].tolist())
    return order[is_new][in_front] if distinct else order[in_front[np.cumsum(is_new) - 1]]


def _sweep(pairs: list[list[float]]) -> NDArray[np.bool_]:
    """Return which of the distinct points, sorted, are non-dominated; ``pairs`` are their last two objectives."""
    xs: list[float] = []
    ys: list[float] = []
    in_front = np.zeros(len(pairs), dtype=np.bool_)
    for n, (x, y) in enumerate(pairs):
        i = bisect_right(xs, x)
        if i > 0 and ys[i - 1] <= y:
            continue
        in_front[n] = True
        first = last = bisect_left(xs, x)
        while last < len(ys) and ys[last] >= y:
            last += 1
        xs[first:last], ys[first:last] = [x], [y]
    return in_front
