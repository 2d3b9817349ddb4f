"""The tasks' metrics, in plain Python.

A metric is computed from the rows' evidence, a few numbers per row, which is stored with a trial and from which
standard errors are computed. An undefined metric is 0, as in scikit-learn with ``zero_division=0`` and in seqeval: an
F1 of a class that is neither predicted nor true, a correlation with a constant side.
"""

import math
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from .entities import count_entities
from .spans import match_answers

__all__ = ["METRICS", "OF_ONE_CLASS", "MetricRule", "Score", "as_class_one", "evidence", "score"]

Evidence = Sequence[Sequence[float]]


class MetricRule(NamedTuple):
    """A metric: the kinds of task that it applies to, its parts in order, and the part that is its value.

    ``value`` is the name of a part, or ``mean`` for the mean of all parts.
    """

    kinds: Tuple[str, ...]
    parts: Tuple[str, ...]
    value: str

    def value_of(self, parts: Dict[str, float]) -> float:
        """Return the metric's value, given the values of its parts."""
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
"""The metrics by name. ``f1`` is that of the positive class, ``macro_f1`` the mean over all classes that are predicted
or true; ``matthews_correlation`` is for any number of classes."""

OF_ONE_CLASS = ("f1", "accuracy_f1")
"""Metrics of one class, the positive one, against all others."""


def evidence(
    metric: str, predictions: Sequence[Any], answers: Sequence[Any], labels: Sequence[str] = (), positive: int = 1
) -> List[Tuple[float, ...]]:
    """Return the evidence of each row for a metric, ``[rows, k]``.

    - classification, regression: prediction, answer; for a metric of one class the positive class is 1
    - multi-label: numbers of true positive, false positive and false negative labels; 1 if all labels are correct, else
      0
    - question answering: exact match, F1
    - token classification: numbers of correct, predicted and true entities

    Args:
        predictions: for each row a class id, label ids, a number, a tag id per word, or a text, "" for no answer.
        answers: as in ``Rows``.
        labels: names of the tags, for ``entity_f1``.
        positive: id of the positive class, for metrics of one class.

    Raises:
        KeyError: for an unknown metric.
        ValueError: when the lengths differ.
    """
    (kind,) = METRICS[metric].kinds
    if len(predictions) != len(answers):
        raise ValueError("{} predictions for {} answers".format(len(predictions), len(answers)))
    predictions, answers = (as_class_one(metric, side, positive) for side in (predictions, answers))
    rows = zip(predictions, answers)
    if kind == "multi-label":
        return [_label_counts(set(predicted), set(true)) for predicted, true in rows]
    if kind == "question-answering":
        return [match_answers(predicted, [text for text, _ in true]) for predicted, true in rows]
    if kind == "token-classification":
        return [count_entities([labels[i] for i in tags], [labels[i] for i in true]) for tags, true in rows]
    return [(float(predicted), float(true)) for predicted, true in rows]


def as_class_one(metric: str, side: Sequence[Any], positive: int) -> Sequence[Any]:
    """Return predictions or answers with the ids 1 and ``positive`` exchanged, for a metric of one class.

    The values of metrics of all classes do not change by it.
    """
    if metric not in OF_ONE_CLASS or positive == 1:
        return side
    other = {positive: 1, 1: positive}
    return [other.get(label, label) for label in side]


def _label_counts(predicted: Any, true: Any) -> Tuple[float, ...]:
    return (
        float(len(predicted & true)),
        float(len(predicted - true)),
        float(len(true - predicted)),
        float(predicted == true),
    )


def score(metric: str, evidence: Evidence) -> Score:
    """Compute a metric from the evidence of its rows.

    Raises:
        KeyError: for an unknown metric.
        ValueError: without rows.
    """
    rule = METRICS[metric]
    if not len(evidence):
        raise ValueError("there are no rows to score")
    parts = dict(zip(rule.parts, _MEASURES[metric](evidence)))
    return Score(rule.value_of(parts), parts)


def _ratio(part: float, whole: float) -> float:
    return part / float(whole) if whole else 0.0


def _accuracy(rows: Evidence) -> float:
    return sum(predicted == true for predicted, true in rows) / float(len(rows))


def _class_counts(rows: Evidence) -> Dict[float, List[int]]:
    """For each class that is predicted or true: true positives, predictions, answers."""
    counts: Dict[float, List[int]] = {}
    for predicted, true in rows:
        counts.setdefault(predicted, [0, 0, 0])[1] += 1
        counts.setdefault(true, [0, 0, 0])[2] += 1
        counts[predicted][0] += predicted == true
    return counts


def _matthews(rows: Evidence) -> float:
    """Correlation of the classes' indicators (Gorodkin, Computational Biology and Chemistry 28 (2004), 367-374)."""
    counts, total = _class_counts(rows).values(), len(rows)
    correct = sum(both for both, _, _ in counts)
    predicted = total * total - sum(count * count for _, count, _ in counts)
    true = total * total - sum(count * count for _, _, count in counts)
    covariance = correct * total - sum(p * t for _, p, t in counts)
    return _ratio(covariance, math.sqrt(predicted * true))


def _f1(rows: Evidence) -> float:
    both, predicted, true = _class_counts(rows).get(1.0, (0, 0, 0))
    return _ratio(2 * both, predicted + true)


def _macro_f1(rows: Evidence) -> float:
    counts = _class_counts(rows).values()
    return math.fsum(_ratio(2 * both, predicted + true) for both, predicted, true in counts) / len(counts)


def _pearson(rows: Evidence) -> float:
    return _correlation([predicted for predicted, _ in rows], [true for _, true in rows])


def _spearman(rows: Evidence) -> float:
    """Pearson's correlation of the ranks, in which equal values have their mean rank."""
    sides = [predicted for predicted, _ in rows], [true for _, true in rows]
    if not all(math.isfinite(value) for side in sides for value in side):
        return 0.0
    return _correlation(_ranks(sides[0]), _ranks(sides[1]))


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 if a side is constant or not finite."""
    first, second = _centred(first), _centred(second)
    size = math.sqrt(math.fsum(a * a for a in first)) * math.sqrt(math.fsum(b * b for b in second))
    return max(-1.0, min(1.0, _ratio(math.fsum(a * b for a, b in zip(first, second)), size)))


def _centred(values: Sequence[float]) -> List[float]:
    """The values less their mean, scaled so that neither they nor their squares overflow."""
    largest = max(map(abs, values))
    if not all(map(math.isfinite, values)) or largest == 0:
        return [0.0] * len(values)
    # subtracting the first makes a constant side exactly 0
    shifted = [value / largest - values[0] / largest for value in values]
    mean = math.fsum(shifted) / len(shifted)
    return [value - mean for value in shifted]


def _ranks(values: Sequence[float]) -> List[float]:
    """Ranks from 1; equal values have their mean rank."""
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
    correct, wrong, missed, exact = _sums(rows)
    f1 = _ratio(2 * correct, 2 * correct + wrong + missed)
    return _ratio(correct, correct + wrong), _ratio(correct, correct + missed), f1, exact / len(rows)


def _means(rows: Evidence) -> Tuple[float, ...]:
    return tuple(total / len(rows) for total in _sums(rows))


def _entity(rows: Evidence) -> Tuple[float, ...]:
    correct, predicted, true = _sums(rows)
    return _ratio(correct, predicted), _ratio(correct, true), _ratio(2 * correct, predicted + true)


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
"""Functions from the evidence to a metric's parts, in the order of its rule."""
