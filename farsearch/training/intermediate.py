"""Intermediate evaluations: when a training is evaluated on the way, and on how many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["EVALUATION_SHARES", "Evaluation", "OnEvaluation", "evaluation_rows"]

EVALUATION_SHARES = (0.5, 0.75)
"""Shares of the FAR phase's steps after which the validation metric is evaluated."""

_MAX_ROWS = 256
_MAX_SHARE = 1 / 8


@dataclass(frozen=True)
class Evaluation:
    """The validation metric in the middle of the FAR phase.

    Attributes:
        share: share of the phase's steps done, one of ``EVALUATION_SHARES``.
        step: the last step done, counted from 1.
        metric: on the first ``evaluation_rows`` validation rows, which are a stratified draw.
        logits: of these rows, as ``far.loop.predict`` returns them.
    """

    share: float
    step: int
    metric: float
    logits: Tensor


OnEvaluation = Callable[[Evaluation], None]
"""Called with an intermediate evaluation; raises to stop the training."""


def evaluation_rows(phase_rows: float) -> int:
    """Return the validation rows of an intermediate evaluation in a FAR phase over ``phase_rows`` rows.

    At most 256, and at most an eighth of the phase's: training a row costs three times its evaluation, so both
    evaluations take no more than a twelfth of the training.
    """
    return int(min(_MAX_ROWS, max(1.0, phase_rows * _MAX_SHARE)))
