"""The metric of the best constant answer, the baseline of any metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from farsearch.json_records import Record
from farsearch.runtime.scores import OF_ONE_CLASS, evidence, score
from farsearch.runtime.task import Task

__all__ = ["Constant", "constant_answer"]


@dataclass(frozen=True)
class Constant(Record):
    """A constant answer.

    Attributes:
        answer: a class, labels, ``O``, ``the mean``, or ``no answer``.
        value: its metric.
    """

    answer: str
    value: float


def constant_answer(task: Task, answers: Sequence[Any]) -> Constant:
    """Return the constant answer with the highest metric on rows with these answers, at least one.

    Classification: the best class, the positive one included for metrics of one class. Multi-label: the k commonest
    labels, for the best k. Regression: the mean, whose correlation is undefined and so 0. Token classification: ``O``
    for each word. Question answering: no answer.

    Args:
        answers: true answers of the rows, as in ``Examples``.
    """
    scored = [
        (score(task.metric, evidence(task.metric, predictions, answers, task.labels, task.positive_id)).value, name)
        for name, predictions in _candidates(task, answers)
    ]
    value, name = max(scored, key=lambda item: item[0])
    return Constant(name, value)


def _candidates(task: Task, answers: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Names of constant answers, and their predictions."""
    if task.kind == "question-answering":
        return [("no answer", [""] * len(answers))]
    if task.kind == "regression":
        return [("the mean", [fmean(answers)] * len(answers))]
    if task.kind == "token-classification":
        outside = task.labels.index("O") if "O" in task.labels else 0
        return [(task.labels[outside], [(outside,) * len(tags) for tags in answers])]
    if task.kind == "multi-label":
        best = _best_labels(answers)
        return [(", ".join(task.labels[i] for i in best) or "no label", [best] * len(answers))]
    classes = {*answers, task.positive_id} if task.metric in OF_ONE_CLASS else set(answers)
    return [(task.labels[i], [i] * len(answers)) for i in sorted(classes)]


def _best_labels(answers: Sequence[Any]) -> tuple[int, ...]:
    """The labels with the highest micro F1 as a constant answer: the k commonest, for the best k."""
    counts = Counter(label for labels in answers for label in labels).most_common()
    true = sum(count for _, count in counts)
    correct = accumulate(count for _, count in counts)
    f1 = [0.0, *(2 * total / (k * len(answers) + true) for k, total in enumerate(correct, 1))]
    best = f1.index(max(f1))
    return tuple(sorted(label for label, _ in counts[:best]))
