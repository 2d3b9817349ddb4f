"""A swept space as a static picture. Uses matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from farsearch.cost.sweep import Sweep
from farsearch.files import write_bytes
from farsearch.formatting import human_memory
from farsearch.report.figure import style_axes
from farsearch.report.points import BUDGET, INK, MEMORY_AXIS
from farsearch.report.section import png

__all__ = ["save_sweep_png", "sweep_figure"]

_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#000000",
    "#999999",
    "#882255",
)
"""Colours of the plans' policies: Okabe and Ito's, safe for colour-blind readers (Color Universal Design, 2008), and
two more."""
_MARKERS = "sD^PvXo*<>"
"""Markers of full fine-tuning under each of them."""
_SHORT_LABEL = 36
"""Characters of a label with which three columns of the legend fit the width."""
_LEGEND_ROW = 0.04
"""Height of a row of the legend, as a share of the figure's."""
_LOOSE, _SURE = "#f3d9d6", "#fbeeec"


def save_sweep_png(sweep: Sweep, title: str, span: str, path: Path) -> None:
    """Write ``sweep_figure`` to ``path``, 1200 × 750 pixels."""
    write_bytes(path, png(sweep_figure(sweep, title, span), dpi=150))


def sweep_figure(sweep: Sweep, title: str, span: str) -> Figure:
    """Draw peak memory against time of every configuration, coloured by plan; ``span`` names the priced work.

    The line is the front over all plans, the larger markers are full fine-tuning under each plan. The shaded part does
    not fit; its darker part is the uncertainty of the available memory.

    Returns:
        a figure on an Agg canvas, 8 × 5 inches, without pyplot's global state.
    """
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))  # its place follows from the legend
    times = np.concatenate([sweep.wall_time_s.ravel(), [cost.wall_time_s for cost in sweep.full]])
    unit, seconds = next((u for u in (("h", 3600.0), ("min", 60.0)) if times.max() >= 2 * u[1]), ("s", 1.0))
    handles: list[Artist] = [*_draw_plans(axes, sweep, seconds)]
    front = sweep.front()
    places = [(sweep.peak_memory_mib[at], sweep.wall_time_s[at] / seconds) for at in front]
    line: dict[str, Any] = {"color": INK, "linewidth": 1.3, "marker": "o", "markersize": 4, "zorder": 4}
    axes.plot(*zip(*places, strict=True), drawstyle="steps-post", **line)
    hollow: dict[str, Any] = {"marker": "o", "color": "white", "markeredgecolor": INK, "linestyle": "none"}
    handles.append(Line2D([], [], label="large marker: full fine-tuning", markersize=7, **hollow))
    handles.append(Line2D([], [], label="nothing takes less of both", **line))
    handles += _draw_device(axes, sweep)
    _frame(axes, title, span, unit)
    columns = 3 if max(len(str(handle.get_label())) for handle in handles) <= _SHORT_LABEL else 2
    bottom = 0.12 + _LEGEND_ROW * -(-len(handles) // columns)
    axes.set_position((0.085, bottom, 0.895, 0.92 - bottom))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.075, 0.0), ncols=columns, frameon=False, fontsize=9,
        columnspacing=1.6,
    )  # fmt: skip
    return figure


def _draw_plans(axes: Axes, sweep: Sweep, seconds: float) -> list[Line2D]:
    """Draw the configurations and full fine-tuning; return the handles of the plans."""
    handles: list[Line2D] = []
    policies = list(dict.fromkeys(plan.summary for plan in sweep.plans))
    for plan, prices, full in zip(sweep.plans, sweep.prices, sweep.full, strict=True):
        which = policies.index(plan.summary)
        colour, marker = _COLOURS[which], _MARKERS[which]
        dots: dict[str, Any] = {"s": 4, "linewidths": 0, "alpha": 0.35, "color": colour, "zorder": 2}
        axes.scatter(prices.peak_memory_mib, prices.wall_time_s / seconds, **dots)
        style: dict[str, Any] = {"marker": marker, "color": colour, "markeredgecolor": INK, "linestyle": "none"}
        axes.plot(full.peak_memory_mib, full.wall_time_s / seconds, markersize=8, zorder=5, **style)
        if which == len(handles):  # plans of the same policy differ only in their optimizer's step
            label = "ordinary modules" if plan.summary == "modules" else plan.summary
            handles.append(Line2D([], [], label=label, markersize=7, **style))
    return handles


def _draw_device(axes: Axes, sweep: Sweep) -> list[Patch]:
    """Shade the infeasible part where it is near; else draw an arrow towards it."""
    memories = np.concatenate([sweep.peak_memory_mib.ravel(), [cost.peak_memory_mib for cost in sweep.full]])
    low, high = sweep.available_range_mib
    width = max(np.ptp(memories), 0.05 * memories.max())
    left, right = memories.min() - 0.05 * width, memories.max() + 0.05 * width
    if left - width <= sweep.budget_mib <= right + width:
        left, right = min(left, sweep.budget_mib - 0.1 * width), max(right, sweep.budget_mib + 0.1 * width)
    axes.set_xlim(left, right)
    handles = []
    if sweep.budget_mib < right:
        axes.axvspan(sweep.budget_mib, right + width, color=_SURE, linewidth=0, zorder=0)
        handles.append(Patch(color=_SURE, label="does not surely fit"))
    if low < right and high > left:
        axes.axvspan(low, high, color=_LOOSE, linewidth=0, zorder=0.5)
        handles.append(Patch(color=_LOOSE, label=f"the device has {low:,.0f} to {human_memory(high)}"))
    if left <= sweep.budget_mib <= right:
        axes.axvline(sweep.budget_mib, color=BUDGET, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
    else:
        far, side, place = sweep.budget_mib > right, "right", 1.0
        if not far:
            side, place = "left", 0.0
        text = f"fits up to {human_memory(sweep.budget_mib)}"
        axes.annotate(
            f"{text} →" if far else f"← {text}", (place, 1.0), (0, 4), xycoords="axes fraction",
            textcoords="offset points", ha=side, va="bottom", color=BUDGET, fontsize=9,
        )  # fmt: skip
    return handles


def _frame(axes: Axes, title: str, span: str, unit: str) -> None:
    axes.set_xlabel(MEMORY_AXIS)
    axes.set_ylabel(f"time of {span} ({unit}, predicted)")
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11, pad=18)
    style_axes(axes)
