"""Goals of a step plan, and the selection of the best plan for a goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GOALS", "Goal", "best_plan"]

Goal = Literal["memory", "time", "balanced"]
"""The least peak memory (then the least time), the least time (then the least peak), or the least product of both."""

GOALS: Sequence[Goal] = get_args(Goal)

_EQUAL = 1e-9
"""Relative difference up to which two prices are a tie: rounding of their sums."""


def best_plan(peak_memory: ArrayLike, time: ArrayLike, fits: ArrayLike, goal: Goal) -> NDArray[np.intp]:
    """Return the index of the best plan for a goal, of each configuration.

    Only plans under which the configuration fits are considered; if there are none, the plan with the least peak is
    returned, because the peak would have to shrink. Of equal plans the first, the simplest, is returned.

    Args:
        peak_memory, time, fits: ``[plans, ...]``; at least one plan.

    Returns:
        ``[...]``.
    """
    memory, seconds, fit = np.asarray(peak_memory, float), np.asarray(time, float), np.asarray(fits, bool)
    can_fit = fit.any(axis=0)
    candidates = fit | ~can_fit
    product = memory * seconds
    orders: dict[Goal, tuple[NDArray[Any], ...]] = {
        "memory": (memory, seconds),
        "time": (seconds, memory),
        "balanced": (product, memory),
    }
    for mine, least in zip(orders[goal], orders["memory"], strict=True):
        score = np.where(candidates, np.where(can_fit, mine, least), np.inf)
        candidates &= score <= score.min(axis=0) * (1 + _EQUAL)
    return np.asarray(candidates.argmax(axis=0))
