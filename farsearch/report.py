"""Pictures of a study: its front as a PNG and as an interactive page. The only home of matplotlib and plotly."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import plotly.io
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from farsearch.records import StudySnapshot, TrialRecord
from farsearch.tables import (
    Row,
    front_rows,
    human_memory,
    human_metric,
    human_time,
    is_percentage,
    mean_frozen,
    metric_title,
)

__all__ = ["front_figure", "front_html", "save_front_png"]

_MAP = "cividis_r"
"""Even in lightness and safe for colour-blind eyes; dark is slow."""
_QUIET, _INK, _BUDGET = "#a3a3a3", "#262626", "#b3413a"
_LABEL_OFFSETS = ((0, 9), (0, -17), (11, 5), (-11, 5), (12, -12), (-12, -12), (0, 20), (0, -28))
"""Where a point's label may stand, in points from its middle, best first."""


def save_front_png(snapshot: StudySnapshot, path: Path) -> None:
    """Writes ``front_figure`` to ``path``, 1200 × 750 pixels."""
    front_figure(snapshot).savefig(path, dpi=150, format="png")


def front_figure(snapshot: StudySnapshot) -> Figure:
    """The metric against peak memory, coloured by time on the device.

    Points of the front are filled and labelled with their trial. The step line is the best metric that can be had
    within a given memory; a point of the front below it is there because it is faster. Other complete trials are
    hollow. Light bars are ± one standard error of the metric. The dashed line is what the device can give.

    Returns:
        a figure on an Agg canvas, 8 × 5 inches, without pyplot's global state.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = [trial for trial in snapshot.complete if _drawable(trial)]
    _frame(axes, snapshot)
    if not shown:
        axes.text(0.5, 0.5, "no complete trial yet", ha="center", color=_QUIET, transform=axes.transAxes)
        return figure
    colours, unit = _time_scale(shown)
    scale = _scale(snapshot)
    front = [trial for trial in snapshot.front if _drawable(trial)]
    _set_limits(axes, snapshot, shown, front)
    _draw_others(axes, [trial for trial in shown if not trial.on_front], scale)
    _draw_front(axes, front, scale, colours)
    _draw_budget(axes, snapshot.budget_mib)
    bar = figure.colorbar(colours, ax=axes, pad=0.015, aspect=32)
    bar.set_label(f"time on the device ({unit})")
    bar.outline.set_visible(False)  # type: ignore[operator]
    axes.legend(loc="lower right", frameon=False, fontsize=9, handletextpad=0.6)
    figure.draw_without_rendering()  # the layout must be settled before labels can avoid each other
    _label(axes, front, scale)
    return figure


def _drawable(trial: TrialRecord) -> bool:
    values = (trial.metric, trial.peak_memory_mib, trial.wall_time_s)
    return all(value is not None and math.isfinite(value) for value in values)


def _scale(snapshot: StudySnapshot) -> float:
    return 100.0 if is_percentage(snapshot.metric_name) else 1.0


def _metrics(trials: Iterable[TrialRecord], scale: float) -> list[float]:
    return [scale * (trial.metric or 0.0) for trial in trials]


def _memories(trials: Iterable[TrialRecord]) -> list[float]:
    return [trial.peak_memory_mib or 0.0 for trial in trials]


def _time_unit(trials: Sequence[TrialRecord]) -> tuple[str, float]:
    """Unit in which the longest of the times reads well, and its seconds."""
    longest = max(trial.wall_time_s or 0.0 for trial in trials)
    if longest < 120:
        return "s", 1.0
    return ("min", 60.0) if longest < 7200 else ("h", 3600.0)


def _times(trials: Sequence[TrialRecord], seconds: float) -> list[float]:
    return [(trial.wall_time_s or 0.0) / seconds for trial in trials]


def _time_scale(trials: Sequence[TrialRecord]) -> tuple[ScalarMappable, str]:
    unit, seconds = _time_unit(trials)
    times = _times(trials, seconds)
    low, high = min(times), max(times)
    margin = 0.0 if high > low else 0.05 * high or 1.0
    return ScalarMappable(Normalize(low - margin, high + margin), _MAP), f"{unit}, predicted"


def _axis_titles(snapshot: StudySnapshot) -> tuple[str, str]:
    unit = " (%)" if is_percentage(snapshot.metric_name) else ""
    return "peak memory on the device (MiB, predicted)", f"validation {metric_title(snapshot.metric_name).lower()}{unit}"


def _headline(snapshot: StudySnapshot) -> str:
    job = snapshot.settings.job
    return f"{job.task} · {job.model} · {snapshot.settings.device}"


def _count(snapshot: StudySnapshot) -> str:
    return f"{len(snapshot.front)} of {len(snapshot.complete)} complete trials on the front"


def _frame(axes: Axes, snapshot: StudySnapshot) -> None:
    memory, metric = _axis_titles(snapshot)
    axes.set_xlabel(memory)
    axes.set_ylabel(metric)
    axes.set_title(_headline(snapshot), loc="left", fontweight="bold", fontsize=12)
    axes.set_title(_count(snapshot), loc="right", fontsize=9, color="#5c5c5c")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")
    axes.tick_params(color="#bdbdbd")


def _set_limits(axes: Axes, snapshot: StudySnapshot, shown: list[TrialRecord], front: list[TrialRecord]) -> None:
    """Room for everything, except that trials which learned nothing don't flatten the front: they mark the lower edge."""
    scale = _scale(snapshot)
    metrics, focus = _metrics(shown, scale), _metrics(front or shown, scale)
    error = scale * max((trial.metric_error or 0.0) for trial in shown)
    span = max(max(focus) - min(focus), 4 * error, 1e-3 * scale)
    low, high = max(min(metrics) - error, min(focus) - error - span), max(metrics) + error
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    memories = _memories(shown)
    width = max(max(memories) - min(memories), 0.05 * max(memories))
    right = max(memories) + 0.08 * width
    if max(memories) <= snapshot.budget_mib <= right + width:
        right = snapshot.budget_mib + 0.06 * width
    axes.set_xlim(min(memories) - 0.08 * width, right)


