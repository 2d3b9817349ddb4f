"""The tasks' metrics as ``evaluate.Metric``; only this module imports evaluate.

They are computed by ``runtime.scores``, as on a board, so that both have the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import datasets
import evaluate

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.runtime import scores
from farsearch.runtime.entities import count_entities
from farsearch.runtime.spans import match_answers

__all__ = ["TaskMetric", "get_metric"]

_ID, _NUMBER, _TEXT = (datasets.Value(kind) for kind in ("int64", "float64", "string"))

_TYPES: dict[str, tuple[Any, Any]] = {
    "classification": (_ID, _ID),
    "regression": (_NUMBER, _NUMBER),
    "multi-label": (datasets.Sequence(_ID), datasets.Sequence(_ID)),
    "question-answering": (_TEXT, datasets.Sequence(_TEXT)),
    "token-classification": (datasets.Sequence(_TEXT), datasets.Sequence(_TEXT)),
}
"""Types of a prediction and of a reference by the kind of task."""

_GLUE = "Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, 2019"
_CITATIONS = {
    "matthews_correlation": "Matthews, Biochimica et Biophysica Acta 405 (1975), 442-451; of several classes "
    "Gorodkin, Computational Biology and Chemistry 28 (2004), 367-374",
    "accuracy_f1": _GLUE,
    "pearson_spearman": _GLUE,
    "squad": "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016",
    "entity_f1": "Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003",
}


class TaskMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of ``runtime.scores.METRICS``; ``compute(predictions=…, references=…)`` gives its parts by name.

    A prediction is a class id, a number, label ids, a text ("" for no answer) or the names of a row's tags; a reference
    is the same, for questions a list of texts. It needs no files: evaluate creates a cache folder even for metrics in
    memory.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""

    def _info(self) -> evaluate.MetricInfo:
        (kind,) = scores.METRICS[self._metric].kinds
        prediction, reference = _TYPES[kind]
        return evaluate.MetricInfo(
            description=f"{self._metric} of {kind}",
            citation=_CITATIONS.get(self._metric, ""),
            inputs_description=str(self.__doc__),
            features=datasets.Features({"predictions": prediction, "references": reference}),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        by_text = {"squad": match_answers, "entity_f1": count_entities}.get(self._metric)
        if by_text is None:
            rows = scores.evidence(self._metric, predictions, references)
        else:
            rows = list(map(by_text, predictions, references))
        return scores.score(self._metric, rows).parts


@cache
def get_metric(name: str) -> TaskMetric:
    """Return the metric of a name.

    Raises:
        BadInput: for an unknown name.
    """
    if name not in scores.METRICS:
        raise BadInput(f"the metric {shown(name)} is unknown; it must be one of {', '.join(scores.METRICS)}")
    return TaskMetric(name)
