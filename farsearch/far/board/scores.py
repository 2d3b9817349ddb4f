"""The tasks' metrics, in plain Python: a board need not have more.

A metric is computed from what each row contributes, its evidence, which is small, is kept with a trial and says how
sure the metric is. Where a metric is not defined it is 0, as scikit-learn has it with ``zero_division=0`` and seqeval
by default: F1 and its like where nothing is predicted and nothing true, a correlation where a side is constant.
"""

import math
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from .entities import count_entities
from .spans import match_answers

__all__ = ["METRICS", "OF_ONE_CLASS", "MetricRule", "Score", "as_class_one", "evidence", "score"]

Evidence = Sequence[Sequence[float]]


class MetricRule(NamedTuple):
    """What a metric is: the kinds of task that it is for, its parts in order, and which part is its value.

    ``value`` names a part, or is ``mean``: of all parts.
    """

    kinds: Tuple[str, ...]
    parts: Tuple[str, ...]
    value: str

    def value_of(self, parts: Dict[str, float]) -> float:
        """The metric's value where its parts have these values."""
        if self.value == "mean":
            return math.fsum(parts[name] for name in self.parts) / len(self.parts)
        return parts[self.value]


class Score(NamedTuple):
    """A metric's value, and the values of its parts by name."""

    value: float
    parts: Dict[str, float]


_CLASSES, _NUMBERS = ("classification",), ("regression",)

METRICS: Dict[str, MetricRule] = {
    "accuracy": MetricRule(_CLASSES, ("accuracy",), "accuracy"),
    "matthews_correlation": MetricRule(_CLASSES, ("matthews_correlation",), "matthews_correlation"),
    "f1": MetricRule(_CLASSES, ("f1",), "f1"),
    "macro_f1": MetricRule(_CLASSES, ("macro_f1",), "macro_f1"),
    "accuracy_f1": MetricRule(_CLASSES, ("accuracy", "f1"), "mean"),
    "pearson": MetricRule(_NUMBERS, ("pearson",), "pearson"),
    "spearman": MetricRule(_NUMBERS, ("spearman",), "spearman"),
    "pearson_spearman": MetricRule(_NUMBERS, ("pearson", "spearman"), "mean"),
    "micro_f1": MetricRule(("multi-label",), ("precision", "recall", "f1", "exact_match"), "f1"),
    "squad": MetricRule(("question-answering",), ("exact_match", "f1"), "f1"),
    "entity_f1": MetricRule(("token-classification",), ("precision", "recall", "f1"), "f1"),
}
"""The metrics by name. ``f1`` is that of the positive class, ``macro_f1`` the mean over the classes that are predicted
or true, ``matthews_correlation`` that of any number of classes."""

OF_ONE_CLASS = ("f1", "accuracy_f1")
"""Metrics of one class, the positive one, against the others."""


def evidence(
    metric: str, predictions: Sequence[Any], answers: Sequence[Any], labels: Sequence[str] = (), positive: int = 1
) -> List[Tuple[float, ...]]:
    """What each row contributes to a metric, in the order of the rows.

    - classes and numbers: prediction, answer; for a metric of one class the positive one is 1
    - multi-label: labels that are rightly predicted, wrongly predicted, missed; 1 where the row is wholly right
    - question answering: exact match, F1
    - token classification: entities that are right, predicted, true

    Args:
        predictions: of each row a class id, label ids, a number, a tag id for each word, or a text, "" for no answer.
        answers: as in ``Rows``.
        labels: names of the tags, for ``entity_f1``.
        positive: id of the class that a metric of one class is of.

    Raises:
        KeyError: for an unknown metric.
        ValueError: where the lengths differ.
    """
    (kind,) = METRICS[metric].kinds
    if len(predictions) != len(answers):
        raise ValueError("{} predictions for {} answers".format(len(predictions), len(answers)))
    predictions, answers = (as_class_one(metric, side, positive) for side in (predictions, answers))
    rows = zip(predictions, answers)
    if kind == "multi-label":
        return [_label_counts(set(said), set(true)) for said, true in rows]
    if kind == "question-answering":
        return [match_answers(said, [text for text, _ in true]) for said, true in rows]
    if kind == "token-classification":
        return [count_entities([labels[i] for i in said], [labels[i] for i in true]) for said, true in rows]
    return [(float(said), float(true)) for said, true in rows]


def as_class_one(metric: str, side: Sequence[Any], positive: int) -> Sequence[Any]:
    """Predictions or answers in which the positive class is class 1, where the metric is of one class.

    Class 1 takes its place, so that metrics of all classes stay the same.
    """
    if metric not in OF_ONE_CLASS or positive == 1:
        return side
    other = {positive: 1, 1: positive}
    return [other.get(one, one) for one in side]


def _label_counts(said: Any, true: Any) -> Tuple[float, ...]:
    return float(len(said & true)), float(len(said - true)), float(len(true - said)), float(said == true)


