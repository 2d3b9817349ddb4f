"""Pictures of a study: its front as a PNG and as an interactive page. The only home of matplotlib and plotly."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
_QUIET, _LINE, _INK, _BUDGET = "#9f9f9f", "#7d7d7d", "#262626", "#b3413a"
_LABEL_OFFSETS = ((4, 5), (-4, 5), (4, -14), (-4, -14), (8, -4), (-8, -4), (0, 14), (0, -22))
"""Where a point's label may stand, in points from its middle, best first."""


@dataclass(frozen=True)
class _Points:
    """The trials that a picture shows, in its units.

    Attributes:
        scale: the metric's factor, 100 for per cent.
        unit, seconds: of time on the device.
    """

    front: tuple[TrialRecord, ...]
    others: tuple[TrialRecord, ...]
    scale: float
    unit: str
    seconds: float

    @property
    def all(self) -> tuple[TrialRecord, ...]:
        return self.front + self.others

    def metrics(self, trials: Iterable[TrialRecord]) -> list[float]:
        return [self.scale * (trial.metric or 0.0) for trial in trials]

    def errors(self, trials: Iterable[TrialRecord]) -> list[float]:
        return [self.scale * (trial.metric_error or 0.0) for trial in trials]

    def memories(self, trials: Iterable[TrialRecord]) -> list[float]:
        return [trial.peak_memory_mib or 0.0 for trial in trials]

    def times(self, trials: Iterable[TrialRecord]) -> list[float]:
        return [(trial.wall_time_s or 0.0) / self.seconds for trial in trials]

    def time_range(self) -> tuple[float, float]:
        """Of the colours, never empty."""
        times = self.times(self.all)
        margin = 0.0 if max(times) > min(times) else 0.05 * max(times) or 1.0
        return min(times) - margin, max(times) + margin


def _points(snapshot: StudySnapshot) -> _Points:
    shown = [trial for trial in snapshot.complete if _drawable(trial)]
    longest = max((trial.wall_time_s or 0.0 for trial in shown), default=0.0)
    unit, seconds = ("s", 1.0) if longest < 120 else ("min", 60.0) if longest < 7200 else ("h", 3600.0)
    return _Points(
        front=tuple(trial for trial in snapshot.front if _drawable(trial)),
        others=tuple(trial for trial in shown if not trial.on_front),
        scale=100.0 if is_percentage(snapshot.metric_name) else 1.0,
        unit=unit,
        seconds=seconds,
    )


def _drawable(trial: TrialRecord) -> bool:
    values = (trial.metric, trial.peak_memory_mib, trial.wall_time_s)
    return all(value is not None and math.isfinite(value) for value in values)


def _headline(snapshot: StudySnapshot) -> str:
    job = snapshot.settings.job
    return f"{job.task} · {job.model} · {snapshot.settings.device}"


def _count(snapshot: StudySnapshot) -> str:
    return f"{len(snapshot.front)} of {len(snapshot.complete)} complete trials on the front"


def _metric_axis(snapshot: StudySnapshot) -> str:
    unit = " (%)" if is_percentage(snapshot.metric_name) else ""
    return f"validation {metric_title(snapshot.metric_name).lower()}{unit}"


_MEMORY_AXIS = "peak memory on the device (MiB, predicted)"


def save_front_png(snapshot: StudySnapshot, path: Path) -> None:
    """Writes ``front_figure`` to ``path``, 1200 × 750 pixels."""
    front_figure(snapshot).savefig(path, dpi=150, format="png")


