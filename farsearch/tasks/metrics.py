"""The tasks' metrics, computed with standard errors, and differences of two models' metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farsearch.errors import BadInput
from farsearch.runtime import scores
from farsearch.tasks.evaluate_metrics import get_metric
from farsearch.tasks.standard_errors import comparable, metric_error
from farsearch.tasks.weighted import Floats, distinct, values

__all__ = ["MetricValue", "paired_difference", "score"]


@dataclass(frozen=True)
class MetricValue:
    """A metric on a sample of rows, and the standard error that it has from the draw of that sample.

    Attributes:
        parts: what it is made from by name, as F1 and exact match; of a plain metric itself.
        evidence: what each row contributes, ``[rows, k]``, see ``runtime.scores.evidence``.
    """

    value: float
    error: float
    parts: Mapping[str, float]
    evidence: Floats = field(repr=False, compare=False)


def score(
    metric: str, predictions: Sequence[Any], answers: Sequence[Any], labels: Sequence[str] = (), positive: int = 1
) -> MetricValue:
    """Value and standard error of a metric.

    Args:
        predictions: of each row a class id, label ids, a number, a tag id for each word, or a text, "" for no answer.
        answers: what is true of each row, as ``Examples`` has it.
        labels: names of the tags, for ``entity_f1``.
        positive: id of the class that a metric of one class is of.

    Raises:
        BadInput: for an unknown metric, no rows, or lengths that differ.
    """
    computed = get_metric(metric)
    if not len(answers) or len(predictions) != len(answers):
        raise BadInput(
            f"{len(predictions)} predictions for {len(answers)} labels can't be scored; give one for each of at least 1"
        )
    evidence = np.array(scores.evidence(metric, predictions, answers, labels, positive), dtype=np.float64)
    predictions, answers = (scores.as_class_one(metric, side, positive) for side in (predictions, answers))
    rule = scores.METRICS[metric]
    (kind,) = rule.kinds
    parts = computed.compute(
        predictions=[_said(kind, one, labels) for one in predictions],
        references=[[text for text, _ in one] if kind == "question-answering" else _said(kind, one, labels)
                    for one in answers],
    )  # fmt: skip
    return MetricValue(rule.value_of(parts), metric_error(metric, evidence), parts, evidence)


def _said(kind: str, one: Any, labels: Sequence[str]) -> Any:
    """A prediction or an answer as the ``evaluate.Metric`` takes it."""
    if kind == "token-classification":
        return [labels[i] for i in one]
    return sorted(set(one)) if kind == "multi-label" else one


_DRAWS = 2000
"""Of a bootstrap: the ends of its interval are then off by a twentieth of its width at most."""
_ENTRIES = 2**21
"""Of the largest arrays ``[draws, rows]`` of a bootstrap: 16 MiB each."""


def paired_difference(metric: str, evidence: Floats, others: Floats) -> tuple[float, float, float]:
    """By how much a model's metric is above another's on the same rows, and the 95 % interval of that.

    The interval is the bootstrap's, by percentiles, over rows (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13): both predictions of a row stay together, so what is hard for both does not blur the difference.

    Args:
        evidence, others: of each row and model, ``[rows, k]``, as ``MetricValue`` has it.

    Raises:
        BadInput: for no rows, or evidence of other rows.
    """
    if not len(evidence) or not comparable(metric, evidence, others):
        raise BadInput(
            f"evidence of {len(evidence)} and {len(others)} rows can't be paired; give that of the same rows, 1 or more"
        )
    # rows with the same two predictions and the same answer are alike: only their counts are drawn
    cells, counts = distinct(np.hstack([evidence, others]))
    first, second = np.hsplit(cells, 2)

    def differences(weights: Floats) -> Floats:
        return values(metric, first, weights) - values(metric, second, weights)

    generator, found = np.random.default_rng(0), []
    at_once = max(_ENTRIES // len(cells), 1)
    for start in range(0, _DRAWS, at_once):
        draws = min(at_once, _DRAWS - start)
        weights = generator.multinomial(len(evidence), counts / len(evidence), size=draws).astype(float)
        found.append(differences(weights))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return float(differences(counts[None])[0]), float(low), float(high)
