"""The front as a static picture. Uses matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from farsearch.files import write_bytes
from farsearch.formatting import human_memory
from farsearch.records import CompleteTrial, StudySnapshot
from farsearch.report.display import DisplayedFigure
from farsearch.report.points import (
    BESIDE,
    BUDGET,
    INK,
    LINE,
    MEMORY_AXIS,
    QUIET,
    Points,
    count,
    headline,
    metric_axis,
    metric_limits,
    points_of,
)
from farsearch.report.section import name_of, png

__all__ = ["front_figure", "save_front_png", "style_axes"]

_COLOURS = "cividis_r"
"""Perceptually uniform and safe for colour-blind readers; dark is slow."""
_LABEL_OFFSETS = ((4, 5), (-4, 5), (4, -14), (-4, -14), (8, -4), (-8, -4), (0, 14), (0, -22))
"""Positions of a point's label, in points from its centre, best first."""
_BASELINES = "sD^Pp*hX"
"""Markers of the baselines, in their order."""


def save_front_png(snapshot: StudySnapshot, path: Path) -> None:
    """Write ``front_figure`` to ``path``, 1200 × 750 pixels."""
    write_bytes(path, png(front_figure(snapshot), dpi=150))


def front_figure(snapshot: StudySnapshot) -> DisplayedFigure:
    """Draw the metric against peak memory, coloured by time on the device.

    Points of the front are filled and labelled with their trial. The step line is the best metric within a given
    memory; a point of the front below it is faster. Other complete trials are hollow, crosses where they do not fit.
    Baselines have markers of their own and a second legend. Light bars are ± one standard error of the metric, from
    the draw of the rows. The dashed line is the limit of the device's memory. Outliers far below the rest are
    triangles on the lower edge.

    Returns:
        a figure on an Agg canvas, 8 × 5 inches, without pyplot's global state.
    """
    figure = DisplayedFigure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    # Fixed margins are three times faster than a layout engine, and a mirror draws this after every trial.
    axes = figure.add_axes((0.085, 0.175, 0.79, 0.755))
    points = points_of(snapshot)
    _frame(axes, snapshot)
    if not points.all:
        axes.text(0.5, 0.5, "no complete trial yet", ha="center", color=QUIET, transform=axes.transAxes)
        return figure
    colours = ScalarMappable(Normalize(*points.time_range()), _COLOURS)
    _set_limits(axes, snapshot.budget_mib, points)
    if points.front:
        _draw_front(axes, points, colours, snapshot.budget_mib)
    _draw_others(axes, points)
    _draw_baselines(axes, points, colours)
    _draw_budget(axes, snapshot.budget_mib)
    _draw_constant(axes, points)
    _label(axes, points, figure.dpi / 72)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.895, 0.175, 0.02, 0.755)))
    bar.set_label(f"time on the device ({points.unit}, predicted)")
    bar.ax.spines[:].set_visible(False)
    if points.front or points.others:
        figure.legend(
            loc="lower left", bbox_to_anchor=(0.075, 0.0), ncols=4, frameon=False, fontsize=9, columnspacing=1.6
        )
    return figure


def _frame(axes: Axes, snapshot: StudySnapshot) -> None:
    axes.set_xlabel(MEMORY_AXIS)
    axes.set_ylabel(f"{metric_axis(snapshot)}, bars: error of the rows")
    axes.set_title(headline(snapshot), loc="left", fontweight="bold", fontsize=12)
    axes.set_title(count(snapshot), loc="right", fontsize=9, color="#5c5c5c")
    style_axes(axes)


def style_axes(axes: Axes) -> None:
    """Style axes with few lines and whole MiB on the horizontal axis."""
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")
    axes.tick_params(color="#bdbdbd")


def _set_limits(axes: Axes, budget_mib: float, points: Points) -> None:
    """Set limits for all points but outliers far below, and for the budget's line where it is near."""
    axes.set_ylim(*metric_limits(points))
    memories = points.memories(points.all)
    width = max(max(memories) - min(memories), 0.05 * max(memories))
    right = max(memories) + 0.06 * width
    if max(memories) <= budget_mib <= right + width:
        right = budget_mib + 0.04 * width
    axes.set_xlim(min(memories) - 0.06 * width, right)


def _split(
    axes: Axes, trials: Sequence[CompleteTrial], points: Points
) -> tuple[list[CompleteTrial], list[CompleteTrial]]:
    """Return the trials inside the picture and those below it."""
    floor = axes.get_ylim()[0]
    low = [metric < floor for metric in points.metrics(trials)]
    inside = [trial for trial, below in zip(trials, low, strict=True) if not below]
    return inside, [trial for trial, below in zip(trials, low, strict=True) if below]


def _draw_others(axes: Axes, points: Points) -> None:
    fitting = [trial for trial in points.others if trial.cost.feasible is not False]
    too_large = [trial for trial in points.others if trial.cost.feasible is False]
    ring: dict[str, Any] = {"marker": "o", "facecolors": "none", "edgecolors": QUIET}
    cross: dict[str, Any] = {"marker": "x", "color": QUIET}
    for trials, label, mark in ((fitting, "other trials", ring), (too_large, "does not fit", cross)):
        inside, below = _split(axes, trials, points)
        style: dict[str, Any] = {**mark, "s": 30, "linewidths": 1.0, "zorder": 2}
        if inside:
            axes.scatter(points.memories(inside), points.metrics(inside), label=label, **style)
        if below:
            edge = [axes.get_ylim()[0]] * len(below)
            axes.scatter(points.memories(below), edge, clip_on=False, **{**style, "marker": "v"})


