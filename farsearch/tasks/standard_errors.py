"""Standard errors of metrics and of their differences, from the draw of the rows. Needs numpy alone."""

from __future__ import annotations

import math

import numpy as np

from farsearch.runtime.scores import METRICS
from farsearch.tasks.weighted import Floats, distinct, values_without_one

__all__ = ["comparable", "metric_error", "paired_error"]


def metric_error(metric: str, evidence: Floats) -> float:
    """Standard error of a metric.

    Of accuracy that of a share, sqrt(p (1 - p) / n), from the variance of the binomial distribution; of any other the
    delete-one jackknife's, of a composite one that of the mean of its parts. 0 for a single row.

    Args:
        evidence: of each row, ``[rows, k]``, as ``MetricValue`` has it.
    """
    cells, counts = distinct(evidence)
    if metric == "accuracy":
        return _mean_error((cells[:, 0] == cells[:, 1]).astype(float), counts)
    if len(evidence) < 2:
        return 0.0
    return _jackknife(values_without_one(metric, cells, counts), counts)


def paired_error(metric: str, evidence: Floats, others: Floats) -> float:
    """Standard error of the difference of two models' metrics on the same rows.

    As ``metric_error``, of what the rows say of the difference: what is hard for both does not blur it. Where one model
    is wrong everywhere it is the other's ``metric_error`` of accuracy, and where both say the same it is 0.

    Args:
        evidence, others: of each row and model, as ``comparable`` has them.
    """
    cells, counts = distinct(np.hstack([evidence, others]))
    first, second = np.hsplit(cells, 2)
    if metric == "accuracy":
        right = (first[:, 0] == first[:, 1]) - (second[:, 0] == second[:, 1]).astype(float)
        return _mean_error(right, counts)
    if len(evidence) < 2:
        return 0.0
    without_one = values_without_one(metric, first, counts) - values_without_one(metric, second, counts)
    return _jackknife(without_one, counts)


def comparable(metric: str, evidence: Floats, others: Floats) -> bool:
    """Whether the evidence can be that of the same rows: as many, and where it tells what is true of them, the same."""
    told = METRICS[metric].kinds[0] in ("classification", "regression")
    return evidence.shape == others.shape and (not told or np.array_equal(evidence[:, 1], others[:, 1]))


def _mean_error(values: Floats, counts: Floats) -> float:
    """Standard error of the mean of row values: ``values`` of cells that occur ``counts`` times."""
    rows = counts.sum()
    mean = counts @ values / rows
    return math.sqrt(float(counts @ (values - mean) ** 2)) / float(rows)


def _jackknife(values: Floats, counts: Floats) -> float:
    """Delete-one jackknife: sqrt((n - 1)/n · Σᵢ (θ₍ᵢ₎ - mean θ₍.₎)²), equation 11.5 of Efron and Tibshirani.

    An Introduction to the Bootstrap, 1993, chapter 11. All rows of one cell leave the same value when they are deleted,
    so that the cells' values, weighted by their counts, are all of it.
    """
    rows = counts.sum()
    mean = counts @ values / rows
    return math.sqrt(float((rows - 1) / rows * (counts @ (values - mean) ** 2)))
