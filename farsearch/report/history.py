"""The course of a search: hypervolume over the trials, and training losses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D

from farsearch.hypervolume import hypervolume
from farsearch.pareto import dominates
from farsearch.records import AnyTrial, CompleteTrial, Stopped, StudySnapshot, on_front
from farsearch.report.points import QUIET
from farsearch.report.section import BLUE, Section, canvas, spread_over, whole_numbers
from farsearch.select import Objectives, objectives

__all__ = ["course_section", "curves_section", "hypervolumes"]

_LINES = 120
"""Maximum number of learning curves beside those of the front."""
_SMOOTH = "Each point is the mean over an eighth of the training."


def hypervolumes(trials: Sequence[AnyTrial]) -> list[float]:
    """Return the hypervolume after each trial, as a share of the final one; empty where that is 0.

    The reference point lies, in each objective, a twentieth of the range beyond the worst complete trial that fits.
    """
    ended = [objectives(trial) for trial in trials]
    costs = np.array([cost for cost in ended if cost is not None]).reshape(-1, 3)
    if not len(costs):
        return []
    worst, best = costs.max(axis=0), costs.min(axis=0)
    beyond = worst + 0.05 * np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1e-9))
    reference = np.array([-beyond[0], *beyond[1:]])
    found: list[float] = []
    front: list[Objectives] = []
    for cost in ended:
        if cost is not None and cost not in front and not any(dominates(other, cost) for other in front):
            front = [other for other in front if not dominates(cost, other)] + [cost]
            points = np.array(front)
            found.append(hypervolume(-points[:, 0], points[:, 1:], reference))
        else:
            found.append(found[-1] if found else 0.0)
    return [value / found[-1] for value in found] if found[-1] > 0 else []


def course_section(snapshot: StudySnapshot) -> Section | None:
    """Draw the hypervolume over the trials."""
    trials = sorted(snapshot.ended, key=lambda t: t.number)
    shares = hypervolumes(trials)
    if len(shares) < 2:
        return None
    steps = [i for i, (now, before) in enumerate(zip(shares, [0.0, *shares], strict=False)) if now > before]
    done = np.arange(1, len(shares) + 1)
    figure, axes = canvas(2.1)
    axes.step(done, 100 * np.array(shares), where="post", color=BLUE, linewidth=1.6)
    axes.scatter(done[steps], 100 * np.array(shares)[steps], color=BLUE, s=14, zorder=3)
    axes.set_ylim(0, 106)
    axes.set_xlabel("trials that ended")
    axes.set_ylabel("hypervolume (% of the final one)")
    whole_numbers(axes)
    most = next(i for i, share in enumerate(shares, 1) if share >= 0.9)
    title = f"90 % of the hypervolume was reached after {most:,} of {len(shares):,} trials"
    last = f"Trial {trials[steps[-1]].number} was the last to add to it." if steps else ""
    return Section("hypervolume", title, f"{last} {_work(snapshot, trials)}".strip(), figure)


def _work(snapshot: StudySnapshot, trials: Sequence[AnyTrial]) -> str:
    """Report trials that were stopped and proposals that were refused."""
    stopped, rejected = sum(isinstance(t.outcome, Stopped) for t in trials), sum(snapshot.rejected.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in snapshot.rejected.items())
    notes = [f"{stopped:,} trial{'s were' if stopped != 1 else ' was'} stopped early"] * bool(stopped)
    notes += [f"{rejected:,} proposals were priced and never trained ({reasons})"] * bool(rejected)
    return f"{'; '.join(notes)}." if notes else ""


def curves_section(snapshot: StudySnapshot) -> Section | None:
    """Draw the training loss by step, with the front highlighted."""
    front = [_curve(trial) for trial in spread_over(snapshot)]
    others = [_curve(trial) for trial in snapshot.complete if not on_front(trial)]
    front, others = [curve for curve in front if len(curve)], [curve for curve in others if len(curve)]
    if not front and not others:
        return None
    figure, axes = canvas(2.1)
    step = math.ceil(len(others) / _LINES) or 1
    for curve in others[::step]:
        axes.plot(*curve.T, color="#cfcfcf", linewidth=0.8)
    for curve in front:
        axes.plot(*curve.T, color=BLUE, linewidth=1.4, alpha=0.85)
    axes.set_xlabel("optimizer step of the FAR phase")
    whole_numbers(axes)
    axes.set_ylabel("training loss")
    losses = np.concatenate([*front, *others])[:, 1]
    axes.set_ylim(0, 1.08 * float(np.quantile(losses, 0.99)))
    kinds = (("front", BLUE, front), ("other trials", QUIET, others))
    handles = [Line2D([], [], color=colour, label=label) for label, colour, curves in kinds if curves]
    axes.legend(handles=handles, frameon=False, fontsize=8.5, loc="lower left")
    shown = front or others
    first, last = (statistics.median(float(c[at, 1]) for c in shown) for at in (0, -1))
    who = "on the front" if front else "of the trials"
    return Section("curves", f"The median loss {who} goes from {first:.2f} to {last:.2f}", _SMOOTH, figure)


def _curve(trial: CompleteTrial) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return steps and finite losses, ``[points, 2]``, as moving means over an eighth of the training."""
    points = [(point.step, point.loss) for point in trial.outcome.curve if math.isfinite(point.loss)]
    if not points:
        return np.zeros((0, 2))
    size = max(len(points) // 8, 1)
    curve = np.array(points, dtype=np.float64).reshape(-1, 2)
    return np.stack([np.convolve(column, np.full(size, 1 / size), "valid") for column in curve.T], axis=1)
