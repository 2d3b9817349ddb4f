"""Heads on an encoder for the kinds of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from farsearch.far.features import Batch, Features, Span, batch_of
from farsearch.runtime.task import Task

__all__ = ["Head", "head_for", "settings_of", "takes_first_token"]

_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "classification": "single_label_classification",
        "multi-label": "multi_label_classification",
        "regression": "regression",
    }
)
"""transformers' ``problem_type``; without it the first batch would determine the loss."""


@dataclass(frozen=True)
class Head:
    """A head, as far as memory and time depend on it.

    Attributes:
        kind: kind of the task, one of ``runtime.task.KINDS``.
        outputs: number of outputs for each text or token.
        segments: its inputs are pairs with segment ids.
    """

    kind: str = "classification"
    outputs: int = 2
    segments: bool = False

    def batch(self, rows: int, length: int) -> Batch:
        """Return a batch of rows of equal length, with the shapes and types of a real one."""
        return batch_of(self.features([[0] * length] * rows), 0)

    def features(self, input_ids: list[list[int]]) -> Features:
        """Return rows of token ids with targets of the head's form."""
        targets = [_TARGETS[self.kind](self.outputs, i, len(row)) for i, row in enumerate(input_ids)]
        return Features(input_ids, targets, [[0] * len(row) for row in input_ids] if self.segments else None)


def head_for(task: Task, config: Any) -> Head:
    """Return the head of a task on a model with this transformers configuration."""
    outputs = {"regression": 1, "question-answering": 2}.get(task.kind, len(task.labels))
    # an encoder with one segment type takes no segment ids
    segmented = int(getattr(config, "type_vocab_size", None) or 0) > 1
    return Head(task.kind, outputs, segmented and len(task.texts) > 1)


def takes_first_token(head: Head, config: Any) -> bool:
    """Return whether a head on a model with this transformers configuration takes only the first token of each row."""
    # of the families ModernBERT alone may take the mean of all tokens instead
    of_rows = head.kind in ("classification", "multi-label", "regression")
    return of_rows and getattr(config, "classifier_pooling", "cls") == "cls"


_TARGETS: Mapping[str, Any] = MappingProxyType(
    {
        "classification": lambda outputs, row, _: row % outputs,
        "multi-label": lambda outputs, row, _: tuple(float(label == row % outputs) for label in range(outputs)),
        "regression": lambda _, row, __: float(row % 2),
        "token-classification": lambda outputs, row, length: tuple((row + token) % outputs for token in range(length)),
        "question-answering": lambda _, row, length: Span(row % length, length - 1),
    }
)


def settings_of(head: Head) -> dict[str, Any]:
    """Return the settings of a head in transformers' configuration: its outputs, and its loss."""
    if head.kind == "question-answering":
        return {}
    problem = _PROBLEMS.get(head.kind)
    return {"num_labels": head.outputs, **({} if problem is None else {"problem_type": problem})}
