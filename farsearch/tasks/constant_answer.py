"""What an answer that is the same for every row scores: a metric means little without it."""

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
        answer: in words: a class, labels, ``O``, ``the mean``, ``no answer``.
        value: the task's metric of it.
    """

    answer: str
    value: float


def constant_answer(task: Task, answers: Sequence[Any]) -> Constant:
    """Return the constant answer with the highest metric on rows with these answers, at least one.

    Classes: the one that scores best, among them the positive one where the metric is of one class. Several labels:
    the commonest ones, as many as score best. Numbers: their mean, whose correlation is not defined and so 0. Tags:
    ``O`` for each word. Questions: no answer.

    Args:
        answers: what is true of each row, as ``Examples`` has it.
    """
    scored = [
        (score(task.metric, evidence(task.metric, said, answers, task.labels, task.positive_id)).value, words)
        for words, said in _candidates(task, answers)
    ]
    value, words = max(scored, key=lambda each: each[0])
    return Constant(words, value)


def _candidates(task: Task, answers: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Constant answers in words, and as predictions."""
    if task.kind == "question-answering":
        return [("no answer", [""] * len(answers))]
    if task.kind == "regression":
        return [("the mean", [fmean(answers)] * len(answers))]
    if task.kind == "token-classification":
        outside = task.labels.index("O") if "O" in task.labels else 0
        return [(task.labels[outside], [(outside,) * len(tags) for tags in answers])]
    if task.kind == "multi-label":
        found = _best_labels(answers)
        return [(", ".join(task.labels[i] for i in found) or "no label", [found] * len(answers))]
    classes = {*answers, task.positive_id} if task.metric in OF_ONE_CLASS else set(answers)
    return [(task.labels[i], [i] * len(answers)) for i in sorted(classes)]


def _best_labels(answers: Sequence[Any]) -> tuple[int, ...]:
    """The labels with the highest micro F1 when every row is given them: the commonest k, of the best k."""
    counts = Counter(label for labels in answers for label in labels).most_common()
    true = sum(count for _, count in counts)
    right = accumulate(count for _, count in counts)
    f1 = [0.0, *(2 * each / (k * len(answers) + true) for k, each in enumerate(right, 1))]
    best = f1.index(max(f1))
    return tuple(sorted(label for label, _ in counts[:best]))
