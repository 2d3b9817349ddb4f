"""Racing: a trial that can't reach the front any more is stopped in the middle of its training.

The rule. Memory and time of a trial are known, so the metric that it needs is known too: the best among the complete
trials that take no more of either. At each look the final metric is foretold as the look's plus what the complete
trials of the study have gained from the same look to their end, whose mean and spread leave a prediction interval of
Student's t. The trial is stopped where the upper end of that interval is below the metric that it needs. The interval
is one-sided, and wide enough that of the trials that would reach the front at most ``RISK`` are stopped, at all looks
together, as far as gains are normal.

With fewer than ``LEAST`` complete trials, or where no trial is as cheap, nothing is stopped.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

from farsearch.errors import Overtaken
from farsearch.records import LookPoint, TrialRecord
from farsearch.training import LOOKS, Look

__all__ = ["LEAST", "RISK", "Race", "Racer", "Verdict"]

RISK = 0.05
"""Share of the trials that would reach the front and are stopped all the same."""

LEAST = 4
"""Complete trials whose gains are known, from which a race begins."""


@dataclass(frozen=True)
class Verdict:
    """What a look says of a trial.

    Attributes:
        expected: its final metric, as foretold. at_most: the upper end of that.
        needed: the metric that it would have to exceed; None where nothing is as cheap.
    """

    expected: float
    at_most: float
    needed: float | None

    @property
    def stop(self) -> bool:
        """It can't reach the front any more."""
        return self.needed is not None and self.at_most < self.needed


@dataclass(frozen=True)
class Race:
    """What the looks of one trial are judged by.

    Attributes:
        needed: as ``Verdict``'s.
        gains: final metric less the look's, of each complete trial, by the look's share of the steps.
        noise: standard deviation that a gain has at least, for a look sees fewer rows than the end does.
    """

    needed: float | None
    gains: Mapping[float, Sequence[float]]
    noise: float

    @classmethod
    def of(cls, trials: Iterable[TrialRecord], memory_mib: float, time_s: float) -> Race:
        """The race of a trial with these costs against the trials of its study."""
        complete = [trial for trial in trials if trial.state == "complete" and trial.metric is not None]
        cheaper = [
            float(trial.metric or 0.0)
            for trial in complete
            if trial.feasible and (trial.peak_memory_mib or 0.0) <= memory_mib and (trial.wall_time_s or 0.0) <= time_s
        ]
        gains: dict[float, list[float]] = {}
        for trial in complete:
            for look in trial.looks:
                gains.setdefault(look.share, []).append(float(trial.metric or 0.0) - look.metric)
        errors = [trial.metric_error for trial in complete if trial.metric_error is not None]
        return cls(max(cheaper, default=None), gains, statistics.median(errors) if errors else 0.0)

    def judge(self, look: LookPoint) -> Verdict | None:
        """What a look says; None where too few trials are known."""
        gains = self.gains.get(look.share, ())
        if len(gains) < LEAST:
            return None
        deviation = max(statistics.stdev(gains), self.noise)
        quantile = float(student_t.ppf(1.0 - RISK / len(LOOKS), len(gains) - 1))
        expected = look.metric + statistics.fmean(gains)
        at_most = expected + quantile * deviation * math.sqrt(1.0 + 1.0 / len(gains))
        return Verdict(expected, at_most, self.needed)


class Racer:
    """Hears the looks of one trial, and stops it when its race is lost.

    Attributes:
        looks: that were made. lost: the verdict that stopped it.
    """

    def __init__(self, race: Race) -> None:
        self._race = race
        self.looks: list[LookPoint] = []
        self.lost: Verdict | None = None

    def __call__(self, look: Look) -> None:
        """Judge a look.

        Raises:
            Overtaken: when the trial can't reach the front any more.
        """
        point = LookPoint(look.share, look.step, look.metric)
        self.looks.append(point)
        verdict = self._race.judge(point)
        if verdict is not None and verdict.stop:
            self.lost = verdict
            raise Overtaken(
                f"stopped after {look.share:.0%} of its steps: {verdict.expected:.3f} expected, "
                f"{verdict.at_most:.3f} at most, but at its memory and time the front has {verdict.needed:.3f}"
            )
