"""What a step plan is chosen for, and the rule by which the best is chosen: one for prices, searches and studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GOALS", "Goal", "best_plan"]

Goal = Literal["memory", "time", "balanced"]
"""The least peak (of equal ones the least time), the least time (likewise), or the least product of both."""

GOALS: Sequence[Goal] = get_args(Goal)

_EQUAL = 1e-9
"""Relative difference up to which two prices are a tie: rounding of their sums."""


def best_plan(peak_memory: ArrayLike, time: ArrayLike, fits: ArrayLike, goal: Goal) -> NDArray[np.intp]:
    """Return the index of the plan that serves a goal best, of each configuration.

    Among the plans with which the configuration fits; where it fits with none, by the least peak, for that is what
    would have to shrink. Of a tie the first plan: plans are listed with the simpler ones first.

    Args:
        peak_memory, time, fits: ``[plans, ...]``; at least one plan.

    Returns:
        ``[...]``.
    """
    memory, seconds, fit = np.asarray(peak_memory, float), np.asarray(time, float), np.asarray(fits, bool)
    some = fit.any(axis=0)
    candidates = fit | ~some
    product = memory * seconds
    orders: dict[Goal, tuple[NDArray[Any], ...]] = {
        "memory": (memory, seconds),
        "time": (seconds, memory),
        "balanced": (product, memory),
    }
    for mine, least in zip(orders[goal], orders["memory"], strict=True):
        score = np.where(candidates, np.where(some, mine, least), np.inf)
        candidates &= score <= score.min(axis=0) * (1 + _EQUAL)
    return np.asarray(candidates.argmax(axis=0))