def front_figure(snapshot: StudySnapshot) -> Figure:
    """The metric against peak memory, coloured by time on the device.

    Points of the front are filled and labelled with their trial. The step line is the best metric that can be had
    within a given memory; a point of the front below it is there because it is faster. Other complete trials are
    hollow, crosses where they do not fit. Light bars are ± one standard error of the metric. The dashed line is what the device can give. What lies
    far below the rest stands as a triangle on the lower edge.

    Returns:
        a figure on an Agg canvas, 8 × 5 inches, without pyplot's global state.
    """
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    # Fixed places are three times faster than a layout engine, and a mirror draws this after every trial.
    axes = figure.add_axes((0.085, 0.175, 0.79, 0.755))
    points = _points(snapshot)
    _frame(axes, snapshot)
    if not points.all:
        axes.text(0.5, 0.5, "no complete trial yet", ha="center", color=_QUIET, transform=axes.transAxes)
        return figure
    colours = ScalarMappable(Normalize(*points.time_range()), _MAP)
    _set_limits(axes, snapshot.budget_mib, points)
    if points.front:
        _draw_front(axes, points, colours, snapshot.budget_mib)
    _draw_others(axes, points)
    _draw_budget(axes, snapshot.budget_mib)
    _label(axes, points, figure.dpi / 72)
    bar = figure.colorbar(colours, cax=figure.add_axes((0.895, 0.175, 0.02, 0.755)))
    bar.set_label(f"time on the device ({points.unit}, predicted)")
    bar.ax.spines[:].set_visible(False)
    figure.legend(loc="lower left", bbox_to_anchor=(0.075, 0.0), ncols=4, frameon=False, fontsize=9, columnspacing=1.6)
    return figure


def _frame(axes: Axes, snapshot: StudySnapshot) -> None:
    axes.set_xlabel(_MEMORY_AXIS)
    axes.set_ylabel(_metric_axis(snapshot))
    axes.set_title(_headline(snapshot), loc="left", fontweight="bold", fontsize=12)
    axes.set_title(_count(snapshot), loc="right", fontsize=9, color="#5c5c5c")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")
    axes.tick_params(color="#bdbdbd")


def _set_limits(axes: Axes, budget_mib: float, points: _Points) -> None:
    """Room for everything but what lies so far below the front's middle that it would flatten the rest."""
    metrics, focus = points.metrics(points.all), points.metrics(points.front or points.all)
    error = max(points.errors(points.all))
    middle, top = statistics.median(focus), max(metrics)
    reach = max(top - middle, 2 * error, 1e-3 * points.scale)
    low, high = min(metric for metric in metrics if metric >= middle - 3 * reach) - error, top + error
    axes.set_ylim(low - 0.06 * (high - low), high + 0.12 * (high - low))
    memories = points.memories(points.all)
    width = max(max(memories) - min(memories), 0.05 * max(memories))
    right = max(memories) + 0.06 * width
    if max(memories) <= budget_mib <= right + width:
        right = budget_mib + 0.04 * width
    axes.set_xlim(min(memories) - 0.06 * width, right)


