"""Racing: stop a trial in the middle of its training when it can no longer reach the front.

Memory and time of a trial are known, so the metric that it needs is known too: the best among the complete trials that
take no more of either. At each intermediate evaluation the final metric is predicted as the intermediate one plus the
mean gain of the complete trials from that evaluation to their end, with a one-sided prediction interval of Student's t
over these gains. The trial is stopped when the upper end of the interval is below the metric that it needs. The
interval is wide enough that, as far as gains are normal, at most ``RISK`` of the trials that would reach the front are
stopped, over all evaluations together.

Nothing is stopped with fewer than ``LEAST`` complete trials, or where no trial is as cheap.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

from farsearch.errors import Overtaken
from farsearch.records import AnyTrial, MetricPoint, is_complete
from farsearch.training import EVALUATION_SHARES, Evaluation

__all__ = ["LEAST", "RISK", "Forecast", "Race", "Racer"]

RISK = 0.05
"""Share of the trials that would reach the front but are stopped."""

LEAST = 4
"""Complete trials with a known gain that a prediction needs."""


@dataclass(frozen=True)
class Forecast:
    """The final metric of a trial, predicted at an intermediate evaluation.

    Attributes:
        expected: the prediction.
        at_most: upper end of its interval.
        needed: the metric that the trial has to exceed; None where no trial is as cheap.
    """

    expected: float
    at_most: float
    needed: float | None

    @property
    def stop(self) -> bool:
        """Whether the trial can no longer reach the front."""
        return self.needed is not None and self.at_most < self.needed


@dataclass(frozen=True)
class Race:
    """The data from which the final metric of one trial is predicted.

    Attributes:
        needed: as in ``Forecast``.
        gains: final metric minus intermediate metric of each complete trial, by the share of the steps done.
        noise: lower bound of a gain's standard deviation: an intermediate evaluation has fewer rows than the final one.
    """

    needed: float | None
    gains: Mapping[float, Sequence[float]]
    noise: float

    @classmethod
    def of(cls, trials: Iterable[AnyTrial], memory_mib: float, time_s: float) -> Race:
        """Return the race of a trial with these costs against the trials of its study."""
        complete = list(filter(is_complete, trials))
        cheaper = [
            trial.outcome.metric
            for trial in complete
            if trial.cost.feasible and trial.cost.peak_memory_mib <= memory_mib and trial.cost.wall_time_s <= time_s
        ]
        results = [trial.outcome for trial in complete]
        gains: dict[float, list[float]] = {}
        for result in results:
            for point in result.looks:
                gains.setdefault(point.share, []).append(result.metric - point.metric)
        errors = [result.metric_error for result in results]
        return cls(max(cheaper, default=None), gains, statistics.median(errors) if errors else 0.0)

    def forecast(self, point: MetricPoint) -> Forecast | None:
        """Predict the final metric from an intermediate one; None where too few gains are known."""
        gains = self.gains.get(point.share, ())
        if len(gains) < LEAST:
            return None
        deviation = max(statistics.stdev(gains), self.noise)
        quantile = float(student_t.ppf(1.0 - RISK / len(EVALUATION_SHARES), len(gains) - 1))
        expected = point.metric + statistics.fmean(gains)
        at_most = expected + quantile * deviation * math.sqrt(1.0 + 1.0 / len(gains))
        return Forecast(expected, at_most, self.needed)


class Racer:
    """Callback for the intermediate evaluations of one trial.

    Attributes:
        points: the intermediate metrics so far.
        stopped_by: the forecast that stopped the trial.
    """

    def __init__(self, race: Race) -> None:
        self._race = race
        self.points: list[MetricPoint] = []
        self.stopped_by: Forecast | None = None

    def __call__(self, evaluation: Evaluation) -> None:
        """Record an intermediate metric, and decide whether the training continues.

        Raises:
            Overtaken: when the trial can no longer reach the front.
        """
        point = MetricPoint(evaluation.share, evaluation.step, evaluation.metric)
        self.points.append(point)
        forecast = self._race.forecast(point)
        if forecast is not None and forecast.stop:
            self.stopped_by = forecast
            raise Overtaken(
                f"stopped after {point.share:.0%} of its steps: {forecast.expected:.3f} expected, "
                f"{forecast.at_most:.3f} at most, but at its memory and time the front has {forecast.needed:.3f}"
            )