def _draw_others(axes: Axes, trials: list[TrialRecord], scale: float) -> None:
    floor = axes.get_ylim()[0]
    inside = [trial for trial in trials if scale * (trial.metric or 0.0) >= floor]
    below = [trial for trial in trials if scale * (trial.metric or 0.0) < floor]
    style = {"s": 30, "facecolors": "none", "edgecolors": _QUIET, "linewidths": 1.0}
    if inside:
        axes.scatter(_memories(inside), _metrics(inside, scale), label="other trials", zorder=2, **style)
    if below:
        axes.scatter(
            _memories(below), [floor] * len(below), marker="v", label="below the picture", clip_on=False, zorder=2, **style
        )


def _draw_front(axes: Axes, front: list[TrialRecord], scale: float, colours: ScalarMappable, seconds: float) -> None:
    if not front:
        return
    memories, metrics = _memories(front), _metrics(front, scale)
    best = list(accumulate(metrics, max))
    reach, level = [*memories, axes.get_xlim()[1]], [*best, best[-1]]
    axes.step(reach, level, where="post", color="#7d7d7d", linewidth=1.1, zorder=3, label="best within this memory")
    errors = [scale * (trial.metric_error or 0.0) for trial in front]
    axes.errorbar(memories, metrics, yerr=errors, fmt="none", ecolor="#c6c6c6", elinewidth=1.4, zorder=3)
    fill = colours.to_rgba(_times(front, seconds))
    axes.scatter(memories, metrics, c=fill, s=74, edgecolors=_INK, linewidths=0.9, zorder=4, label="front, by trial")


def _draw_budget(axes: Axes, budget_mib: float) -> None:
    """A line where the device's memory ends, or an arrow towards it where that is far to the right."""
    text = f"device gives {human_memory(budget_mib)}"
    left, right = axes.get_xlim()
    if left <= budget_mib <= right:
        axes.axvline(budget_mib, color=_BUDGET, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
        place = {"xy": (budget_mib, 0.98), "xytext": (-5, 0), "ha": "right", "rotation": 90}
    else:
        place = {"xy": (0.995, 1.0), "xycoords": "axes fraction", "xytext": (0, -4), "ha": "right"}
        text = f"{text} →" if budget_mib > right else f"← {text}"
        return _note(axes, text, place)
    place["xycoords"] = axes.get_xaxis_transform()
    return _note(axes, text, place)


def _note(axes: Axes, text: str, place: dict[str, Any]) -> None:
    axes.annotate(text, textcoords="offset points", va="top", color=_BUDGET, fontsize=9, **place)


def _label(axes: Axes, front: list[TrialRecord], scale: float) -> None:
    """Writes each trial's number where it hides no point and no other number; where there is no room, nowhere."""
    points = axes.transData.transform(list(zip(_memories(front), _metrics(front, scale), strict=True)))
    pixels = axes.figure.dpi / 72
    taken = [Bbox.from_bounds(x - 5 * pixels, y - 5 * pixels, 10 * pixels, 10 * pixels) for x, y in points]
    for trial, (x, y) in zip(front, points, strict=True):
        text = str(trial.number)
        for dx, dy in _LABEL_OFFSETS:
            box = Bbox.from_bounds(
                x + (dx - 3.2 * len(text)) * pixels, y + (dy - 1) * pixels, 6.4 * len(text) * pixels, 9 * pixels
            )
            if not box.count_overlaps(taken):
                axes.annotate(
                    text, (x, y), xycoords="figure pixels", xytext=(dx, dy), textcoords="offset points",
                    ha="center", va="bottom", fontsize=9, fontweight="bold", color=_INK, zorder=5,
                )
                taken.append(box)
                break
