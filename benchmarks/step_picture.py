"""The picture of far_step: peak memory against time, each variant by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from benchmarks.step_report import Report, Result, tables
from benchmarks.step_variants import VARIANTS, Family

__all__ = ["COLOURS", "DOTS", "Marker", "name_markers", "save_picture", "step_figure", "styled"]

COLOURS: dict[Family, str] = {
    "full fine-tuning": "#262626",
    "FAR, ordinary modules": "#e69f00",
    "FAR": "#0072b2",
    "FAR, more frozen": "#009e73",
    "other methods": "#cc79a7",
}
"""Okabe and Ito's, safe for colour-blind eyes."""
DOTS: dict[str, Any] = {"s": 48, "edgecolors": "white", "linewidths": 0.8, "zorder": 3}
"""Of a marker."""
_FAMILIES = {variant.name: variant.family for variant in VARIANTS}
_DISTANCES = (7, 16, 28, 42, 58)
"""Offsets of a name from its marker, in points, nearest first."""


class Marker(NamedTuple):
    """A point of a picture."""

    x: float
    y: float
    name: str
    colour: str


def save_picture(report: Report, path: Path) -> None:
    """Write ``step_figure`` to ``path``, 1350 × 900 pixels."""
    step_figure(report).savefig(path, dpi=150, format="png")


def step_figure(report: Report) -> Figure:
    """Draw peak and time as ratios to full fine-tuning, at the first length of the report.

    Nearer to the lower left corner is better. The ablation is left to the table.
    """
    length = report.results[0].seq
    results = [result for result in report.results if result.seq == length and result.variant in _FAMILIES]
    figure = Figure(figsize=(9, 6), dpi=150)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.08, 0.16, 0.89, 0.75))
    title, machine = tables(report)[0][0].split("\n")
    axes.set_title(f"{title}\n", loc="left", fontsize=9.5, fontweight="bold")
    axes.text(0, 1.025, machine, transform=axes.transAxes, fontsize=9, color="#5c5c5c")
    axes.set_xlabel("peak of all tensors, ratio to full fine-tuning")
    axes.set_ylabel("time of a step, ratio to full fine-tuning")
    styled(axes)
    for family, colour in COLOURS.items():
        own = [result for result in results if _FAMILIES[result.variant] == family]
        if own:
            peaks, times = [result.peak_ratio for result in own], [result.time_ratio for result in own]
            axes.scatter(peaks, times, color=colour, label=family, **DOTS)
    figure.legend(loc="lower left", bbox_to_anchor=(0.07, 0.0), ncols=len(COLOURS), frameon=False, fontsize=9)
    canvas.draw()  # type: ignore[no-untyped-call]  # sets the limits
    name_markers(axes, [_marker(result) for result in results], canvas)
    return figure


def _marker(result: Result) -> Marker:
    return Marker(result.peak_ratio, result.time_ratio, result.variant, COLOURS[_FAMILIES[result.variant]])


def styled(axes: Axes) -> None:
    """Set what all pictures have in common."""
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.1)


def name_markers(axes: Axes, markers: Sequence[Marker], canvas: FigureCanvasAgg) -> None:
    """Place each name near its marker without hiding markers or other names."""
    scale = axes.figure.dpi / 72
    places = axes.transData.transform([(marker.x, marker.y) for marker in markers])
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in places]
    for marker in markers:
        for distance, turn in ((distance, turn) for distance in _DISTANCES for turn in range(12)):
            dx, dy = distance * math.cos(turn * math.pi / 6), distance * math.sin(turn * math.pi / 6)
            side = "left" if dx > 1 else "right" if dx < -1 else "center"
            name = axes.annotate(
                marker.name, (marker.x, marker.y), (dx, dy), textcoords="offset points", ha=side, va="center",
                fontsize=9, color=marker.colour, zorder=4,
                arrowprops=(
                    {"arrowstyle": "-", "color": marker.colour, "linewidth": 0.6} if distance > _DISTANCES[0] else None
                ),
            )  # fmt: skip
            name.update_positions(canvas.get_renderer())  # type: ignore[no-untyped-call]
            box = Text.get_window_extent(name)  # that of an annotation includes its line
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.figure.bbox.x1 and axes.bbox.y0 <= box.y0
            if (inside and box.count_overlaps(taken) == 0) or (distance, turn) == (_DISTANCES[-1], 11):
                taken.append(box)
                break
            name.remove()