def _split(axes: Axes, trials: Sequence[TrialRecord], points: _Points) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Trials inside the picture and trials below it."""
    floor = axes.get_ylim()[0]
    low = [metric < floor for metric in points.metrics(trials)]
    inside = [trial for trial, below in zip(trials, low, strict=True) if not below]
    return inside, [trial for trial, below in zip(trials, low, strict=True) if below]


def _draw_others(axes: Axes, points: _Points) -> None:
    fitting = [trial for trial in points.others if trial.feasible is not False]
    too_large = [trial for trial in points.others if trial.feasible is False]
    ring: dict[str, Any] = {"marker": "o", "facecolors": "none", "edgecolors": _QUIET}
    cross: dict[str, Any] = {"marker": "x", "color": _QUIET}
    for trials, label, mark in ((fitting, "other trials", ring), (too_large, "does not fit", cross)):
        inside, below = _split(axes, trials, points)
        style: dict[str, Any] = {**mark, "s": 30, "linewidths": 1.0, "zorder": 2}
        if inside:
            axes.scatter(points.memories(inside), points.metrics(inside), label=label, **style)
        if below:
            edge = [axes.get_ylim()[0]] * len(below)
            axes.scatter(points.memories(below), edge, clip_on=False, **{**style, "marker": "v"})


def _draw_front(axes: Axes, points: _Points, colours: ScalarMappable, budget_mib: float) -> None:
    inside, below = _split(axes, points.front, points)
    style: dict[str, Any] = {"edgecolors": _INK, "linewidths": 0.9, "zorder": 4}
    if inside:
        memories, metrics = points.memories(inside), points.metrics(inside)
        fill = colours.to_rgba(points.times(inside))
        axes.scatter(memories, metrics, c=fill, s=76, label="front, by trial", **style)
        best = list(accumulate(metrics, max))
        end = max(min(axes.get_xlim()[1], budget_mib), memories[-1])
        reach, level = [*memories, end], [*best, best[-1]]
        axes.step(reach, level, where="post", color=_LINE, linewidth=1.1, zorder=3, label="best within this memory")
        errors = points.errors(inside)
        axes.errorbar(memories, metrics, yerr=errors, fmt="none", ecolor="#cdcdcd", elinewidth=1.4, zorder=2)
    if below:
        fill, edge = colours.to_rgba(points.times(below)), [axes.get_ylim()[0]] * len(below)
        axes.scatter(points.memories(below), edge, c=fill, s=76, marker="v", clip_on=False, **style)


def _draw_budget(axes: Axes, budget_mib: float) -> None:
    """A line where the device's memory ends, or an arrow towards it where it ends far outside."""
    left, right = axes.get_xlim()
    text = f"device gives at least {human_memory(budget_mib)}"
    style: dict[str, Any] = {"textcoords": "offset points", "va": "top", "color": _BUDGET, "fontsize": 9}
    if left <= budget_mib <= right:
        axes.axvline(budget_mib, color=_BUDGET, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
        place, x = (budget_mib, 1.0), axes.get_xaxis_transform()
        side, offset = ("right", -5) if budget_mib > (left + right) / 2 else ("left", 5)
        axes.annotate(text, place, (offset, -2), xycoords=x, ha=side, **style)
    elif budget_mib > right:
        axes.annotate(f"{text} →", (1.0, 1.0), (-2, -2), xycoords="axes fraction", ha="right", **style)
    else:
        axes.annotate(f"← {text}", (0.0, 1.0), (4, -2), xycoords="axes fraction", ha="left", **style)


def _label(axes: Axes, points: _Points, pixels: float) -> None:
    """Writes each trial's number where it hides no point and no other number; where there is no room, nowhere."""
    floor = axes.get_ylim()[0]
    metrics = points.metrics(points.front)
    places = [(x, max(y, floor)) for x, y in zip(points.memories(points.front), metrics, strict=True)]
    middles = axes.transData.transform(places) if places else []
    taken = [Bbox.from_bounds(x - 4.5 * pixels, y - 4.5 * pixels, 9 * pixels, 9 * pixels) for x, y in middles]
    for trial, metric, place, (x, y) in zip(points.front, metrics, places, middles, strict=True):
        text = str(trial.number) if metric >= floor else f"{trial.number} ({metric:.3g})"
        width = 6.4 * len(text) * pixels
        for dx, dy in _LABEL_OFFSETS:
            left = x + dx * pixels - (width if dx < 0 else 0 if dx > 0 else width / 2)
            box = Bbox.from_bounds(left, y + dy * pixels, width, 9 * pixels)
            if box.count_overlaps(taken) == 0:
                side = "right" if dx < 0 else "left" if dx > 0 else "center"
                style: dict[str, Any] = {"ha": side, "fontsize": 9, "fontweight": "bold", "color": _INK, "zorder": 5}
                axes.annotate(text, place, (dx, dy), textcoords="offset points", **style)
                taken.append(box)
                break


def front_html(snapshot: StudySnapshot) -> str:
    """The front as one page that needs no network: the picture with two views, against memory and against time, and its table.

    About 5 MB, nearly all of it plotly's script.
    """
    points = _points(snapshot)
    shown = _interactive(snapshot, points) if points.all else "<p>No complete trial yet.</p>"
    title = html.escape(_headline(snapshot))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1><p>{html.escape(_count(snapshot))}</p>\n{shown}\n{_html_table(snapshot)}</body></html>\n"
    )


_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;color:#262626;margin:1.2em auto;max-width:1000px;padding:0 1em}"
    "h1{font-size:1.25em;margin:0}p{margin:.2em 0 .8em;color:#5c5c5c}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "th,td{text-align:right;padding:.25em .8em;border-bottom:1px solid #e4e4e4}th{font-weight:600}"
)


