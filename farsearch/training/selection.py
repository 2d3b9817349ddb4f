"""Selection: which neurons and heads learn, and how sure the priming is of the neurons."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from torch import Tensor

from farsearch.far.layout import ModelLayout
from farsearch.far.selection import (
    head_counts,
    head_scores,
    learner_counts,
    overlap,
    random_learners,
    top_learners,
)
from farsearch.priming import Primed
from farsearch.records import FarConfig, JobSpec, PrimingReport
from farsearch.training.phase import Learners, State

__all__ = ["NO_PRIMING", "select_heads", "select_learners"]

NO_PRIMING = PrimingReport(0, 0.0, False, 0.0, None, None)
"""The report of a method that is not FAR."""


def select_learners(
    job: JobSpec, layout: ModelLayout, width: int, config: FarConfig, primed: Primed | None
) -> tuple[Learners, PrimingReport]:
    """Select the learners of each feed-forward block by a priming's scores, or at random without a priming.

    Args:
        width: hidden neurons of a block.

    Returns:
        The learners, None for a block that is left whole, and a report on priming and selection.
    """
    config = config.canonical()
    counts = layout.by_block(learner_counts(width, config.frozen_fractions, config.frozen_bottom_layers))

    def chosen(scores: Sequence[Tensor] | None) -> Learners:
        return [
            None
            if count is None
            else top_learners(scores[i], count)
            if scores is not None
            else random_learners(width, count, job.seed * 1000 + i)
            for i, count in enumerate(counts)
        ]

    by_score = job.priming.selection == "l1" and primed is not None
    learners = chosen(primed.scores if primed is not None and by_score else None)
    shares = [count / width for count in counts if count]
    chance = statistics.fmean(shares) if shares else None
    if primed is None:
        return learners, PrimingReport(0, 0.0, False, 0.0, None, chance)
    first, second = (
        [row for row in chosen(half) if row is not None] if primed.steps > 1 else [] for half in primed.halves
    )
    spread = statistics.fmean(float(s.std() / s.mean()) if float(s.mean()) else 0.0 for s in primed.scores)
    return learners, PrimingReport(
        primed.steps, primed.seconds, primed.from_cache, spread, overlap(first, second), chance
    )


def select_heads(
    job: JobSpec, layout: ModelLayout, config: FarConfig, pretrained: State, primed: Primed | None
) -> Learners:
    """Select the trained heads of each layer, None for an attention that is not split.

    By the scores of the whole priming, or at random as ``select_learners``.
    """
    counts = head_counts(layout.heads, config.canonical().frozen_heads, len(layout.layers))
    scores = None
    if any(counts) and job.priming.selection == "l1" and primed is not None:
        scores = head_scores(layout, pretrained, primed.state)
    return [
        None
        if count is None
        else top_learners(scores[i], count)
        if scores is not None
        # seeds from the other end: those of the neurons begin at 0
        else random_learners(layout.heads, count, job.seed * 1000 + 999 - i)
        for i, count in enumerate(counts)
    ]
