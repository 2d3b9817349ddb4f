"""The difference of two methods over seeds and development rows, with its interval.

A score varies with the seed of its training and with the evaluated rows, and every seed has the same rows: the two are
crossed. The interval is that of the crossed bootstrap, in which seeds and rows are each drawn with
replacement and a cell counts as often as its seed times its row (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 1, 2007, 386-411; McCullagh, "Resampling and exchangeable arrays", Bernoulli 6, 2000, 285-301). Both methods
of a pair have the same draws, so that hard rows and lucky seeds of both cancel.

Its variance counts the interaction of seed and row up to three times, which is too much, and the variance between S
seeds (S - 1)/S times, which is too little for small S. The latter is not corrected: three seeds are a small sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farsearch.tasks.weighted import Floats, values

__all__ = ["DRAWS", "difference", "difference_draws", "interval"]

DRAWS = 2000
"""Draws; the ends of an interval are then accurate to a twentieth of its width."""

_ENTRIES = 2**21
"""Elements of the largest arrays ``[draws, rows]``: 16 MiB each."""


def difference(metric: str, ours: Sequence[Floats], others: Sequence[Floats]) -> float:
    """Return the metric of one method minus that of another, mean over the seeds.

    Args:
        metric: one of ``runtime.scores.METRICS``.
        ours, others: evidence of each seed, ``[rows, k]``, of the same rows and in the same order of seeds.
    """
    once = np.ones((1, len(ours[0])))
    return float(_by_seed(metric, ours, others, once).mean())


def difference_draws(
    metric: str, ours: Sequence[Floats], others: Sequence[Floats], seed: int = 0, draws: int = DRAWS
) -> Floats:
    """Return ``difference`` in crossed bootstrap draws of seeds and rows, ``[draws]``.

    Args:
        seed: of the draws. Two methods that are given the same one, as many seeds and as many rows have the same draws.
    """
    generator, rows = np.random.default_rng(seed), len(ours[0])
    of_seeds = generator.multinomial(len(ours), np.full(len(ours), 1 / len(ours)), size=draws)
    chunks, at_once = [], max(_ENTRIES // rows, 1)
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        of_rows = generator.multinomial(rows, np.full(rows, 1 / rows), size=size).astype(float)
        chunks.append(_by_seed(metric, ours, others, of_rows))
    return np.asarray((np.concatenate(chunks) * of_seeds).sum(1) / len(ours))


def interval(draws: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _by_seed(metric: str, ours: Sequence[Floats], others: Sequence[Floats], weights: Floats) -> Floats:
    """Difference of each seed with rows weighted, ``[samples, seeds]``."""
    pairs = zip(ours, others, strict=True)
    return np.stack([values(metric, one, weights) - values(metric, other, weights) for one, other in pairs], axis=1)
