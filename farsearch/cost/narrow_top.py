"""The operations of a step whose head takes the first token alone, as the engine without torch executes it.

That engine computes what follows the attention of the top layer for this token alone (farsearch/graph/narrow.py). A
step table has torch's operations, on all tokens; those that are narrow work on rows of one token.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from farsearch.cost.operations import CATEGORIES
from farsearch.cost.segments import Array, Composed, Part

__all__ = ["with_narrow_top"]


def with_narrow_top(step: Composed, layers: int) -> Composed:
    """Return a step of a model of ``layers`` layers with the operations of a narrow top layer; its memory is wrong."""
    backward_top = len(step.part_of) - 1 - layers
    rows = {layers: _after_attention, backward_top: _before_attention}
    rows.update(dict.fromkeys((backward_top - 2, backward_top - 1), _all))  # the head
    numbers = {part: number for number, part in enumerate(step.parts)}
    part_of = step.part_of.copy()
    for row, narrow in rows.items():
        for number in np.unique(step.part_of[row]):
            part = narrow(step.parts[number])
            part_of[row, step.part_of[row] == number] = numbers.setdefault(part, len(numbers))
    return dataclasses.replace(step, parts=tuple(numbers), part_of=part_of)


# costs are cached by part, so an equal part has to be the same one


@lru_cache(maxsize=1024)
def _after_attention(part: Part) -> Part:
    """A layer's forward pass, in which the last batched product is the attention's."""
    batched = np.flatnonzero(part.categories == CATEGORIES.index("bmm"))
    return _narrow(part, slice(batched[-1] + 1 if len(batched) else 0, None))


@lru_cache(maxsize=1024)
def _before_attention(part: Part) -> Part:
    """A layer's backward pass, which may end before its attention."""
    batched = np.flatnonzero(part.categories == CATEGORIES.index("bmm"))
    return _narrow(part, slice(0, batched[0] if len(batched) else None))


@lru_cache(maxsize=1024)
def _all(part: Part) -> Part:
    return _narrow(part, slice(None))


def _narrow(part: Part, where: slice) -> Part:
    """The part with some of its operations on rows of one token."""
    operations: Array = part.operations.copy()
    constant, learners = operations[where, ..., :3].sum(axis=-1), operations[where, ..., 3:].sum(axis=-1)
    operations[where] = 0.0
    operations[where, ..., 0], operations[where, ..., 3] = constant, learners
    return dataclasses.replace(part, operations=operations)
