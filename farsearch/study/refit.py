"""Refit: train the configuration of a chosen trial again, on the rows that were held out for the choice too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from farsearch.cost.plans import quickest
from farsearch.records import Completed, Trial
from farsearch.study.artifacts import SavedTrial
from farsearch.study.results import predictions_of
from farsearch.training import Bench, OnStep

__all__ = ["Refit", "refit"]


@dataclass(frozen=True)
class Refit:
    """A final model, which leaves no validation rows.

    Attributes:
        saved: its tensors.
        rows: number of its training rows.
        metric, metric_error: on the development rows, which it was not trained on.
    """

    saved: SavedTrial
    rows: int
    metric: float
    metric_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return its record in a bundle's ``far.json``."""
        return {"rows": self.rows, "dev_metric": self.metric, "dev_metric_error": self.metric_error}


def refit(
    bench: Bench, trial: Trial[Completed], on_step: OnStep | None = None, on_note: Callable[[str], None] | None = None
) -> Refit:
    """Prime, select and train as the trial did, with the study's seed.

    Args:
        bench: of all rows, without validation rows.

    Raises:
        Diverged, OutOfMemory: as ``Bench.run``.
    """
    outcome = bench.run(trial.config, quickest(trial.plan, bench.layout), on_step, on_note)
    heads = outcome.heads if any(chosen is not None for chosen in outcome.heads) else []
    primed = None if outcome.primed is None else outcome.primed.state
    saved = SavedTrial(outcome.trained, outcome.learners, predictions_of(outcome), primed, heads)
    return Refit(saved, bench.job.train_samples, outcome.metric, outcome.metric_error)
