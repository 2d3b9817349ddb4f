"""The tasks' metrics with standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farsearch.errors import BadInput
from farsearch.runtime import scores
from farsearch.tasks.standard_errors import metric_error
from farsearch.tasks.weighted import Floats

__all__ = ["MetricValue", "score"]


@dataclass(frozen=True)
class MetricValue:
    """A metric on a sample of rows, and its standard error from the sampling of rows.

    Attributes:
        parts: values of its parts by name, as F1 and exact match; a plain metric is its own part.
        evidence: evidence of the rows, ``[rows, k]``, see ``runtime.scores.evidence``.
    """

    value: float
    error: float
    parts: Mapping[str, float]
    evidence: Floats = field(repr=False, compare=False)


def score(
    metric: str, predictions: Sequence[Any], answers: Sequence[Any], labels: Sequence[str] = (), positive: int = 1
) -> MetricValue:
    """Return value and standard error of a metric.

    Args:
        predictions: for each row a class id, label ids, a number, a tag id per word, or a text, "" for no answer.
        answers: true answers, as in ``Examples``.
        labels: names of the tags, for ``entity_f1``.
        positive: id of the positive class, for metrics of one class.

    Raises:
        BadInput: for an unknown metric, no rows, or lengths that differ.
    """
    from farsearch.tasks.evaluate_metrics import get_metric  # evaluate takes seconds to import

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
        predictions=[_for_evaluate(kind, prediction, labels) for prediction in predictions],
        references=[[text for text, _ in answer] if kind == "question-answering" else
                    _for_evaluate(kind, answer, labels) for answer in answers],
    )  # fmt: skip
    return MetricValue(rule.value_of(parts), metric_error(metric, evidence), parts, evidence)


def _for_evaluate(kind: str, value: Any, labels: Sequence[str]) -> Any:
    """A prediction or an answer in the form of the ``evaluate.Metric``."""
    if kind == "token-classification":
        return [labels[i] for i in value]
    return sorted(set(value)) if kind == "multi-label" else value
