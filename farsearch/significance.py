"""Significance of verified points: which are better than cheaper ones, and whether the search ranked them well.

Pure functions of a snapshot.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from farsearch.formatting import Row, human_interval, human_memory, human_metric, human_time
from farsearch.pareto import dominates
from farsearch.records import Completed, StudySnapshot, Trial, TrialOutcome, VerifiedTrial

__all__ = [
    "FEWEST_SEEDS",
    "Agreement",
    "Verdict",
    "advantage_text",
    "agreement_text",
    "rank_agreement",
    "verdict_json",
    "verdict_rows",
    "verdicts",
]

_Verified = VerifiedTrial[TrialOutcome]

_CONFIDENCE = 0.95

FEWEST_SEEDS = 3
"""Seeds for an interval. With two it is 25 deviations wide, and any two equal gaps would be certain."""

_ROUNDING = 1e-9
"""Tolerance for equal differences."""


@dataclass(frozen=True)
class Verdict:
    """A point of the front, or a baseline, over several seeds.

    Attributes:
        title: ``trial 7``, or the baseline's.
        trial: number in the search; None for a baseline.
        searched: the metric in the search, on its validation rows.
        scores: the metric on the official development set by seed.
        failed: number of unfinished trainings.
        learned: at least one training was better than a constant answer, beyond the rows' error. Points that did not
            learn are not compared with.
        train_samples: rows of each training.
        not_better_than: title of a cheaper point than which this one is not significantly better; None where no such
            point exists.
        interval: 95 % interval of that difference, above 0 where this point is better.
        judged: there were enough seeds for every comparison.
        cheapest: no other point that learned needs as little memory and as little time.
        passed_over: a point that did not learn is cheaper.
    """

    title: str
    trial: int | None
    searched: float | None
    scores: Mapping[int, float]
    failed: int
    train_samples: int
    peak_memory_mib: float
    wall_time_s: float
    not_better_than: str | None = None
    interval: tuple[float, float] | None = None
    judged: bool = False
    cheapest: bool = False
    learned: bool = True
    passed_over: bool = False

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN without a finished training."""
        return statistics.fmean(self.scores.values()) if self.scores else math.nan

    @property
    def noise(self) -> bool:
        """Whether the point is within noise of a cheaper one, or worse."""
        return self.not_better_than is not None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None with fewer than ``FEWEST_SEEDS``."""
        return statistics.stdev(self.scores.values()) if len(self.scores) >= FEWEST_SEEDS else None


@dataclass(frozen=True)
class Agreement:
    """Rank agreement between the search's metric and the verification.

    Attributes:
        tau: Kendall's tau-b, 1 for the same order, -1 for the opposite one.
        trials: number of compared trials.
        train_samples: rows of the search's trainings, and of the verification's.
    """

    tau: float
    trials: int
    train_samples: tuple[int, int]


def verdicts(snapshot: StudySnapshot) -> list[Verdict]:
    """Return the verdicts on the points that were verified with the most rows: trials by memory, then baselines.

    A point's advantage over one that needs no more memory and no more time is noise unless it is positive with 95 %
    confidence: Student's t interval of the mean difference, paired by seed. There is no verdict with fewer than three
    common seeds, or with the same gap for each of them.
    """
    most = max((record.verifies.train_samples for record in snapshot.verified), default=0)
    groups: dict[str, list[_Verified]] = {}
    for record in snapshot.verified:
        if record.verifies.train_samples == most:
            groups.setdefault(_title(snapshot, record), []).append(record)
    points = [_verdict(snapshot, title, records) for title, records in groups.items()]
    points.sort(
        key=lambda verdict: (verdict.trial is None, verdict.peak_memory_mib, verdict.wall_time_s, verdict.title)
    )
    return [_judged(verdict, points) for verdict in points]


def _title(snapshot: StudySnapshot, record: _Verified) -> str:
    """Return the unique title of a point."""
    baseline = record.baseline
    if baseline is None:
        return f"trial {record.verifies.trial}"
    # verified before the study had trained its better rate
    old = any(b.baseline != baseline for b in snapshot.baselines if b.baseline.method == baseline.method)
    return f"{baseline.title}, rate {baseline.learning_rate:g}" if old else baseline.title


def _verdict(snapshot: StudySnapshot, title: str, records: Sequence[_Verified]) -> Verdict:
    first = records[0]
    results = {record.verifies.seed: record.outcome for record in records if isinstance(record.outcome, Completed)}
    return Verdict(
        title=title,
        trial=first.verifies.trial,
        searched=_searched(snapshot, first),
        scores={seed: result.metric for seed, result in results.items()},
        failed=len(records) - len(results),
        learned=any(result.learned is not False for result in results.values()),
        train_samples=first.verifies.train_samples,
        # batches are drawn by the seed, so times differ a little
        peak_memory_mib=statistics.median(record.cost.peak_memory_mib for record in records),
        wall_time_s=statistics.median(record.cost.wall_time_s for record in records),
    )


def _searched(snapshot: StudySnapshot, record: _Verified) -> float | None:
    if record.baseline is not None:
        return next((b.outcome.metric for b in snapshot.baselines if b.baseline == record.baseline), None)
    # the trials of the auxiliary study itself are those of the verification
    searched = (trial for trial in snapshot.complete if isinstance(trial, Trial))
    return next((trial.outcome.metric for trial in searched if trial.number == record.verifies.trial), None)


def _judged(verdict: Verdict, others: Sequence[Verdict]) -> Verdict:
    """Compare a point with cheaper ones; the cheapest (memory times time) that is no worse is named."""
    less = sorted((other for other in others if other.scores and _costs_less(other, verdict)), key=_product)
    cheaper = [other for other in less if other.learned]
    gains = [_gain(verdict, other) for other in cheaper]
    pairs = zip(cheaper, gains, strict=True)
    title, gain = next(((other.title, gain) for other, gain in pairs if gain and gain[0] <= 0), (None, None))
    return dataclasses.replace(
        verdict,
        not_better_than=title,
        interval=gain,
        judged=all(gain is not None for gain in gains),
        cheapest=not cheaper,
        passed_over=len(cheaper) < len(less),
    )


def _product(verdict: Verdict) -> float:
    return verdict.peak_memory_mib * verdict.wall_time_s


def _costs_less(one: Verdict, other: Verdict) -> bool:
    return dominates((one.peak_memory_mib, one.wall_time_s), (other.peak_memory_mib, other.wall_time_s))


def _gain(verdict: Verdict, other: Verdict) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean difference over common seeds; None for too few seeds.

    None too where all seeds have the same gap: that is an accident of the number of rows, not certainty.
    """
    common = sorted(verdict.scores.keys() & other.scores.keys())
    if len(common) < FEWEST_SEEDS:
        return None
    differences = np.array([verdict.scores[seed] - other.scores[seed] for seed in common])
    if np.ptp(differences) <= _ROUNDING < abs(differences[0]):
        return None
    middle, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(common))
    reach = float(stdtrit(len(common) - 1, (1 + _CONFIDENCE) / 2)) * error
    return middle - reach, middle + reach


