"""When a race looks at a training in its middle, and what it sees."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["LOOKS", "Look", "look_rows"]

LOOKS = (0.5, 0.75)
"""Shares of the FAR phase's steps after which a race looks at the validation metric."""

_LOOK_ROWS = 256
_LOOK_SHARE = 1 / 8


@dataclass(frozen=True)
class Look:
    """The validation metric in the middle of the FAR phase.

    Attributes:
        share: of the phase's steps that are done, one of ``LOOKS``.
        step: the last step done, counted from 1.
        metric: on the first ``look_rows`` validation rows, which are a stratified draw.
        logits: of those rows, as ``far.loop.predict`` gives them.
    """

    share: float
    step: int
    metric: float
    logits: Tensor


def look_rows(phase_rows: float) -> int:
    """Validation rows of a look in a FAR phase over so many rows.

    At most 256, and at most an eighth of the phase's: a row is trained at three times the cost of a look at it, so that
    both looks together take no more than a twelfth of the training.
    """
    return int(min(_LOOK_ROWS, max(1.0, phase_rows * _LOOK_SHARE)))