def score(metric: str, evidence: Evidence) -> Score:
    """A metric, from what its rows contribute.

    Raises:
        KeyError: for an unknown metric.
        ValueError: where there are no rows.
    """
    rule = METRICS[metric]
    if not len(evidence):
        raise ValueError("there are no rows to score")
    parts = dict(zip(rule.parts, _MEASURES[metric](evidence)))
    return Score(rule.value_of(parts), parts)


def _ratio(part: float, whole: float) -> float:
    return part / float(whole) if whole else 0.0


def _accuracy(rows: Evidence) -> float:
    return sum(said == true for said, true in rows) / float(len(rows))


def _class_counts(rows: Evidence) -> Dict[float, List[int]]:
    """Of each class that is predicted or true: how often it is both, predicted, true."""
    counts: Dict[float, List[int]] = {}
    for said, true in rows:
        counts.setdefault(said, [0, 0, 0])[1] += 1
        counts.setdefault(true, [0, 0, 0])[2] += 1
        counts[said][0] += said == true
    return counts


def _matthews(rows: Evidence) -> float:
    """Correlation of the classes' indicators (Gorodkin, Computational Biology and Chemistry 28 (2004), 367-374)."""
    counts, total = _class_counts(rows).values(), len(rows)
    right = sum(both for both, _, _ in counts)
    said = total * total - sum(count * count for _, count, _ in counts)
    true = total * total - sum(count * count for _, _, count in counts)
    return _ratio(right * total - sum(said * true for _, said, true in counts), math.sqrt(said) * math.sqrt(true))


def _f1(rows: Evidence) -> float:
    both, said, true = _class_counts(rows).get(1.0, (0, 0, 0))
    return _ratio(2 * both, said + true)


def _macro_f1(rows: Evidence) -> float:
    counts = _class_counts(rows).values()
    return math.fsum(_ratio(2 * both, said + true) for both, said, true in counts) / len(counts)


def _pearson(rows: Evidence) -> float:
    return _correlation([said for said, _ in rows], [true for _, true in rows])


def _spearman(rows: Evidence) -> float:
    """Pearson's correlation of the ranks; equal values have the mean of their ranks."""
    sides = [said for said, _ in rows], [true for _, true in rows]
    if not all(math.isfinite(value) for side in sides for value in side):
        return 0.0
    return _correlation(_ranks(sides[0]), _ranks(sides[1]))


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where a side is constant or holds what is no finite number."""
    first, second = _centred(first), _centred(second)
    size = math.sqrt(math.fsum(a * a for a in first)) * math.sqrt(math.fsum(b * b for b in second))
    return max(-1.0, min(1.0, _ratio(math.fsum(a * b for a, b in zip(first, second)), size)))


def _centred(values: Sequence[float]) -> List[float]:
    """The values less their mean, in a unit in which neither they nor their squares leave a float's range."""
    largest = max(map(abs, values))
    if not all(map(math.isfinite, values)) or largest == 0:
        return [0.0] * len(values)
    # less the first one, all of a constant side are exactly 0
    shifted = [value / largest - values[0] / largest for value in values]
    mean = math.fsum(shifted) / len(shifted)
    return [value - mean for value in shifted]


def _ranks(values: Sequence[float]) -> List[float]:
    """Ranks from 1 on; equal values have the mean of theirs."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for i in order[start:end]:
            ranks[i] = (start + 1 + end) / 2.0
        start = end
    return ranks


def _sums(rows: Evidence) -> List[float]:
    return [math.fsum(column) for column in zip(*rows)]


def _micro(rows: Evidence) -> Tuple[float, ...]:
    right, wrong, missed, exact = _sums(rows)
    f1 = _ratio(2 * right, 2 * right + wrong + missed)
    return _ratio(right, right + wrong), _ratio(right, right + missed), f1, exact / len(rows)


def _means(rows: Evidence) -> Tuple[float, ...]:
    return tuple(total / len(rows) for total in _sums(rows))


def _entity(rows: Evidence) -> Tuple[float, ...]:
    right, said, true = _sums(rows)
    return _ratio(right, said), _ratio(right, true), _ratio(2 * right, said + true)


_MEASURES: Dict[str, Callable[[Evidence], Tuple[float, ...]]] = {
    "accuracy": lambda rows: (_accuracy(rows),),
    "matthews_correlation": lambda rows: (_matthews(rows),),
    "f1": lambda rows: (_f1(rows),),
    "macro_f1": lambda rows: (_macro_f1(rows),),
    "accuracy_f1": lambda rows: (_accuracy(rows), _f1(rows)),
    "pearson": lambda rows: (_pearson(rows),),
    "spearman": lambda rows: (_spearman(rows),),
    "pearson_spearman": lambda rows: (_pearson(rows), _spearman(rows)),
    "micro_f1": _micro,
    "squad": _means,
    "entity_f1": _entity,
}
"""A metric's parts, in the order of its rule, from the evidence."""
