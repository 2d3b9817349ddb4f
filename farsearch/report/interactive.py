"""The front as an interactive picture. Uses plotly."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle
from typing import Any

import plotly.io

from farsearch.formatting import human_memory, human_metric, human_time, mean_frozen
from farsearch.records import CompleteTrial, StudySnapshot, Trial
from farsearch.report.points import (
    BESIDE,
    BUDGET,
    INK,
    LINE,
    MEMORY_AXIS,
    QUIET,
    Points,
    metric_axis,
    metric_limits,
)
from farsearch.report.section import name_of

__all__ = ["front_picture"]

_BASELINES = ("square", "diamond", "triangle-up", "cross", "pentagon", "star", "hexagon", "x")
"""Symbols of the baselines, in their order: those of the static picture."""


_BAR = {
    "orientation": "h", "x": 0, "xanchor": "left", "xpad": 0, "y": 1.01, "yanchor": "bottom", "len": 0.8, "ypad": 0,
    "thickness": 9, "outlinewidth": 0, "nticks": 6, "title": {"side": "top", "font": {"size": 12}},
}  # fmt: skip
"""The colour bar: above the picture, where a phone has room for it."""


_NAMED = 20
"""Maximum number of labelled points of the front: more labels would overlap."""


@dataclass(frozen=True)
class _Axis:
    """One objective: values in the picture's unit, titles, range, and the study's bound."""

    values: Callable[[Iterable[CompleteTrial]], list[float]]
    title: str
    short: str
    range: tuple[float, float]
    bound: float | None = None
    bound_text: str = ""
    better: Callable[[float, float], float] = min

    @property
    def floor(self) -> float:
        """Position of outliers far below: just above the lower edge."""
        return self.range[0] + 0.02 * (self.range[1] - self.range[0])


def front_picture(snapshot: StudySnapshot, points: Points) -> str:
    """Return the front in three views: metric against memory, metric against time, time against memory.

    The third objective is the colour. The shaded part does not fit; outliers far below the rest are on the lower edge.
    The HTML is a ``div`` and the call that draws in it; the page has plotly's script.
    """
    views = _views(snapshot, points)
    figure = {
        "data": _start(_traces(snapshot, points), views[0][1]["data"]),
        "layout": _layout(views),
    }
    buttons_shown = [["zoom2d", "pan2d", "resetScale2d", "toImage"]]
    config = {"responsive": True, "displaylogo": False, "modeBarButtons": buttons_shown}
    page: str = plotly.io.to_html(
        figure, config, full_html=False, include_plotlyjs=False, default_height="620px", validate=False, div_id="front"
    )
    return page


def _views(snapshot: StudySnapshot, points: Points) -> list[tuple[str, dict[str, Any]]]:
    """Return the update of each button, by its label."""
    metric = _Axis(points.metrics, metric_axis(snapshot), metric_axis(snapshot), metric_limits(points), better=max)
    memory = _axis(points.memories, points, MEMORY_AXIS, "memory (MiB)", snapshot.budget_mib, human_memory)
    bound, unit = snapshot.settings.max_time_s, points.unit
    time = _axis(
        points.times, points, f"time on the device ({unit}, predicted)", f"time ({unit})",
        None if bound is None else bound / points.seconds, lambda value: human_time(value * points.seconds),
    )  # fmt: skip
    return [
        ("by memory", _view(points, memory, metric, time)),
        ("by time", _view(points, time, metric, memory)),
        ("costs", _view(points, memory, time, metric)),
    ]


def _axis(
    values: Callable[[Iterable[CompleteTrial]], list[float]],
    points: Points,
    title: str,
    short: str,
    bound: float | None,
    human: Callable[[float], str],
) -> _Axis:
    """Return the axis of a cost, with room for the bound where it is near."""
    shown = values(points.all)
    width = max(max(shown) - min(shown), 0.05 * max(shown)) or 1.0
    low, high = min(shown) - 0.06 * width, max(shown) + 0.06 * width
    if bound is not None and max(shown) <= bound <= high + width:
        high = bound + 0.08 * width
    return _Axis(values, title, short, (low, high), bound, "" if bound is None else f"fits up to {human(bound)}")


def _view(points: Points, x: _Axis, y: _Axis, colour: _Axis) -> dict[str, Any]:
    """Return coordinates and colours of the traces, and the update of the layout."""
    ordered: Sequence[CompleteTrial] = sorted(points.front, key=lambda trial: x.values([trial])[0])
    best = list(accumulate(y.values(ordered), y.better))
    fits = [trial for trial in points.others if trial.cost.feasible is not False]
    too_large = [trial for trial in points.others if trial.cost.feasible is False]
    groups: list[Sequence[CompleteTrial]] = [fits, too_large, points.front, *([trial] for trial in points.baselines)]
    shades, floor = colour.values(points.all), y.floor
    margin = 0.0 if max(shades) > min(shades) else 0.05 * abs(max(shades)) or 1.0
    scale = {
        "cmin": min(shades) - margin,
        "cmax": max(shades) + margin,
        "reversescale": colour.better is min,
        "colorbar.title.text": f"colour: {colour.short}",
    }
    return {
        "data": {
            "x": [x.values(ordered), *(x.values(group) for group in groups)],
            "y": [best, *([max(value, floor) for value in y.values(group)] for group in groups)],
            "marker.color": [None, QUIET, QUIET, *(colour.values(group) for group in groups[2:])],
            **{f"marker.{key}": [None] * 3 + [value] * (len(groups) - 2) for key, value in scale.items()},
            "error_y.visible": [False, False, False, y.better is max, *(False for _ in points.baselines)],
        },
        "layout": {
            "xaxis.title.text": x.title,
            "xaxis.range": list(x.range),
            "yaxis.title.text": y.title,
            "yaxis.range": list(y.range),
            "shapes": [*_shapes(x, "x"), *_shapes(y, "y"), *_constant_line(points, y)],
            "annotations": [*_notes(x, "x"), *_notes(y, "y"), *_constant_note(points, y)],
        },
    }


def _shapes(axis: _Axis, name: str) -> list[dict[str, Any]]:
    """Return the bound as a line, and the infeasible part as a shaded region."""
    low, high = axis.range
    if axis.bound is None or axis.bound > high:
        return []
    other = "y" if name == "x" else "x"
    across = {f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1, "layer": "below"}
    start = max(axis.bound, low)
    # far beyond the picture, so that the shade does not end when zooming out
    region = {f"{name}0": start, f"{name}1": high + 10 * (high - low), "fillcolor": BUDGET, "opacity": 0.08}
    line = {f"{name}0": start, f"{name}1": start, "line": {"color": BUDGET, "dash": "dash", "width": 1.5}}
    return [
        {"type": "rect", "line": {"width": 0}, **across, **region},
        {"type": "line", **across, **line},
    ]


def _notes(axis: _Axis, name: str) -> list[dict[str, Any]]:
    """Return the label of the bound: at its line, or with an arrow towards it where it is outside."""
    if axis.bound is None:
        return []
    low, high = axis.range
    inside, text = low <= axis.bound <= high, html.escape(axis.bound_text)
    style: dict[str, Any] = {"showarrow": False, "font": {"color": BUDGET, "size": 12}, "yanchor": "top"}
    if name == "x":
        text = text if inside else f"{text} →" if axis.bound > high else f"← {text}"
        place = {"x": axis.bound} if inside else {"xref": "paper", "x": 1}
        return [{**style, "text": text, "xanchor": "right", "yref": "paper", "y": 1, **place}]
    text = text if inside else f"{text} ↑" if axis.bound > high else f"{text} ↓"
    place = {"y": axis.bound} if inside else {"yref": "paper", "y": 1}
    return [{**style, "text": text, "xanchor": "left", "xref": "paper", "x": 0, **place}]


def _constant_line(points: Points, y: _Axis) -> list[dict[str, Any]]:
    """Return the score of a constant answer as a line, in views of the metric that include it."""
    if points.constant is None or y.better is not max or not y.range[0] <= points.constant <= y.range[1]:
        return []
    line = {"color": QUIET, "dash": "dot", "width": 1.5}
    ends = {"y0": points.constant, "y1": points.constant, "xref": "paper", "x0": 0, "x1": 1}
    return [{"type": "line", "layer": "below", "line": line, **ends}]


def _constant_note(points: Points, y: _Axis) -> list[dict[str, Any]]:
    """Return its label: at the line, or with an arrow towards it."""
    if points.constant is None or y.better is not max:
        return []
    inside = bool(_constant_line(points, y))
    arrow = "" if inside else " ↑" if points.constant > y.range[1] else " ↓"
    place = {"y": points.constant} if inside else {"yref": "paper", "y": 0}
    style: dict[str, Any] = {"showarrow": False, "font": {"color": LINE, "size": 12}, "yanchor": "bottom"}
    text = f"constant answer {points.constant:.3g}{arrow}"
    return [{**style, "text": text, "xanchor": "left", "xref": "paper", "x": 0, **place}]


def _layout(views: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the layout, for a phone's width: colour bar and legend are above and below the picture."""
    axis = {"gridcolor": "#ececec", "zeroline": False}
    buttons = [{"label": label, "method": "update", "args": [view["data"], view["layout"]]} for label, view in views]
    layout: dict[str, Any] = {
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        "legend": {"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0, "font": {"size": 12}},
        "margin": {"t": 100, "r": 8, "l": 54, "b": 10},
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "updatemenus": [
            {
                "type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.27, "yanchor": "top",
                "pad": {"t": 0, "l": 0}, "buttons": buttons, "bgcolor": "white", "bordercolor": "#bdbdbd",
                "font": {"size": 11},
            }
        ],
    }  # fmt: skip
    for key, value in views[0][1]["layout"].items():
        _set(layout, key, value)
    return layout


def _start(traces: list[dict[str, Any]], data: dict[str, Any]) -> list[dict[str, Any]]:
    """Apply the first view to the traces."""
    for key, values in data.items():
        for trace, value in zip(traces, values, strict=True):
            if value is not None:
                _set(trace, key, value)
    return traces


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c`` in nested tables, as in plotly's updates."""
    *above, last = key.split(".")
    for name in above:
        table = table.setdefault(name, {})
    table[last] = value


def _traces(snapshot: StudySnapshot, points: Points) -> list[dict[str, Any]]:
    """Return line, other trials, infeasible trials, front and each baseline, without the parts of a view."""
    fits = [trial for trial in points.others if trial.cost.feasible is not False]
    too_large = [trial for trial in points.others if trial.cost.feasible is False]
    errors = {"type": "data", "array": points.errors(points.front), "color": "#c4c4c4", "thickness": 1.4, "width": 0}
    shaded = {"colorscale": "Cividis"}
    bar = {"showscale": True, "colorbar": dict(_BAR)}
    ink = {"symbol": _symbols(points, points.front, "circle"), "size": 13, "line": {"color": INK, "width": 1}}
    line = {"mode": "lines", "name": "best within this", "line": {"shape": "hv", "color": LINE}, "hoverinfo": "skip"}
    front = {
        "mode": "markers+text" if len(points.front) <= _NAMED else "markers",
        "text": [str(trial.number) for trial in points.front],
        "textposition": "top center",
        "error_y": errors,
    }
    traces = [
        {"type": "scatter", **line, "showlegend": bool(points.front)},
        _marks(snapshot, "other trials", fits, {"symbol": _symbols(points, fits, "circle-open"), "size": 8}),
        _marks(snapshot, "does not fit", too_large, {"symbol": "x-thin-open", "size": 8}),
        _marks(snapshot, "front, by trial", points.front, {**ink, **shaded, **bar}) | front,
    ]
    for trial, symbol in zip(points.baselines, cycle(_BASELINES), strict=False):
        marker = {"symbol": symbol, "size": 11, "line": {"color": BESIDE, "width": 2}, **shaded, "showscale": False}
        (metric,) = points.metrics([trial])
        low = f" ({metric:.3g})" if metric < metric_limits(points)[0] else ""
        traces.append(_marks(snapshot, f"{name_of(trial)}{low}", [trial], marker))
    return traces


def _symbols(points: Points, trials: Sequence[CompleteTrial], symbol: str) -> list[str]:
    """Return ``symbol``, or a triangle for outliers on the lower edge."""
    floor = metric_limits(points)[0]
    low = "triangle-down-open" if symbol.endswith("-open") else "triangle-down"
    return [low if metric < floor else symbol for metric in points.metrics(trials)]


def _marks(
    snapshot: StudySnapshot, name: str, trials: Sequence[CompleteTrial], marker: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": html.escape(name),
        "marker": marker,
        "customdata": [_hover(snapshot, trial) for trial in trials],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": bool(trials),
    }


def _hover(snapshot: StudySnapshot, trial: CompleteTrial) -> str:
    lines = [
        f"<b>{html.escape(name_of(trial))}</b>",
        html.escape(human_metric(snapshot.metric_name, trial.outcome.metric, trial.outcome.metric_error)),
        f"{human_memory(trial.cost.peak_memory_mib)}, {human_time(trial.cost.wall_time_s)}",
    ]
    if trial.config is not None:
        fractions = " ".join(f"{fraction:.2f}" for fraction in trial.config.canonical().frozen_fractions)
        lines.append(f"frozen by layer: {fractions}, mean {100 * mean_frozen(trial.config):.0f} %")
        if trial.config.frozen_heads:
            lines.append(f"frozen heads: mean {100 * trial.config.frozen_head_share:.0f} %")
        lines.append(f"learning rate {trial.config.learning_rate:.2g}, priming {trial.config.priming_epochs:g} epochs")
    elif not isinstance(trial, Trial) and trial.baseline is not None:
        lines.append(f"learning rate {trial.baseline.learning_rate:.2g}")
    return "<br>".join(lines)
