"""Standard errors of metrics and of their differences, from the sampling of rows, in numpy."""

from __future__ import annotations

import math

import numpy as np

from farsearch.runtime.scores import METRICS
from farsearch.tasks.weighted import Floats, distinct, values_without_one

__all__ = ["comparable", "metric_error", "paired_error"]


def metric_error(metric: str, evidence: Floats) -> float:
    """Return the standard error of a metric.

    For accuracy it is binomial, sqrt(p (1 - p) / n); for other metrics that of the delete-one jackknife, of the mean of
    the parts for a composite metric. It is 0 for a single row.

    Args:
        evidence: evidence of the rows, ``[rows, k]``.
    """
    cells, counts = distinct(evidence)
    if metric == "accuracy":
        return _mean_error((cells[:, 0] == cells[:, 1]).astype(float), counts)
    if len(evidence) < 2:
        return 0.0
    return _jackknife(values_without_one(metric, cells, counts), counts)


def paired_error(metric: str, evidence: Floats, others: Floats) -> float:
    """Return the standard error of the difference of two models' metrics on the same rows.

    Rows are paired, so that rows that are hard for both do not increase it; it is 0 for equal predictions. Methods are
    those of ``metric_error``.

    Args:
        evidence, others: evidence of the rows for each model, which must be ``comparable``.
    """
    cells, counts = distinct(np.hstack([evidence, others]))
    first, second = np.hsplit(cells, 2)
    if metric == "accuracy":
        gains = (first[:, 0] == first[:, 1]) - (second[:, 0] == second[:, 1]).astype(float)
        return _mean_error(gains, counts)
    if len(evidence) < 2:
        return 0.0
    without_one = values_without_one(metric, first, counts) - values_without_one(metric, second, counts)
    return _jackknife(without_one, counts)


def comparable(metric: str, evidence: Floats, others: Floats) -> bool:
    """Return whether evidence can be of the same rows: equal shapes, and equal answers where evidence includes them."""
    with_answers = METRICS[metric].kinds[0] in ("classification", "regression")
    return evidence.shape == others.shape and (not with_answers or np.array_equal(evidence[:, 1], others[:, 1]))


def _mean_error(values: Floats, counts: Floats) -> float:
    """Standard error of the mean of row values: ``values`` of cells that occur ``counts`` times."""
    rows = counts.sum()
    mean = counts @ values / rows
    return math.sqrt(float(counts @ (values - mean) ** 2)) / float(rows)


def _jackknife(values: Floats, counts: Floats) -> float:
    """Delete-one jackknife: sqrt((n - 1)/n · Σᵢ (θ₍ᵢ₎ - mean θ₍.₎)²), equation 11.5 of Efron and Tibshirani.

    An Introduction to the Bootstrap, 1993, chapter 11. All rows of a cell have the same value when deleted, so the
    cells' values are weighted by their counts.
    """
    rows = counts.sum()
    mean = counts @ values / rows
    return math.sqrt(float((rows - 1) / rows * (counts @ (values - mean) ** 2)))
