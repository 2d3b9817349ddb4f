"""Whether the classes of a task are so unequal that a model which ignores the rare ones would look good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from farsearch.errors import BadInput
from farsearch.tasks.data import Kind, TaskData

__all__ = ["check_smoothing", "chosen_weights", "imbalance"]

_SHARE = 0.2
"""Rows of the rarest class for each of the commonest, below which classes are unequal."""


def imbalance(answers: Sequence[Any], kind: Kind) -> tuple[int, int] | None:
    """Return the rows of the rarest and the commonest class where the first are under a fifth of the second.

    None for classes that are nearer to each other, and for other tasks than those of one class per row.

    Args:
        answers: true answers of the training rows, as in ``Examples``.
    """
    if kind != "classification":
        return None
    counts = Counter(answers).values()
    rarest, commonest = min(counts), max(counts)
    return (rarest, commonest) if rarest < _SHARE * commonest else None


def check_smoothing(smoothing: float | None, data: TaskData) -> None:
    """Raise for smoothed labels of a task without one class per row.

    Raises:
        BadInput: naming the kind.
    """
    if smoothing is not None and data.spec.kind != "classification":
        raise BadInput(
            f"`label_smoothing` is {smoothing:g} and the task is {data.spec.kind}; rows need one class each: leave it "
            "out"
        )


def chosen_weights(
    asked: Literal["balanced", "none"] | None, recorded: Literal["balanced", "none"] | None, data: TaskData
) -> Literal["balanced", "none"]:
    """Return the weights of the classes in the loss: those asked for, the study's, or balanced for unequal classes.

    Raises:
        BadInput: for balanced weights of a task without one class per row.
    """
    kind, chosen = data.spec.kind, asked or recorded
    if chosen == "balanced" and kind != "classification":
        raise BadInput(f"`class_weights` is 'balanced' and the task is {kind}; rows need one class each: leave it out")
    return chosen or ("none" if imbalance(data.train.answers, kind) is None else "balanced")
