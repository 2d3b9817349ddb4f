"""Expected hypervolume improvement where the costs are known and only the metric is uncertain.

Hypervolume is the volume that trials dominate in metric (up), memory and time (both down), up to a reference point. A
candidate at known costs (m, t) with metric y adds

    HVI(y) = integral over z from the reference metric to y of A(z) dz,

where A(z) is the area of costs that (m, t) dominates and no trial with a metric of at least z does. A changes only at
the metrics of trials, so with a normal posterior the expectation is a sum in closed form: E[(Y - a)+] - E[(Y - b)+] is
the part of [a, b] that Y is expected to cover. (Emmerich et al. 2006 define expected hypervolume improvement for
uncertain objectives; two certain ones leave this one-dimensional integral.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from farsearch.pareto import non_dominated

__all__ = ["expected_improvement", "hypervolume"]

Array = NDArray[np.float64]

_CERTAIN = 1e-12
"""Deviations up to this are 0: metrics are of the order of 1."""


def expected_improvement(
    costs: Array, mean: Array, deviation: Array, front_metric: Array, front_costs: Array, reference: Array
) -> Array:
    """Return the expected hypervolume that each candidate adds.

    Args:
        costs: known costs of the candidates, ``[candidates, 2]``.
        mean, deviation: of the normal posterior of their metric, ``[candidates]``; a deviation of 0 is a known metric.
        front_metric, front_costs: of the completed trials, ``[trials]`` and ``[trials, 2]``; some may be dominated.
        reference: metric, and the two costs, ``[3]``: points beyond it add nothing.

    Returns:
        ``[candidates]``, in units of metric times both costs.
    """
    keep = (front_metric > reference[0]) & (front_costs < reference[1:]).all(axis=1)
    order = np.argsort(-front_metric[keep], kind="stable")
    metrics, points = front_metric[keep][order], front_costs[keep][order]
    total = np.zeros(len(costs))
    above = np.zeros(len(costs))  # E[(Y - inf)+]
    # from the highest metric down: between metrics[k - 1] and metrics[k] the first k trials dominate
    for k in range(len(metrics) + 1):
        floor = metrics[k] if k < len(metrics) else reference[0]
        below = _expected_excess(mean, deviation, float(floor))
        total += _free_area(costs, points[:k], reference[1:]) * (below - above)
        above = below
    return total


def hypervolume(metric: Array, costs: Array, reference: Array) -> float:
    """Return the hypervolume of ``metric`` ``[trials]`` and ``costs`` ``[trials, 2]``; ``reference`` as above."""
    total, done = 0.0, np.zeros((0, 2))
    order = np.argsort(-metric, kind="stable")
    levels = [*metric[order].tolist(), float(reference[0])]
    for k, i in enumerate(order):
        if levels[k] <= reference[0]:
            break
        done = np.vstack([done, costs[i]])
        height = levels[k] - max(levels[k + 1], float(reference[0]))
        if height > 0:
            total += height * _area(done, reference[1:])
    return total


def _expected_excess(mean: Array, deviation: Array, floor: float) -> Array:
    """E[(Y - floor)+] of normal Y."""
    gap, uncertain = mean - floor, deviation > _CERTAIN
    safe = np.where(uncertain, deviation, 1.0)
    expected = gap * norm.cdf(gap / safe) + safe * norm.pdf(gap / safe)
    return np.where(uncertain, expected, np.maximum(gap, 0.0))


def _area(points: Array, corner: Array) -> float:
    """Area of costs that the points dominate up to ``corner``."""
    points = np.minimum(points, corner)
    # by rising first and so falling second cost
    steps = points[non_dominated(points, distinct=True)]
    ends = np.append(steps[1:, 0], corner[0])
    return float(((ends - steps[:, 0]) * (corner[1] - steps[:, 1])).sum())


def _free_area(costs: Array, points: Array, corner: Array) -> Array:
    """Area that each of ``costs`` dominates up to ``corner`` and none of ``points`` does, ``[candidates]``."""
    own: Array = np.maximum(corner - costs, 0.0).prod(axis=1)
    steps = points[non_dominated(points, distinct=True)]
    for i, (first, second) in enumerate(steps):
        end = steps[i + 1, 0] if i + 1 < len(steps) else corner[0]
        width = np.maximum(end - np.maximum(first, costs[:, 0]), 0.0)
        own -= width * np.maximum(corner[1] - np.maximum(second, costs[:, 1]), 0.0)
    free: Array = np.maximum(own, 0.0)
    return free
