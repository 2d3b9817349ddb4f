"""The front as a page that answers to the mouse. Uses plotly."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import accumulate, cycle
from typing import Any

import plotly.io

from farsearch.records import StudySnapshot, TrialRecord
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
from farsearch.tables import baseline_rows, front_rows, human_memory, human_metric, human_time, mean_frozen

__all__ = ["front_html"]


def front_html(snapshot: StudySnapshot) -> str:
    """The front as one page that needs no network: a picture against memory or against time, and the front's table.

    About 5 MB, nearly all of it plotly's script.
    """
    points = points_of(snapshot)
    shown = _interactive(snapshot, points) if points.all else "<p>No complete trial yet.</p>"
    title = html.escape(headline(snapshot))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1><p>{html.escape(count(snapshot))}</p>\n{shown}\n{_html_table(snapshot)}</body></html>\n"
    )


_BASELINES = ("square", "diamond", "triangle-up", "cross", "pentagon", "star", "hexagon", "x")
"""Symbols of the baselines, in their order: those of the picture on paper."""

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;color:#262626;margin:1.2em auto;max-width:1000px;padding:0 1em}"
    "h1{font-size:1.25em;margin:0}p{margin:.2em 0 .8em;color:#5c5c5c}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "th,td{text-align:right;padding:.25em .8em;border-bottom:1px solid #e4e4e4}th{font-weight:600}"
)


def _html_table(snapshot: StudySnapshot) -> str:
    rows = [*front_rows(snapshot), *baseline_rows(snapshot)]
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row.values())}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _interactive(snapshot: StudySnapshot, points: Points) -> str:
    memory, time = _view(snapshot, points, "memory"), _view(snapshot, points, "time")
    menu = {
        "buttons": [
            {"label": f"against {name}", "method": "update", "args": [view["data"], view["layout"]]}
            for name, view in (("memory", memory), ("time", time))
        ]
    }
    layout = {
        "shapes": memory["layout"]["shapes"],
        "xaxis": {"title": {"text": MEMORY_AXIS}, "gridcolor": "#ececec", "zeroline": False},
        "yaxis": {
            "title": {"text": metric_axis(snapshot)},
            "range": list(metric_limits(points)),
            "gridcolor": "#ececec",
            "zeroline": False,
        },
        "legend": {"orientation": "h", "y": -0.2},
        "margin": {"t": 50, "r": 10},
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "updatemenus": [{"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.14} | menu],
    }
    traces = _traces(snapshot, points)
    for i, trace in enumerate(traces):
        trace |= {key: values[i] for key, values in memory["data"].items()}
    figure = {"data": traces, "layout": layout}
    buttons_shown = [["zoom2d", "pan2d", "autoScale2d", "resetScale2d", "toImage"]]
    config = {"responsive": True, "displaylogo": False, "modeBarButtons": buttons_shown}
    page: str = plotly.io.to_html(
        figure, config, full_html=False, include_plotlyjs=True, default_height="560px", validate=False, div_id="front"
    )
    return page


def _traces(snapshot: StudySnapshot, points: Points) -> list[dict[str, Any]]:
    """The line, the other trials, the front and each baseline, without their coordinates, which depend on the view."""
    low, high = points.time_range()
    bar = {"title": {"text": f"time ({points.unit})"}, "thickness": 14, "outlinewidth": 0}
    front_marker = {
        "size": 13,
        "color": points.times(points.front),
        "cmin": low,
        "cmax": high,
        "colorscale": "Cividis",
        "reversescale": True,
        "colorbar": bar,
        "line": {"color": INK, "width": 1},
    }
    hover = {"hovertemplate": "%{customdata}<extra></extra>"}
    errors = {"type": "data", "array": points.errors(points.front), "color": "#c4c4c4", "thickness": 1.4, "width": 0}
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best within this",
            "line": {"shape": "hv", "color": LINE},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "other trials",
            "marker": {"symbol": "circle-open", "color": QUIET, "size": 8},
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
        *(
            {
                "type": "scatter",
                "mode": "markers",
                "name": _title(trial),
                "marker": {"symbol": symbol, "size": 11, "color": "white", "line": {"color": BESIDE, "width": 2}},
                "customdata": [_hover(snapshot, trial)],
                **hover,
            }
            for trial, symbol in zip(points.baselines, cycle(_BASELINES), strict=False)
        ),
    ]


def _title(trial: TrialRecord) -> str:
    return f"trial {trial.number}" if trial.baseline is None else trial.baseline.title


def _view(snapshot: StudySnapshot, points: Points, against: str) -> dict[str, dict[str, Any]]:
    """Coordinates of the traces and what changes in the layout."""
    values = points.memories if against == "memory" else points.times
    ordered: Sequence[TrialRecord] = sorted(points.front, key=lambda trial: values([trial])[0])
    best = list(accumulate(points.metrics(ordered), max))
    single = [(trial,) for trial in points.baselines]
    budget = {"type": "line", "x0": snapshot.budget_mib, "x1": snapshot.budget_mib, "yref": "paper", "y0": 0, "y1": 1}
    near = snapshot.budget_mib <= 2 * max(points.memories(points.all))
    lines = [{**budget, "line": {"color": BUDGET, "dash": "dash"}}] if against == "memory" and near else []
    title = MEMORY_AXIS if against == "memory" else f"time on the device ({points.unit}, predicted)"
    return {
        "data": {
            "x": [values(trials) for trials in (ordered, points.others, points.front, *single)],
            "y": [best, *(points.metrics(trials) for trials in (points.others, points.front, *single))],
        },
        "layout": {"xaxis.title.text": title, "shapes": lines},
    }


def _hover(snapshot: StudySnapshot, trial: TrialRecord) -> str:
    lines = [
        f"<b>{_title(trial)}</b>",
        human_metric(snapshot.metric_name, trial.metric, trial.metric_error),
        f"{human_memory(trial.peak_memory_mib)}, {human_time(trial.wall_time_s)}",
    ]
    if trial.config is not None:
        fractions = " ".join(f"{fraction:.2f}" for fraction in trial.config.canonical().frozen_fractions)
        lines.append(f"frozen by layer: {fractions}, mean {100 * mean_frozen(trial.config):.0f} %")
        lines.append(f"learning rate {trial.config.learning_rate:.2g}, priming {trial.config.priming_epochs:g} epochs")
    elif trial.baseline is not None:
        lines.append(f"learning rate {trial.baseline.learning_rate:.2g}")
    return "<br>".join(lines)
