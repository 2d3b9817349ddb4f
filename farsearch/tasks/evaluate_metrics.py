"""The tasks' metrics as ``evaluate.Metric``; only this module imports evaluate.

An undefined metric is 0: an F1 without predictions and answers (scikit-learn's ``zero_division=0``), a correlation with
a side that is constant or not finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, recall_score

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.runtime import scores
from farsearch.runtime.entities import count_entities
from farsearch.runtime.spans import match_answers

__all__ = [
    "F1",
    "Accuracy",
    "AccuracyF1",
    "EntityF1",
    "MacroF1",
    "MatthewsCorrelation",
    "MicroF1",
    "Pearson",
    "PearsonSpearman",
    "Spearman",
    "Squad",
    "get_metric",
]

Parts = dict[str, float]

_ID, _NUMBER, _TEXT = (datasets.Value(kind) for kind in ("int64", "float64", "string"))


class _InMemory(evaluate.Metric):  # type: ignore[misc]
    """Base of all metrics, without files: evaluate creates a cache folder even for metrics in memory.

    Attributes:
        takes: types of a prediction and of a reference, and their name.
        cites: source of the metric.
    """

    takes: ClassVar[tuple[Any, Any, str]] = (_ID, _ID, "class id")
    cites: ClassVar[str] = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(keep_in_memory=True, **options)

    def _build_data_dir(self) -> str:
        return ""

    def _info(self) -> evaluate.MetricInfo:
        prediction, reference, called = self.takes
        return evaluate.MetricInfo(
            description=str(self.__doc__),
            citation=self.cites,
            inputs_description=f"Args:\n    predictions: for each row the {called} of a model.\n"
            "    references: the true ones.\n",
            features=datasets.Features({"predictions": prediction, "references": reference}),
        )


class Accuracy(_InMemory):
    """Share of correct predictions: ``compute(predictions=…, references=…)`` gives ``{"accuracy": 0 to 1}``."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> Parts:
        return {"accuracy": _accuracy(predictions, references)}


class MatthewsCorrelation(_InMemory):
    """Correlation of predicted and true classes: ``compute`` gives ``{"matthews_correlation": -1 to 1}``.

    For two or more classes; 0 if the predictions or the references are all of one class.
    """

    cites = (
        "Matthews, Biochimica et Biophysica Acta 405 (1975), 442-451; of several classes "
        "Gorodkin, Computational Biology and Chemistry 28 (2004), 367-374"
    )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> Parts:
        # scikit-learn returns 0 too, but warns if both are the same class
        if len(set(predictions)) < 2 or len(set(references)) < 2:
            return {"matthews_correlation": 0.0}
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


class F1(_InMemory):
    """F1 of class 1: ``compute`` gives ``{"f1": 0 to 1}``."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> Parts:
        return {"f1": _f1(predictions, references)}


class MacroF1(_InMemory):
    """Mean F1 over the classes that are predicted or true: ``compute`` gives ``{"macro_f1": 0 to 1}``."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> Parts:
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


class AccuracyF1(_InMemory):
    """Accuracy and F1 of class 1, as in GLUE for MRPC and QQP: ``compute`` gives both."""

    cites = "Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, 2019"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> Parts:
        return {"accuracy": _accuracy(predictions, references), "f1": _f1(predictions, references)}


def _accuracy(predictions: Sequence[int], references: Sequence[int]) -> float:
    return float(accuracy_score(references, predictions))


def _f1(predictions: Sequence[int], references: Sequence[int]) -> float:
    (value,) = f1_score(references, predictions, labels=[1], average=None, zero_division=0)
    return float(value)


class _OfNumbers(_InMemory):
    """Base of the metrics of numbers."""

    takes = (_NUMBER, _NUMBER, "number")


class Pearson(_OfNumbers):
    """Pearson's correlation: ``compute`` gives ``{"pearson": -1 to 1}``."""

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> Parts:
        return {"pearson": _correlation(stats.pearsonr, predictions, references)}