def rank_agreement(snapshot: StudySnapshot) -> Agreement | None:
    """Return how well the search ranks the verified trials; None with fewer than three."""
    pairs = [(v.searched, v.mean) for v in verdicts(snapshot) if v.trial is not None and v.scores]
    known = [(searched, mean) for searched, mean in pairs if searched is not None]
    if len(known) < 3:
        return None
    from scipy.stats import kendalltau  # takes a second to import

    tau = float(kendalltau(*zip(*known, strict=True)).statistic)
    rows = max(record.verifies.train_samples for record in snapshot.verified)
    # undefined where all values of one side are tied
    return Agreement(0.0 if math.isnan(tau) else tau, len(known), (snapshot.settings.job.train_samples, rows))


def agreement_text(snapshot: StudySnapshot) -> str:
    """Return the rank agreement as a line of text; empty where it is unknown."""
    agreement = rank_agreement(snapshot)
    if agreement is None:
        return ""
    few, many = agreement.train_samples
    tau = f"{agreement.tau:+.2f}".replace("-", "\N{MINUS SIGN}")
    return (
        f"Kendall's tau of search ({few:,} rows, one seed) and verification ({many:,} rows) over {agreement.trials} "
        f"trials: {tau} (1: the same order, 0: unrelated)"
    )


def verdict_rows(snapshot: StudySnapshot) -> list[Row]:
    """Return one table row per verified point."""
    name = snapshot.metric_name
    return [
        {
            "point": verdict.title,
            "development set": human_metric(name, verdict.mean, verdict.deviation) if verdict.scores else "",
            "seeds": f"{len(verdict.scores)}" + (f", {verdict.failed} failed" if verdict.failed else ""),
            "search's": human_metric(name, verdict.searched),
            "memory": human_memory(verdict.peak_memory_mib),
            "time": human_time(verdict.wall_time_s),
            "advantage": advantage_text(verdict, name),
        }
        for verdict in verdicts(snapshot)
    ]


def advantage_text(verdict: Verdict, metric_name: str) -> str:
    """Return a point's advantage over cheaper ones as a text."""
    if not verdict.scores:
        return "no training came to its end"
    if not verdict.learned:
        return "did not learn: no better than a constant answer"
    if verdict.not_better_than is not None and verdict.interval is not None:
        what = "worse than" if verdict.interval[1] < 0 else "within noise of"
        gap = human_interval(metric_name, *verdict.interval)
        return f"{what} {verdict.not_better_than}, which costs less: {gap}"
    if verdict.cheapest:
        return "nothing that learned costs less" if verdict.passed_over else "nothing costs less"
    return "beyond noise" if verdict.judged else "too few seeds to tell"


def verdict_json(snapshot: StudySnapshot) -> dict[str, Any]:
    """Return verdicts and agreement as JSON types."""
    agreement = rank_agreement(snapshot)
    return {
        "verified": [
            {
                "title": verdict.title,
                "trial": verdict.trial,
                "mean": None if math.isnan(verdict.mean) else verdict.mean,
                "deviation": verdict.deviation,
                "scores": {str(seed): score for seed, score in sorted(verdict.scores.items())},
                "failed": verdict.failed,
                "learned": verdict.learned if verdict.scores else None,
                "train_samples": verdict.train_samples,
                "searched": verdict.searched,
                "peak_memory_mib": verdict.peak_memory_mib,
                "wall_time_s": verdict.wall_time_s,
                "not_better_than": verdict.not_better_than,
                "interval": verdict.interval,
                "judged": verdict.judged,
            }
            for verdict in verdicts(snapshot)
        ],
        "constant_answer": snapshot.meta.get("constant_answer"),
        "rank_agreement": None if agreement is None else {"kendall_tau": agreement.tau, "trials": agreement.trials},
    }
