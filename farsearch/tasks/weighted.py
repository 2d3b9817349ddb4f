"""Metrics of samples of rows, in which each may be several times, and of all rows but one. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from farsearch.tasks.correlations import Floats, pearson, pearson_without_one, spearman, spearman_without_one

__all__ = ["Floats", "distinct", "values", "values_without_one"]


def distinct(rows: Floats) -> tuple[Floats, Floats]:
    """The distinct ones among rows, ``[cells, k]``, and how often each occurs: such rows are alike."""
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    return cells, counts.astype(float)


def values(metric: str, rows: Floats, weights: Floats) -> Floats:
    """A metric's value on samples of rows, ``[samples]``.

    Args:
        metric: one of ``runtime.scores.METRICS``, whose rules for what is not defined hold here too.
        rows: their evidence, ``[rows, k]``, as ``runtime.scores.evidence`` gives it.
        weights: how often each row is in each sample, whole numbers ``[samples, rows]``; no sample is empty.
    """
    return np.asarray(np.mean([part.of_samples(rows, weights) for part in _PARTS[metric]], axis=0))


def values_without_one(metric: str, rows: Floats, counts: Floats) -> Floats:
    """A metric's value on rows that occur ``counts`` times, without one of each, ``[rows]``; at least 2 in all."""
    return np.asarray(np.mean([part.without_one(rows, counts) for part in _PARTS[metric]], axis=0))


class _Part(NamedTuple):
    """What the value of a metric is the mean of, as the functions above."""

    of_samples: Callable[[Floats, Floats], Floats]
    without_one: Callable[[Floats, Floats], Floats]


def _counted(statistics: Callable[[Floats], Floats], value: Callable[[Floats], Floats]) -> _Part:
    """A part that is computed from sums over rows.

    Args:
        statistics: what each row adds, ``[rows, sums]``.
        value: of ``[sums, samples]``, ``[samples]``.
    """

    def without_one(rows: Floats, counts: Floats) -> Floats:
        each = statistics(rows)
        return value((counts @ each - each).T)

    return _Part(lambda rows, weights: value((weights @ statistics(rows)).T), without_one)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _f1(sums: Floats) -> Floats:
    """From how many are rightly predicted, predicted, true."""
    right, said, true = sums
    return _ratio(2 * right, said + true)


def _mean(sums: Floats) -> Floats:
    total, rows = sums
    return np.asarray(total / rows)


def _hits(rows: Floats) -> Floats:
    return np.stack([rows[:, 0] == rows[:, 1], np.ones(len(rows))], axis=1)


def _answer_f1(rows: Floats) -> Floats:
    return np.stack([rows[:, 1], np.ones(len(rows))], axis=1)


def _of_classes(rows: Floats, classes: Floats) -> Floats:
    """Whether each class is rightly predicted, predicted, true, side by side: ``[rows, 3 x classes]``."""
    said, true = (rows[:, [i]] == classes for i in (0, 1))
    return np.hstack([said & true, said, true]).astype(float)


def _label_counts(rows: Floats) -> Floats:
    right, wrong, missed, _ = rows.T
    return np.stack([right, right + wrong, right + missed], axis=1)


def _matthews(sums: Floats) -> Floats:
    right, said, true = np.split(sums, 3)
    total = said.sum(0)
    # two roots: their product of whole numbers would be more than a float holds exactly
    size = np.sqrt(total**2 - (said**2).sum(0)) * np.sqrt(total**2 - (true**2).sum(0))
    return _ratio(right.sum(0) * total - (said * true).sum(0), size)


def _macro_f1(sums: Floats) -> Floats:
    right, said, true = np.split(sums, 3)
    return np.asarray(_ratio(2 * right, said + true).sum(0) / (said + true > 0).sum(0))


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
