"""Reliability of a study's figures: selections that are random, and points that were trained again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from farsearch.formatting import human_metric, is_percentage, metric_words
from farsearch.records import StudySnapshot
from farsearch.report.points import BESIDE, BUDGET
from farsearch.report.section import BLUE, Section, canvas, whole_numbers
from farsearch.significance import Verdict, verdict_rows, verdicts

__all__ = ["selection_section", "verified_section"]

_NAMED = 8
"""Maximum number of trials that a sentence lists."""


def selection_section(snapshot: StudySnapshot) -> Section | None:
    """Draw how much both halves of a priming agree on the learners, beyond random selections."""
    primed = [
        (trial, trial.outcome.priming)
        for trial in snapshot.complete
        if trial.outcome.priming.steps > 0 and trial.outcome.priming.like_chance is not None
    ]
    if not primed:
        return None
    figure, axes = canvas(1.9)
    for random, colour in ((False, BLUE), (True, BUDGET)):
        chosen = [report for _, report in primed if report.like_chance == random]
        above = [100 * ((r.half_overlap or 0.0) - (r.chance_overlap or 0.0)) for r in chosen]
        axes.scatter([r.steps for r in chosen], above, s=24, color=colour, alpha=0.75, linewidths=0, zorder=3)
    axes.axhline(0, color="#9f9f9f", linewidth=1)
    axes.set_xlabel("steps of priming")
    axes.set_ylabel("agreement above chance (points)")
    whole_numbers(axes)
    guesses = [trial.number for trial, report in primed if report.like_chance]
    title = f"Selection beats chance in all {len(primed)} primed trials"
    if guesses:
        title = f"Selection is no better than random in {len(guesses)} of {len(primed)} primed trials"
    named = ", ".join(map(str, guesses[:_NAMED])) + ", …" * (len(guesses) > _NAMED)
    who = f" Red, no better than random: trial{'s' * (len(guesses) != 1)} {named}." if guesses else ""
    words = "Agreement of the selections by both halves of a priming, above that of random selections."
    return Section("selection", title, f"{words}{who}", figure)


def verified_section(snapshot: StudySnapshot) -> Section | None:
    """Draw mean and deviation over seeds on the official development set, with baselines, and mark noise."""
    judged = verdicts(snapshot)
    points = [verdict for verdict in judged if verdict.scores]
    if not judged:
        return None
    if not points:
        return Section("verified", "Trained again, no training was completed", rows=verdict_rows(snapshot))
    best = max(points, key=lambda point: (point.trial is not None, point.mean))
    value = human_metric(snapshot.metric_name, best.mean, best.deviation)
    title = f"Trained again, {best.title} reaches {value} on the development set"
    idle = [point.title for point in points if point.noise]
    if idle:
        title += f"; no advantage is shown for {_listed(idle)}"
    few = [point.title for point in points if point.learned and not (point.judged or point.noise)]
    if few:
        title += f"; too few seeds for a verdict on {_listed(few)}"
    words = (
        "Dots are means, bars ± one standard deviation of a training over the seeds (of three or more), small dots the "
        "seeds themselves."
    )
    hollow = " Hollow: within noise of a point that costs less, or worse." * bool(idle)
    return Section("verified", title, f"{words}{hollow}", _drawn(snapshot, points), verdict_rows(snapshot))


def _listed(titles: Sequence[str]) -> str:
    """Return up to two titles, or the number of points."""
    return " and ".join(titles) if len(titles) < 3 else f"{len(titles)} points"


def _drawn(snapshot: StudySnapshot, points: Sequence[Verdict]) -> Figure:
    """Draw one row per point."""
    scale = 100.0 if is_percentage(snapshot.metric_name) else 1.0
    longest = max(len(point.title) for point in points)
    figure, axes = canvas(0.26 * len(points) + 0.15, left=0.2 + 0.066 * longest)
    rows = np.arange(len(points))
    for row, point in zip(rows, points, strict=True):
        colour = BLUE if point.trial is not None else BESIDE
        axes.errorbar(
            scale * point.mean, row, xerr=None if point.deviation is None else scale * point.deviation, fmt="o",
            color=colour, markerfacecolor="white" if point.noise else colour, markersize=6, elinewidth=1.6, zorder=3,
        )  # fmt: skip
        scores = [scale * score for score in point.scores.values()]
        axes.scatter(scores, [row] * len(scores), s=10, color="#9f9f9f", linewidths=0, zorder=2)
    axes.set_yticks(rows, [point.title for point in points])
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    unit = " (%)" if is_percentage(snapshot.metric_name) else ""
    axes.set_xlabel(f"{metric_words(snapshot.metric_name)} on the development set{unit}")
    return figure