def _draw_front(axes: Axes, points: Points, colours: ScalarMappable, budget_mib: float) -> None:
    inside, below = _split(axes, points.front, points)
    style: dict[str, Any] = {"edgecolors": INK, "linewidths": 0.9, "zorder": 4}
    if inside:
        memories, metrics = points.memories(inside), points.metrics(inside)
        fill = colours.to_rgba(np.array(points.times(inside)))
        axes.scatter(memories, metrics, c=fill, s=76, label="front, by trial", **style)
        best = list(accumulate(metrics, max))
        end = max(min(axes.get_xlim()[1], budget_mib), memories[-1])
        reach, level = [*memories, end], [*best, best[-1]]
        axes.step(reach, level, where="post", color=LINE, linewidth=1.1, zorder=3, label="best within this memory")
        errors = points.errors(inside)
        axes.errorbar(memories, metrics, yerr=errors, fmt="none", ecolor="#cdcdcd", elinewidth=1.4, zorder=2)
    if below:
        fill, edge = colours.to_rgba(np.array(points.times(below))), [axes.get_ylim()[0]] * len(below)
        axes.scatter(points.memories(below), edge, c=fill, s=76, marker="v", clip_on=False, **style)


def _draw_baselines(axes: Axes, points: Points, colours: ScalarMappable) -> None:
    """Draw each baseline with its own marker, coloured by time, and a legend inside the axes."""
    floor, handles = axes.get_ylim()[0], []
    for trial, marker in zip(points.baselines, cycle(_BASELINES), strict=False):
        (metric,), fill = points.metrics([trial]), colours.to_rgba(np.array(points.times([trial])))
        style: dict[str, Any] = {"edgecolors": BESIDE, "linewidths": 1.4, "zorder": 4, "clip_on": metric >= floor}
        axes.scatter(points.memories([trial]), [max(metric, floor)], c=fill, s=60, marker=marker, **style)
        title = name_of(trial)
        below = f" ({metric:.3g})" if metric < floor else ""
        empty: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markeredgecolor": BESIDE}
        handles.append(Line2D([], [], marker=marker, label=title + below, markersize=7, markeredgewidth=1.4, **empty))
    if handles:
        axes.legend(
            handles=handles, loc="lower right", title="compared with", title_fontsize=9, fontsize=9, frameon=True,
            framealpha=0.85, edgecolor="#dddddd", labelspacing=0.35,
        )  # fmt: skip


def _draw_budget(axes: Axes, budget_mib: float) -> None:
    """Draw the limit of the device's memory as a line, or an arrow towards it where it is far outside."""
    left, right = axes.get_xlim()
    text = f"device gives at least {human_memory(budget_mib)}"
    style: dict[str, Any] = {"textcoords": "offset points", "va": "top", "color": BUDGET, "fontsize": 9}
    if left <= budget_mib <= right:
        axes.axvline(budget_mib, color=BUDGET, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
        axes.axvspan(budget_mib, right, color=BUDGET, alpha=0.07, linewidth=0, zorder=0)
        place, x = (budget_mib, 1.0), axes.get_xaxis_transform()
        side, offset = ("right", -5) if budget_mib > (left + right) / 2 else ("left", 5)
        axes.annotate(text, place, (offset, -2), xycoords=x, ha=side, **style)
    elif budget_mib > right:
        axes.annotate(f"{text} →", (1.0, 1.0), (-2, -2), xycoords="axes fraction", ha="right", **style)
    else:
        axes.annotate(f"← {text}", (0.0, 1.0), (4, -2), xycoords="axes fraction", ha="left", **style)


def _draw_constant(axes: Axes, points: Points) -> None:
    """Draw the score of a constant answer as a line, or an arrow towards it where it is outside."""
    if points.constant is None:
        return
    low, high = axes.get_ylim()
    text = f"constant answer {points.constant:.3g}"
    style: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "color": QUIET, "fontsize": 9}
    if low <= points.constant <= high:
        axes.axhline(points.constant, color=QUIET, linestyle=(0, (1, 3)), linewidth=1.2, zorder=1)
        axes.annotate(text, (0.0, points.constant), (4, 2), xycoords=axes.get_yaxis_transform(), **style)
    else:
        arrow = "↑" if points.constant > high else "↓"
        axes.annotate(f"{text} {arrow}", (0.0, 0.0), (4, 2), xycoords="axes fraction", **style)


def _label(axes: Axes, points: Points, pixels: float) -> None:
    """Write each trial's number where it covers no point and no other number; omit it without such a place."""
    floor = axes.get_ylim()[0]
    metrics = points.metrics(points.front)
    places = [(x, max(y, floor)) for x, y in zip(points.memories(points.front), metrics, strict=True)]
    middles = axes.transData.transform(np.reshape(places, (-1, 2)))
    taken = [Bbox.from_bounds(x - 4.5 * pixels, y - 4.5 * pixels, 9 * pixels, 9 * pixels) for x, y in middles]
    for trial, metric, place, (x, y) in zip(points.front, metrics, places, middles, strict=True):
        text = str(trial.number) if metric >= floor else f"{trial.number} ({metric:.3g})"
        width = 6.4 * len(text) * pixels
        for dx, dy in _LABEL_OFFSETS:
            left = x + dx * pixels - (width if dx < 0 else 0 if dx > 0 else width / 2)
            box = Bbox.from_bounds(left, y + dy * pixels, width, 9 * pixels)
            if box.count_overlaps(taken) == 0:
                side = "right" if dx < 0 else "left" if dx > 0 else "center"
                style: dict[str, Any] = {"ha": side, "fontsize": 9, "fontweight": "bold", "color": INK, "zorder": 5}
                axes.annotate(text, place, (dx, dy), textcoords="offset points", **style)
                taken.append(box)
                break
