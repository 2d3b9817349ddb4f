"""The tasks' metrics as ``evaluate.Metric``, and their standard errors. The only home of evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, matthews_corrcoef

from farsearch.errors import BadInput
from farsearch.tasks.noise import metric_error, phi
from farsearch.tasks.spec import MetricName

__all__ = ["Accuracy", "MatthewsCorrelation", "MetricValue", "get_metric", "paired_difference", "score"]

_INPUTS = """
Args:
    predictions: class ids that a model gave.
    references: the true class ids.
"""


@dataclass(frozen=True)
class MetricValue:
    """A metric on a sample of rows, and the standard error that it has from the draw of that sample."""

    value: float
    error: float


class _InMemory(evaluate.Metric):  # type: ignore[misc]
    """What both metrics share: class ids in, nothing on the disk.

    evaluate makes a cache folder in the home folder even where it keeps everything in memory; this has none.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(keep_in_memory=True, **options)

    def _build_data_dir(self) -> str:
        return ""


def _info(description: str, citation: str) -> evaluate.MetricInfo:
    ids = datasets.Value("int64")
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=_INPUTS,
        features=datasets.Features({"predictions": ids, "references": ids}),
    )


class Accuracy(_InMemory):
    """Share of right predictions: ``compute(predictions=…, references=…)`` gives ``{"accuracy": 0 to 1}``."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Share of right predictions.", "")

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MatthewsCorrelation(_InMemory):
    """Correlation of predictions and truth of two classes: ``compute`` gives ``{"matthews_correlation": -1 to 1}``.

    0 where the predictions or the truth are all of one class.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "Matthews correlation coefficient.",
            "Matthews, Biochimica et Biophysica Acta 405 (1975), 442-451",
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        # scikit-learn gives 0 here too, with a warning where both are the same single class.
        if len(set(predictions)) < 2 or len(set(references)) < 2:
            return {"matthews_correlation": 0.0}
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


_METRICS: dict[MetricName, type[_InMemory]] = {"accuracy": Accuracy, "matthews_correlation": MatthewsCorrelation}


@cache
def get_metric(name: MetricName) -> Any:
    """The metric of that name, an ``evaluate.Metric``.

    Raises:
        BadInput: for an unknown name.
    """
    if name not in _METRICS:
        raise BadInput(f"the metric {name!r} is unknown; it must be one of {', '.join(_METRICS)}")
    return _METRICS[name]()


_DRAWS = 2000
"""Of a bootstrap: the ends of its interval are then off by a twentieth of its width at most."""


def score(name: MetricName, predictions: Sequence[int], labels: Sequence[int]) -> MetricValue:
    """Value and standard error of a metric.

    Args:
        predictions: class ids; of ``matthews_correlation`` 0 and 1.
        labels: the true class ids, as many.

    Raises:
        BadInput: for an unknown metric, no rows, or lengths that differ.
    """
    if not labels or len(predictions) != len(labels):
        raise BadInput(
            f"{len(predictions)} predictions for {len(labels)} labels can't be scored; give one for each of at least 1"
        )
    value = float(get_metric(name).compute(predictions=predictions, references=labels)[name])
    return MetricValue(value, metric_error(name, predictions, labels))


def paired_difference(
    name: MetricName, predictions: Sequence[int], others: Sequence[int], labels: Sequence[int]
) -> tuple[float, float, float]:
    """By how much the metric of ``predictions`` is above that of ``others``, on the same rows, and its 95 % interval.

    The interval is the bootstrap's, by percentiles, over rows (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13): both predictions of a row stay together, so what is hard for both does not blur the difference.

    Raises:
        BadInput: as ``score``.
    """
    difference = score(name, predictions, labels).value - score(name, others, labels).value
    # rows with the same two predictions and the same label are alike: only their counts are drawn
    rows = np.stack([np.asarray(predictions), np.asarray(others), np.asarray(labels)], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(labels), counts / len(labels), size=_DRAWS)
    first, second = (_resampled(name, draws, cells[:, i], cells[:, 2]) for i in (0, 1))
    low, high = np.percentile(first - second, [2.5, 97.5])
    return difference, float(low), float(high)


def _resampled(
    name: MetricName, draws: NDArray[np.int64], predictions: NDArray[np.int64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The metric of each draw ``[draws, cells]`` of counts of cells with one prediction and label each."""
    if name == "accuracy":
        return np.asarray(draws @ (predictions == labels) / draws.sum(1), dtype=np.float64)
    tables = np.zeros((len(draws), 2, 2))
    for cell in range(draws.shape[1]):
        tables[:, labels[cell], predictions[cell]] += draws[:, cell]
    return phi(tables)
