"""The parts that all pictures of a study share: trials, units, colours and texts. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from farsearch.comparison import leads
from farsearch.formatting import constant_value, is_percentage, metric_words
from farsearch.records import BaselineTrial, Completed, CompleteTrial, StudySnapshot, Trial
from farsearch.select import costs_of

__all__ = [
    "BESIDE",
    "BUDGET",
    "INK",
    "LINE",
    "MEMORY_AXIS",
    "QUIET",
    "Points",
    "count",
    "headline",
    "metric_axis",
    "metric_limits",
    "points_of",
]

QUIET, LINE, INK, BUDGET, BESIDE = "#9f9f9f", "#7d7d7d", "#262626", "#b3413a", "#7a3f9d"
MEMORY_AXIS = "peak memory on the device (MiB, predicted)"


@dataclass(frozen=True)
class Points:
    """The trials that a picture shows, in its units.

    Attributes:
        front: the choices of the front; trials that stand behind one of them are among the others.
        scale: the metric's factor, 100 for per cent.
        unit, seconds: unit of the time on the device, and its length.
        constant: metric of a constant answer, scaled; None where it is not recorded.
    """

    front: tuple[Trial[Completed], ...]
    others: tuple[CompleteTrial, ...]
    baselines: tuple[BaselineTrial[Completed], ...]
    scale: float
    unit: str
    seconds: float
    constant: float | None = None

    @property
    def all(self) -> tuple[CompleteTrial, ...]:
        """All trials."""
        return self.front + self.others + self.baselines

    def metrics(self, trials: Iterable[CompleteTrial]) -> list[float]:
        """Return the metrics, times ``scale``."""
        return [self.scale * trial.outcome.metric for trial in trials]

    def errors(self, trials: Iterable[CompleteTrial]) -> list[float]:
        """Return the standard errors of the metrics, times ``scale``."""
        return [self.scale * trial.outcome.metric_error for trial in trials]

    def memories(self, trials: Iterable[CompleteTrial]) -> list[float]:
        """Return the peaks on the device in MiB."""
        return [trial.cost.peak_memory_mib for trial in trials]

    def times(self, trials: Iterable[CompleteTrial]) -> list[float]:
        """Return the times on the device, in ``unit``."""
        return [trial.cost.wall_time_s / self.seconds for trial in trials]

    def time_range(self) -> tuple[float, float]:
        """Return the range of the colours, never empty."""
        times = self.times(self.all)
        margin = 0.0 if max(times) > min(times) else 0.05 * max(times) or 1.0
        return min(times) - margin, max(times) + margin


def points_of(snapshot: StudySnapshot) -> Points:
    """Return the complete trials of ``snapshot`` with three finite objectives."""
    shown = [trial for trial in snapshot.complete if _drawable(trial)]
    baselines = tuple(trial for trial in snapshot.baselines if _drawable(trial))
    longest = max((trial.cost.wall_time_s for trial in (*shown, *baselines)), default=0.0)
    constant, scale = constant_value(snapshot), 100.0 if is_percentage(snapshot.metric_name) else 1.0
    unit, seconds = ("s", 1.0) if longest < 120 else ("min", 60.0) if longest < 7200 else ("h", 3600.0)
    front = tuple(lead.trial for lead in leads(snapshot) if _drawable(lead.trial))
    numbers = {trial.number for trial in front}
    return Points(
        front=front,
        others=tuple(trial for trial in shown if not isinstance(trial, Trial) or trial.number not in numbers),
        baselines=baselines,
        scale=scale,
        unit=unit,
        seconds=seconds,
        constant=None if constant is None else scale * constant,
    )


def _drawable(trial: CompleteTrial) -> bool:
    return all(map(math.isfinite, costs_of(trial)))


def headline(snapshot: StudySnapshot) -> str:
    """Return task, model and device as a title."""
    job = snapshot.settings.job
    return f"{job.task} · {job.model} · {snapshot.settings.device}"


def count(snapshot: StudySnapshot) -> str:
    """Return the numbers of choices on the front and of trials in total, as text."""
    return f"{len(leads(snapshot))} of {len(snapshot.complete)} complete trials on the front"


def metric_axis(snapshot: StudySnapshot) -> str:
    """Return the title of the metric's axis."""
    unit = " (%)" if is_percentage(snapshot.metric_name) else ""
    return f"validation {metric_words(snapshot.metric_name)}{unit}"


def metric_limits(points: Points) -> tuple[float, float]:
    """Return the limits of the metric's axis, without outliers far below the median of the front."""
    metrics, focus = points.metrics(points.all), points.metrics(points.front or points.all)
    error = max(points.errors(points.all))
    middle, top = statistics.median(focus), max(metrics)
    reach = max(top - middle, 2 * error, 1e-3 * points.scale)
    low, high = min(metric for metric in metrics if metric >= middle - 3 * reach) - error, top + error
    height = max(high - low, reach)
    return low - 0.06 * height, high + 0.12 * height
