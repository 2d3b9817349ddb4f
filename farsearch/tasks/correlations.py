"""Correlations of samples of rows, and of all rows but one, in numpy.

A correlation is 0 if a side is constant or not finite.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "pearson", "pearson_without_one", "spearman", "spearman_without_one"]

Floats = NDArray[np.float64]


def pearson(rows: Floats, weights: Floats) -> Floats:
    """Return Pearson's correlation of samples, ``[samples]``.

    Args:
        rows: both sides, ``[rows, 2]``.
        weights: multiplicity of each row in each sample, ``[samples, rows]``; no sample is empty.
    """
    if not np.isfinite(rows).all():
        return np.zeros(len(weights))
    first, second = (_centred(side, weights) for side in _scaled(rows).T)
    return _correlation(first, second, weights)


def spearman(rows: Floats, weights: Floats) -> Floats:
    """Return Spearman's correlation of samples, as ``pearson``."""
    if not np.isfinite(rows).all():
        return np.zeros(len(weights))
    first, second = (_centred_ranks(side, weights) for side in rows.T)
    return _correlation(first, second, weights)


def pearson_without_one(rows: Floats, counts: Floats) -> Floats:
    """Return Pearson's correlation without one of each row, ``[rows]``; rows occur ``counts`` times, 2 or more."""
    if not np.isfinite(rows).all():
        return np.zeros(len(rows))
    rows, total = _scaled(rows), counts.sum()
    first, second = (_centred(side, counts[None])[0] for side in rows.T)
    share = total / (total - 1)
    both, one, other = (counts @ (a * b) - share * a * b for a, b in _products(first, second))
    values = _clipped(both, one, other)
    # for a row with nearly all of the variance the difference loses its digits to cancellation
    far = np.flatnonzero((one < _LEFT * (counts @ first**2)) | (other < _LEFT * (counts @ second**2)))
    values[far] = pearson(rows, counts - np.eye(len(rows))[far]) if len(far) else 0.0
    return values


_LEFT = 1e-6
"""Remaining share of a variance at which a difference retains ten digits."""


def spearman_without_one(rows: Floats, counts: Floats) -> Floats:
    """Return Spearman's correlation, as ``pearson_without_one``.

    Ranks are those of the remaining rows: without a row, the ranks above it are lower by 1, and those equal to it by
    1/2. All sums are of multiples of 1/4, and exact.
    """
    if not np.isfinite(rows).all():
        return np.zeros(len(rows))
    sides = np.repeat(rows, counts.astype(int), axis=0).T
    left = sides.shape[1] - 1
    ranks = [_centred_ranks(side, np.ones((1, left + 1)))[0] + (left + 2) / 2 for side in sides]
    products = ranks[0] @ ranks[1] - ranks[0] * ranks[1] + _above_both(*sides)
    variances = []
    for side, others in zip(sides, reversed(ranks), strict=True):
        _, places, ties = np.unique(side, return_inverse=True, return_counts=True)
        sums = np.bincount(places, weights=others)
        # decrease of the products of the rows above and beside each with the other side's ranks
        products -= (sums.sum() - np.cumsum(sums) + sums / 2)[places] - others / 2
        tied = (ties**3 - ties).sum() - 3 * (ties * (ties - 1))[places]
        variances.append((left**3 - left - tied) / 12)
    values = _clipped(products - left * ((left + 1) / 2) ** 2, *variances)
    return np.asarray(values[np.cumsum(counts).astype(int) - 1])


def _above_both(first: Floats, second: Floats) -> Floats:
    """Number of rows above each row on both sides, ``[rows]``; equality on a side counts 1/2.

    It is the mean over the four ways to order equal values by position, up or down on each side.
    """
    above = np.zeros(len(first))
    places = np.arange(len(first))
    for one, other in product((places, -places), repeat=2):
        order, seen = np.lexsort((other, second)), []  # type: ignore[var-annotated]
        rank = np.empty(len(order), dtype=int)
        rank[order] = places
        ranks = rank.tolist()
        for row in np.lexsort((one, first))[::-1].tolist():
            place = bisect_left(seen, ranks[row])
            above[row] += len(seen) - place
            seen.insert(place, ranks[row])
    return above / 4


def _scaled(rows: Floats) -> Floats:
    """Rows divided by each side's largest value, so that no square overflows."""
    return np.asarray(rows / np.maximum(np.abs(rows).max(0), np.finfo(float).tiny))


def _centred(side: Floats, weights: Floats) -> Floats:
    """Each sample's values less their mean, ``[samples, rows]``; exactly 0 for a constant sample."""
    # subtract one of the sample's values first: a mean is not always exact
    shifted = side - side[np.argmax(weights > 0, axis=1), None]
    return np.asarray(shifted - (np.einsum("sr,sr->s", weights, shifted) / weights.sum(1))[:, None])


def _centred_ranks(side: Floats, weights: Floats) -> Floats:
    """Each row's rank in each sample less the mean rank, ``[samples, rows]``; equal values have their mean rank.

    These are multiples of 1/2, and exact.
    """
    order = np.argsort(side, kind="stable")
    _, starts, places = np.unique(side[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    # the mean of the ranks n + 1 … n + c is n + (c + 1) / 2, that of all ranks of a sample (size + 1) / 2
    ranks = np.cumsum(counts, axis=1) - counts / 2 - weights.sum(1, keepdims=True) / 2
    centred = np.empty_like(weights)
    centred[:, order] = ranks[:, places]
    return centred


def _correlation(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of centred values ``[samples, rows]``."""
    return _clipped(*(np.einsum("sr,sr,sr->s", weights, a, b) for a, b in _products(first, second)))


def _products(first: Floats, second: Floats) -> tuple[tuple[Floats, Floats], ...]:
    return (first, second), (first, first), (second, second)


def _clipped(both: Floats, one: Floats, other: Floats) -> Floats:
    """Correlations of a covariance and two variances."""
    size = np.sqrt(np.maximum(one, 0)) * np.sqrt(np.maximum(other, 0))
    return np.asarray(np.clip(np.divide(both, size, out=np.zeros_like(size), where=size > 0), -1.0, 1.0))
