"""The metric above which a point counts: for the hypervolume, for the front, and for any choice from it.

Where everything is frozen, training costs next to nothing and learns next to nothing. Such a point is Pareto-optimal by
its costs alone, and of no use to anyone.
"""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["NEAR", "metric_floor"]

NEAR = 0.5
"""Default share of the best point's advantage over a constant answer that a point has to have."""

_NOISE = NormalDist().inv_cdf(0.95)
"""Standard errors by which a metric has to differ: one-sided, at a level of 5 %."""


def metric_floor(best: float, error: float, constant: float | None, near: float = NEAR) -> float:
    """Return the metric that a point has to exceed.

    It has to be better than a constant answer by more than noise, and near the best. With best metric b, standard error
    e, constant answer c and share n, a point counts where its metric is above

        max(c + 1.64 e, min(c + n (b - c), b - 1.64 sqrt(2) e)).

    1.64 is the normal quantile of a one-sided test at 5 %. A point has an error, a constant answer has none; the
    difference of two independent points has that of both, so that what may be as good as the best always counts if it
    has learned. The share is a convention: half of what could be learned.

    Args:
        best: the highest metric of all points.
        error: standard error of ``best``.
        constant: metric of the best constant answer on the same rows; None where it is not recorded.
        near: share of the advantage, 0 to 1; with 0 only noise decides.

    Returns:
        ``-inf`` where the constant answer is unknown. Where it is at least ``best``, nothing has learned and no point
        counts.
    """
    if constant is None:
        return -math.inf
    within_noise = best - _NOISE * math.sqrt(2.0) * error
    return max(constant + _NOISE * error, min(constant + near * (best - constant), within_noise))
