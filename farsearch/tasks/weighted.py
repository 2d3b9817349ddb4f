"""Metrics of weighted samples of rows, and of all rows but one, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from farsearch.tasks.correlations import Floats, pearson, pearson_without_one, spearman, spearman_without_one

__all__ = ["Floats", "distinct", "values", "values_without_one"]


def distinct(rows: Floats) -> tuple[Floats, Floats]:
    """Return the distinct rows, ``[cells, k]``, and their multiplicities."""
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    return cells, counts.astype(float)


def values(metric: str, rows: Floats, weights: Floats) -> Floats:
    """Return a metric's value on samples of rows, ``[samples]``.

    Args:
        metric: one of ``runtime.scores.METRICS``; undefined values are 0 as there.
        rows: evidence, ``[rows, k]``, as of ``runtime.scores.evidence``.
        weights: multiplicity of each row in each sample, integers ``[samples, rows]``; no sample is empty.
    """
    return np.asarray(np.mean([part.of_samples(rows, weights) for part in _PARTS[metric]], axis=0))


def values_without_one(metric: str, rows: Floats, counts: Floats) -> Floats:
    """Return a metric's value without one of each row, ``[rows]``; rows occur ``counts`` times, 2 or more in all."""
    return np.asarray(np.mean([part.without_one(rows, counts) for part in _PARTS[metric]], axis=0))


class _Part(NamedTuple):
    """A part of a metric, whose value is the mean of its parts, by functions as above."""

    of_samples: Callable[[Floats, Floats], Floats]
    without_one: Callable[[Floats, Floats], Floats]


def _counted(statistics: Callable[[Floats], Floats], value: Callable[[Floats], Floats]) -> _Part:
    """A part that is a function of sums over rows.

    Args:
        statistics: maps rows to their addends, ``[rows, sums]``.
        value: maps sums, ``[sums, samples]``, to values, ``[samples]``.
    """

    def without_one(rows: Floats, counts: Floats) -> Floats:
        addends = statistics(rows)
        return value((counts @ addends - addends).T)

    return _Part(lambda rows, weights: value((weights @ statistics(rows)).T), without_one)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _f1(sums: Floats) -> Floats:
    """F1 from the numbers of true positives, predictions and answers."""
    correct, predicted, true = sums
    return _ratio(2 * correct, predicted + true)


def _mean(sums: Floats) -> Floats:
    total, rows = sums
    return np.asarray(total / rows)


def _hits(rows: Floats) -> Floats:
    return np.stack([rows[:, 0] == rows[:, 1], np.ones(len(rows))], axis=1)


def _answer_f1(rows: Floats) -> Floats:
    return np.stack([rows[:, 1], np.ones(len(rows))], axis=1)


def _of_classes(rows: Floats, classes: Floats) -> Floats:
    """Indicators of true positives, predictions and answers by class: ``[rows, 3 x classes]``."""
    predicted, true = (rows[:, [i]] == classes for i in (0, 1))
    return np.hstack([predicted & true, predicted, true]).astype(float)


def _label_counts(rows: Floats) -> Floats:
    correct, wrong, missed, _ = rows.T
    return np.stack([correct, correct + wrong, correct + missed], axis=1)


def _matthews(sums: Floats) -> Floats:
    correct, predicted, true = np.split(sums, 3)
    total = predicted.sum(0)
    # two roots, because the product of the integers exceeds the exact range of a float
    size = np.sqrt(total**2 - (predicted**2).sum(0)) * np.sqrt(total**2 - (true**2).sum(0))
    return _ratio(correct.sum(0) * total - (predicted * true).sum(0), size)


def _macro_f1(sums: Floats) -> Floats:
    correct, predicted, true = np.split(sums, 3)
    return np.asarray(_ratio(2 * correct, predicted + true).sum(0) / (predicted + true > 0).sum(0))


_ACCURACY = _counted(_hits, _mean)
_F1 = _counted(lambda rows: _of_classes(rows, np.ones(1)), _f1)
_PEARSON = _Part(pearson, pearson_without_one)
_SPEARMAN = _Part(spearman, spearman_without_one)

_PARTS: Mapping[str, tuple[_Part, ...]] = {
    "accuracy": (_ACCURACY,),
    "matthews_correlation": (_counted(lambda rows: _of_classes(rows, np.unique(rows)), _matthews),),
    "f1": (_F1,),
    "macro_f1": (_counted(lambda rows: _of_classes(rows, np.unique(rows)), _macro_f1),),
    "accuracy_f1": (_ACCURACY, _F1),
    "pearson": (_PEARSON,),
    "spearman": (_SPEARMAN,),
    "pearson_spearman": (_PEARSON, _SPEARMAN),
    "micro_f1": (_counted(_label_counts, _f1),),
    "squad": (_counted(_answer_f1, _mean),),
    "entity_f1": (_counted(lambda rows: rows, _f1),),
}