class Spearman(_OfNumbers):
    """Spearman's correlation, with mean ranks of equal values: ``compute`` gives ``{"spearman": -1 to 1}``."""

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> Parts:
        return {"spearman": _correlation(stats.spearmanr, predictions, references)}


class PearsonSpearman(_OfNumbers):
    """Pearson's and Spearman's correlation, as in GLUE for STS-B: ``compute`` gives both."""

    cites = AccuracyF1.cites

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> Parts:
        of = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}
        return {name: _correlation(function, predictions, references) for name, function in of.items()}


def _correlation(of: Callable[..., Any], predictions: Sequence[float], references: Sequence[float]) -> float:
    sides = np.asarray(predictions, dtype=float), np.asarray(references, dtype=float)
    if not all(np.isfinite(side).all() and (side != side[0]).any() for side in sides):
        return 0.0
    with warnings.catch_warnings():
        # nearly constant sides have a correlation too
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(of(*sides).statistic)


class MicroF1(_InMemory):
    """F1 over all labels of all rows: ``compute`` gives it with precision, recall and ``exact_match``.

    The last is the share of rows whose labels are all correct.
    """

    takes = (datasets.Sequence(_ID), datasets.Sequence(_ID), "label ids")

    def _compute(self, predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> Parts:
        # at least two columns: scikit-learn reads a single one as classes
        labels = max((label for row in (*predictions, *references) for label in row), default=0) + 2
        predicted, true = (_indicators(side, labels) for side in (predictions, references))
        micro = {"average": "micro", "zero_division": 0}
        return {
            "precision": float(precision_score(true, predicted, **micro)),
            "recall": float(recall_score(true, predicted, **micro)),
            "f1": float(f1_score(true, predicted, **micro)),
            "exact_match": float(accuracy_score(true, predicted)),
        }


def _indicators(side: Sequence[Sequence[int]], labels: int) -> NDArray[np.bool_]:
    """Whether each row has each label, ``[rows, labels]``."""
    indicators = np.zeros((len(side), labels), dtype=bool)
    for i, row in enumerate(side):
        indicators[i, list(row)] = True
    return indicators


class Squad(_InMemory):
    """Exact match and F1 over words, as in SQuAD: ``compute`` gives ``{"exact_match": 0 to 1, "f1": 0 to 1}``.

    A prediction is a text, "" for no answer; a reference is a list of true texts, empty for no answer.
    """

    takes = (_TEXT, datasets.Sequence(_TEXT), "text")
    cites = "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016"

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Parts:
        return _parts("squad", map(match_answers, predictions, references))


class EntityF1(_InMemory):
    """F1 over the entities of tag sequences, as in seqeval: ``compute`` gives it with precision and recall.

    A prediction and a reference are the names of the tags of a row's words.
    """

    takes = (datasets.Sequence(_TEXT), datasets.Sequence(_TEXT), "tags")
    cites = "Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003"

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Parts:
        return _parts("entity_f1", map(count_entities, predictions, references))


def _parts(metric: str, rows: Iterable[tuple[float, ...]]) -> Parts:
    return scores.score(metric, list(rows)).parts


_METRICS: dict[str, type[_InMemory]] = {
    "accuracy": Accuracy,
    "matthews_correlation": MatthewsCorrelation,
    "f1": F1,
    "macro_f1": MacroF1,
    "accuracy_f1": AccuracyF1,
    "pearson": Pearson,
    "spearman": Spearman,
    "pearson_spearman": PearsonSpearman,
    "micro_f1": MicroF1,
    "squad": Squad,
    "entity_f1": EntityF1,
}


@cache
def get_metric(name: str) -> Any:
    """Return the ``evaluate.Metric`` of a name.

    Raises:
        BadInput: for an unknown name.
    """
    if name not in _METRICS:
        raise BadInput(f"the metric {shown(name)} is unknown; it must be one of {', '.join(_METRICS)}")
    return _METRICS[name]()
