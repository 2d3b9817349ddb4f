"""How far figures of a study can be trusted: selections that mean nothing, and points that were trained again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from farsearch.records import StudySnapshot, TrialRecord
from farsearch.report.points import BESIDE, BUDGET
from farsearch.report.section import BLUE, Section, canvas, whole_numbers
from farsearch.tables import human_metric, is_percentage, metric_title

__all__ = ["Verified", "selection_section", "verified_points", "verified_section"]

_NAMED = 8
"""Trials that a sentence names at most."""


def selection_section(snapshot: StudySnapshot) -> Section | None:
    """Where both halves of a priming agree on the learners no more than random draws would."""
    told = [
        (trial, trial.priming)
        for trial in snapshot.complete
        if trial.priming is not None and trial.priming.steps > 0 and trial.priming.like_chance is not None
    ]
    if not told:
        return None
    figure, axes = canvas(1.9)
    for random, colour in ((False, BLUE), (True, BUDGET)):
        chosen = [report for _, report in told if report.like_chance == random]
        above = [100 * ((r.half_overlap or 0.0) - (r.chance_overlap or 0.0)) for r in chosen]
        axes.scatter([r.steps for r in chosen], above, s=24, color=colour, alpha=0.75, linewidths=0, zorder=3)
    axes.axhline(0, color="#9f9f9f", linewidth=1)
    axes.set_xlabel("steps of priming")
    axes.set_ylabel("agreement above chance (points)")
    whole_numbers(axes)
    guesses = [trial.number for trial, report in told if report.like_chance]
    title = f"Selection beats chance in all {len(told)} primed trials"
    if guesses:
        title = f"Selection is no better than random in {len(guesses)} of {len(told)} primed trials"
    named = ", ".join(map(str, guesses[:_NAMED])) + ", …" * (len(guesses) > _NAMED)
    who = f" Red, no better than random: trial{'s' * (len(guesses) != 1)} {named}." if guesses else ""
    words = "How much both halves of a priming agree on which neurons to train, above what random draws would."
    return Section("selection", title, f"{words}{who}", figure)


@dataclass(frozen=True)
class Verified:
    """A point of the front, or a baseline, that was trained again with other seeds.

    Attributes:
        trial: its number in the search; None for a baseline.
        mean, deviation: of the metric on the official development set; no deviation of a single seed.
        metrics: by seed.
        train_samples: rows of each training.
    """

    name: str
    trial: int | None
    mean: float
    deviation: float | None
    metrics: Mapping[int, float]
    train_samples: int


def verified_points(snapshot: StudySnapshot) -> list[Verified]:
    """What ``verify`` trained again, points of the search before baselines, the best first.

    A verdict on whether an advantage is noise belongs to these and to nothing else here.
    """
    groups: dict[tuple[int | None, str], list[TrialRecord]] = {}
    for record in snapshot.verified:
        if record.verifies is not None and record.metric is not None:
            number = record.verifies.trial
            name = f"trial {number}" if number is not None else record.baseline.title if record.baseline else "baseline"
            groups.setdefault((number, name), []).append(record)
    points = [_point(number, name, records) for (number, name), records in groups.items()]
    return sorted(points, key=lambda p: (p.trial is None, -p.mean, p.name))


def _point(number: int | None, name: str, records: list[TrialRecord]) -> Verified:
    metrics = {r.verifies.seed: r.metric for r in records if r.verifies is not None and r.metric is not None}
    values = list(metrics.values())
    deviation = statistics.stdev(values) if len(values) > 1 else None
    samples = max(r.verifies.train_samples for r in records if r.verifies is not None)
    return Verified(name, number, statistics.fmean(values), deviation, dict(sorted(metrics.items())), samples)


def verified_section(snapshot: StudySnapshot) -> Section | None:
    """Mean and deviation over seeds on the official development set, beside the baselines'."""
    points = verified_points(snapshot)
    if not points:
        return None
    scale = 100.0 if is_percentage(snapshot.metric_name) else 1.0
    longest = max(len(point.name) for point in points)
    figure, axes = canvas(0.26 * len(points) + 0.15, left=0.2 + 0.066 * longest)
    rows = np.arange(len(points))
    for row, point in zip(rows, points, strict=True):
        colour = BLUE if point.trial is not None else BESIDE
        axes.errorbar(
            scale * point.mean, row, xerr=None if point.deviation is None else scale * point.deviation,
            fmt="o", color=colour, markersize=6, elinewidth=1.6, zorder=3,
        )  # fmt: skip
        metrics = [scale * metric for metric in point.metrics.values()]
        axes.scatter(metrics, [row] * len(metrics), s=10, color="#9f9f9f", linewidths=0, zorder=2)
    axes.set_yticks(rows, [point.name for point in points])
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    unit = " (%)" if is_percentage(snapshot.metric_name) else ""
    axes.set_xlabel(f"{metric_title(snapshot.metric_name).lower()} on the development set{unit}")
    best = points[0]
    value = human_metric(snapshot.metric_name, best.mean, best.deviation)
    title = f"Trained again, {best.name} reaches {value} on the development set"
    words = "Dots are means, bars ± one deviation over the seeds, small dots the seeds themselves."
    return Section("verified", title, words, figure, [_row(snapshot, point) for point in points])


def _row(snapshot: StudySnapshot, point: Verified) -> dict[str, str]:
    return {
        "point": point.name,
        metric_title(snapshot.metric_name).lower(): human_metric(snapshot.metric_name, point.mean, point.deviation),
        "seeds": " ".join(map(str, point.metrics)),
        "rows": f"{point.train_samples:,}",
    }
