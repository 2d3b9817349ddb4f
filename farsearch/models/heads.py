"""What stands on an encoder for a kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from farsearch.far.features import Batch, Features, Span, batch_of
from farsearch.runtime.task import Task

__all__ = ["Head", "head_for", "settings_of"]

_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "classification": "single_label_classification",
        "multi-label": "multi_label_classification",
        "regression": "regression",
    }
)
"""transformers' words for what the head of a whole text learns: without them its first batch would decide."""


@dataclass(frozen=True)
class Head:
    """What a model says of a text, as far as memory and time depend on it.

    Attributes:
        kind: of the task, one of ``runtime.task.KINDS``.
        outputs: numbers that it gives for each text or token.
        segments: it is fed with pairs and told which text a token is of.
    """

    kind: str = "classification"
    outputs: int = 2
    segments: bool = False

    def batch(self, rows: int, length: int) -> Batch:
        """A batch of rows of equal length, of the shapes and types of a real one."""
        return batch_of(self.features([[0] * length] * rows), 0)

    def features(self, input_ids: list[list[int]]) -> Features:
        """Rows of token ids with some target of the form that the head learns."""
        targets = [_TARGETS[self.kind](self.outputs, i, len(row)) for i, row in enumerate(input_ids)]
        return Features(input_ids, targets, [[0] * len(row) for row in input_ids] if self.segments else None)


def head_for(task: Task, config: Any) -> Head:
    """The head of a task on a model with this transformers configuration."""
    outputs = {"regression": 1, "question-answering": 2}.get(task.kind, len(task.labels))
    # an encoder that knows one kind of text only is told nothing
    told = int(getattr(config, "type_vocab_size", None) or 0) > 1
    return Head(task.kind, outputs, told and len(task.texts) > 1)


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
    """What transformers' configuration says of a head: its outputs, and how its loss is made."""
    if head.kind == "question-answering":
        return {}
    problem = _PROBLEMS.get(head.kind)
    return {"num_labels": head.outputs, **({} if problem is None else {"problem_type": problem})}
