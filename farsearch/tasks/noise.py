"""Standard errors of metrics and of their differences, from the draw of the rows. Needs numpy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from farsearch.tasks.spec import MetricName

__all__ = ["metric_error", "paired_error", "phi"]

Floats = NDArray[np.float64]


def phi(tables: Floats) -> Floats:
    """Matthews correlation of 2x2 tables ``[..., truth, prediction]``; 0 where a margin is empty."""
    (tn, fp), (fn, tp) = np.moveaxis(tables, (-2, -1), (0, 1))
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return np.where(margins > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(margins, 1)), 0.0)


def metric_error(name: MetricName, predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Standard error of a metric.

    Of accuracy that of a share, sqrt(p (1 - p) / n), from the variance of the binomial distribution; of a correlation
    the delete-one jackknife's.
    """
    cells, counts = _cells(predictions, labels)
    if name == "accuracy":
        return _mean_error((cells[:, 0] == cells[:, 1]).astype(float), counts)
    return _jackknife(_without_one(cells[:, 0], cells[:, 1], counts), counts)


def paired_error(name: MetricName, predictions: Sequence[int], others: Sequence[int], labels: Sequence[int]) -> float:
    """Standard error of the difference of two models' metrics on the same rows.

    As ``metric_error``, of what the rows say of the difference: what is hard for both does not blur it. Where one model
    is wrong everywhere it is the other's ``metric_error`` of accuracy, and where both say the same it is 0.

    Args:
        predictions, others, labels: class ids, as many of each.
    """
    cells, counts = _cells(predictions, others, labels)
    first, second, truth = cells.T
    if name == "accuracy":
        return _mean_error((first == truth) - (second == truth).astype(float), counts)
    return _jackknife(_without_one(first, truth, counts) - _without_one(second, truth, counts), counts)


def _cells(*columns: Sequence[int]) -> tuple[NDArray[np.int64], Floats]:
    """The distinct rows of some columns, ``[cells, columns]``, and how often each occurs: such rows are alike."""
    cells, counts = np.unique(np.stack([np.asarray(column) for column in columns], axis=1), axis=0, return_counts=True)
    return cells, counts.astype(float)


def _mean_error(values: Floats, counts: Floats) -> float:
    """Standard error of the mean of row values: ``values`` of cells that occur ``counts`` times."""
    rows = counts.sum()
    mean = counts @ values / rows
    return math.sqrt(float(counts @ (values - mean) ** 2)) / float(rows)


def _without_one(predictions: NDArray[np.int64], labels: NDArray[np.int64], counts: Floats) -> Floats:
    """Matthews correlation without one row of each cell, ``[cells]``."""
    table, one = np.zeros((2, 2)), np.zeros((len(counts), 2, 2))
    np.add.at(table, (labels, predictions), counts)
    one[np.arange(len(counts)), labels, predictions] = 1
    return phi(np.maximum(table - one, 0))


def _jackknife(values: Floats, counts: Floats) -> float:
    """Delete-one jackknife: sqrt((n - 1)/n · Σᵢ (θ₍ᵢ₎ - mean θ₍.₎)²), equation 11.5 of Efron and Tibshirani.

    An Introduction to the Bootstrap, 1993, chapter 11. All rows of one cell leave the same value when they are deleted,
    so that the cells' values, weighted by their counts, are all of it.
    """
    rows = counts.sum()
    mean = counts @ values / rows
    return math.sqrt(float((rows - 1) / rows * (counts @ (values - mean) ** 2)))