def _html_table(snapshot: StudySnapshot) -> str:
    rows = front_rows(snapshot)
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row.values())}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _interactive(snapshot: StudySnapshot, points: _Points) -> str:
    memory, time = _view(snapshot, points, "memory"), _view(snapshot, points, "time")
    buttons = [
        {"label": f"against {name}", "method": "update", "args": [view["data"], view["layout"]]}
        for name, view in (("memory", memory), ("time", time))
    ]
    layout = {
        **{key: value for key, value in memory["layout"].items() if key != "xaxis.title.text"},
        "xaxis": {"title": {"text": _MEMORY_AXIS}, "gridcolor": "#ececec", "zeroline": False},
        "yaxis": {"title": {"text": _metric_axis(snapshot)}, "gridcolor": "#ececec", "zeroline": False},
        "legend": {"orientation": "h", "y": -0.2},
        "margin": {"t": 50, "r": 10},
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "updatemenus": [{"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.14, "buttons": buttons}],
    }
    traces = _traces(snapshot, points)
    for i, trace in enumerate(traces):
        trace |= {key: values[i] for key, values in memory["data"].items()}
    figure = {"data": traces, "layout": layout}
    config = {"responsive": True, "displaylogo": False}
    page: str = plotly.io.to_html(
        figure, config, full_html=False, include_plotlyjs=True, default_height="560px", validate=False, div_id="front"
    )
    return page


def _traces(snapshot: StudySnapshot, points: _Points) -> list[dict[str, Any]]:
    """The line, the other trials and the front, without their coordinates, which depend on the view."""
    low, high = points.time_range()
    bar = {"title": {"text": f"time ({points.unit})"}, "thickness": 14, "outlinewidth": 0}
    front_marker = {
        "size": 13,
        "color": points.times(points.front),
        "cmin": low,
        "cmax": high,
        "colorscale": _MAP.capitalize(),
        "colorbar": bar,
        "line": {"color": _INK, "width": 1},
    }
    hover = {"hovertemplate": "%{customdata}<extra></extra>"}
    errors = {"type": "data", "array": points.errors(points.front), "color": "#c4c4c4", "thickness": 1.4, "width": 0}
    return [
        {"type": "scatter", "mode": "lines", "name": "best within this", "line": {"shape": "hv", "color": _LINE}, "hoverinfo": "skip"},
        {
            "type": "scatter",
            "mode": "markers",
            "name": "other trials",
            "marker": {"symbol": "circle-open", "color": _QUIET, "size": 8},
            "customdata": [_hover(snapshot, trial) for trial in points.others],
            **hover,
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "front, by trial",
            "marker": front_marker,
            "text": [str(trial.number) for trial in points.front],
            "textposition": "top center",
            "error_y": errors,
            "customdata": [_hover(snapshot, trial) for trial in points.front],
            **hover,
        },
    ]


def _view(snapshot: StudySnapshot, points: _Points, against: str) -> dict[str, dict[str, Any]]:
    """Coordinates of the three traces and what changes in the layout."""
    values = points.memories if against == "memory" else points.times
    ordered: Sequence[TrialRecord] = sorted(points.front, key=lambda trial: values([trial])[0])
    best = list(accumulate(points.metrics(ordered), max))
    budget = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": _BUDGET, "dash": "dash"}}
    near = snapshot.budget_mib <= 2 * max(points.memories(points.all))
    title = _MEMORY_AXIS if against == "memory" else f"time on the device ({points.unit}, predicted)"
    return {
        "data": {
            "x": [values(ordered), values(points.others), values(points.front)],
            "y": [best, points.metrics(points.others), points.metrics(points.front)],
        },
        "layout": {
            "xaxis.title.text": title,
            "shapes": [{**budget, "x0": snapshot.budget_mib, "x1": snapshot.budget_mib}] if against == "memory" and near else [],
        },
    }


def _hover(snapshot: StudySnapshot, trial: TrialRecord) -> str:
    lines = [
        f"<b>trial {trial.number}</b>",
        human_metric(snapshot.metric_name, trial.metric, trial.metric_error),
        f"{human_memory(trial.peak_memory_mib)}, {human_time(trial.wall_time_s)}",
    ]
    if trial.config is not None:
        fractions = " ".join(f"{fraction:.2f}" for fraction in trial.config.canonical().frozen_fractions)
        lines += [f"frozen by layer: {fractions}", f"mean {100 * mean_frozen(trial.config):.0f} %, learning rate {trial.config.learning_rate:.2g}"]
    return "<br>".join(lines)
