"""The points of a front: frozen neurons by layer, and components of memory and time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from farsearch.formatting import human_memory, human_time, operation_title
from farsearch.records import BaselineTrial, Completed, CompleteTrial, Cost, StudySnapshot, Trial
from farsearch.report.points import BUDGET, Points, points_of
from farsearch.report.section import PARTS, Section, canvas, name_of, spread_over

__all__ = ["frozen_section", "memory_section", "time_section"]

_ROW_IN = 0.23
_PROCESS = "process"
_REST = "other"


def frozen_section(snapshot: StudySnapshot) -> Section | None:
    """Draw the share of frozen neurons by layer as a heat map, one row per point of the front."""
    trials = spread_over(snapshot)
    configs = [trial.config.canonical() for trial in trials]
    if not configs:
        return None
    layers = len(configs[0].frozen_fractions)
    shares = np.array([[float(c.frozen_embeddings), *c.frozen_fractions] for c in configs])
    figure, axes = canvas(_ROW_IN * len(trials) + 0.1, left=0.72, bottom=0.45)
    axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=125, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.7 else "#262626"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    attention = [
        (1 + i, row, share)
        for row, c in enumerate(configs)
        for i, share in enumerate(c.frozen_heads or (1.0,) * c.frozen_attention_layers)
        if share
    ]
    if attention:
        columns, rows, frozen = map(np.array, zip(*attention, strict=True))
        axes.scatter(columns - 0.36, rows - 0.3, marker="s", s=7 * frozen, color=BUDGET, linewidths=0)
    axes.set_xticks(range(1 + layers), ["emb.", *map(str, range(layers))])
    axes.set_yticks(range(len(trials)), [name_of(trial) for trial in trials])
    if layers > 8:
        axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlabel("layer, from the bottom (% of it frozen)")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    red = " A red corner: its attention is frozen too; a small one: some of its heads." * bool(attention)
    return Section("frozen", _frozen_title(shares[:, 1:]), f"From the least memory to the most.{red}", figure)


def _frozen_title(shares: np.ndarray[Any, Any]) -> str:
    """Name the layers that the front freezes most and least."""
    means = 100 * shares.mean(axis=0)
    most, least = int(means.argmax()), int(means.argmin())
    if means[most] - means[least] < 1:
        return f"The front freezes every layer alike: {means[most]:.0f} % of its neurons"
    return (
        f"The front freezes most in {_layers_from(means, most)} ({means[most]:.0f} %), "
        f"least in {_layers_from(means, least)} ({means[least]:.0f} %)"
    )


def _layers_from(means: np.ndarray[Any, Any], first: int) -> str:
    """Name the layer ``first`` with those above it that are frozen as much: adjacent layers may share a fraction."""
    last = first
    while last + 1 < len(means) and np.isclose(means[last + 1], means[first]):
        last += 1
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def memory_section(snapshot: StudySnapshot) -> Section | None:
    """Draw the components of each point's peak memory, the process first."""
    trials = [trial for trial in _shown(snapshot) if math.fsum(trial.cost.memory.values()) > 0]
    if not trials:
        return None
    parts = [_memory_parts(trial.cost) for trial in trials]
    names = _largest(parts, first=_PROCESS)
    figure, axes = _bars(trials, [_merged(part, names) for part in parts], names)
    axes.set_xlabel("peak memory (MiB, predicted)")
    _draw_budget(axes, snapshot.budget_mib)
    own = [part for trial, part in zip(trials, parts, strict=True) if isinstance(trial, Trial)] or parts
    beside = ", then the baselines" * bool(snapshot.baselines)
    return Section(
        "memory",
        _difference(own, human_memory) or f"The largest part of the memory is {_main(own)}",
        f"Components of the peak, from the least memory to the most{beside}.",
        figure,
    )


def time_section(snapshot: StudySnapshot) -> Section | None:
    """Draw the components of each point's time on the device."""
    trials = [trial for trial in _shown(snapshot) if math.fsum(trial.cost.time.values()) > 0]
    points = points_of(snapshot)
    if not trials:
        return None
    parts = [{operation_title(name): value for name, value in trial.cost.time.items()} for trial in trials]
    names = _largest(parts)
    figure, axes = _bars(trials, [_merged(_scaled(part, points), names) for part in parts], names)
    axes.set_xlabel(f"time on the device ({points.unit}, predicted)")
    own = [part for trial, part in zip(trials, parts, strict=True) if isinstance(trial, Trial)] or parts
    words = _difference(own, human_time)
    return Section("time", f"Most of the time goes into {_main(own)}", f"{words}." if words else "", figure)


def _shown(snapshot: StudySnapshot) -> tuple[Trial[Completed] | BaselineTrial[Completed], ...]:
    return (*spread_over(snapshot), *points_of(snapshot).baselines)


def _memory_parts(cost: Cost) -> dict[str, float]:
    """Return the components of the tensors, and the memory of the process."""
    process = cost.peak_memory_mib - math.fsum(cost.memory.values())
    return {_PROCESS: max(process, 0.0), **cost.memory}


def _scaled(parts: Mapping[str, float], points: Points) -> dict[str, float]:
    return {name: value / points.seconds for name, value in parts.items()}


def _largest(parts: Sequence[Mapping[str, float]], first: str | None = None) -> list[str]:
    """The parts that are drawn by name, the largest first, the rest as one."""
    totals: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            totals[name] = totals.get(name, 0.0) + value
    ordered = sorted(totals, key=lambda name: (name != first, -totals[name]))
    room = len(PARTS) - 1
    return ordered if len(ordered) <= room else [*ordered[:room], _REST]


def _merged(part: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """The values of ``names`` in their order; what has no name of its own is the last."""
    named = [part.get(name, 0.0) for name in names if name != _REST]
    rest = math.fsum(value for name, value in part.items() if name not in names)
    return [*named, rest] if _REST in names else named


def _bars(trials: Sequence[CompleteTrial], values: Sequence[Sequence[float]], names: Sequence[str]) -> tuple[Any, Axes]:
    """Draw a stacked horizontal bar for each trial, with a legend above."""
    lines = (len(names) + 2) // 3
    longest = max(len(name_of(trial)) for trial in trials)
    figure, axes = canvas(_ROW_IN * len(trials) + 0.1, left=0.2 + 0.066 * longest, top=0.08 + 0.2 * lines, right=0.2)
    places, start = np.arange(len(trials)), np.zeros(len(trials))
    colours = [*PARTS[: len(names) - 1], PARTS[-1] if names[-1] == _REST else PARTS[len(names) - 1]]
    for column, colour in zip(np.array(values).T, colours, strict=True):
        axes.barh(places, column, left=start, color=colour, height=0.68)
        start = start + column
    axes.set_yticks(places, [name_of(trial) for trial in trials])
    axes.set_ylim(len(trials) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    handles = [Patch(color=colour, label=name) for name, colour in zip(names, colours, strict=True)]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.01, 1.0), ncols=3, frameon=False, fontsize=8.5,
        handlelength=0.9, handletextpad=0.5, columnspacing=1.2, labelspacing=0.3, borderaxespad=0.1,
    )  # fmt: skip
    return figure, axes


def _draw_budget(axes: Axes, budget_mib: float) -> None:
    """Draw the limit of the device's memory, if that is near."""
    if budget_mib <= 1.6 * axes.get_xlim()[1]:
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.03 * budget_mib))
        axes.axvline(budget_mib, color=BUDGET, linestyle=(0, (5, 4)), linewidth=1.2)
        axes.axvspan(budget_mib, axes.get_xlim()[1], color=BUDGET, alpha=0.08, linewidth=0)


def _main(parts: Sequence[Mapping[str, float]]) -> str:
    """Return the largest part over all points, with its share."""
    name = _largest(parts)[0]
    total = math.fsum(math.fsum(part.values()) for part in parts)
    return f"{name} ({100 * math.fsum(part.get(name, 0.0) for part in parts) / total:.0f} %)"


def _difference(parts: Sequence[Mapping[str, float]], human: Any) -> str:
    """Name the part in which the points differ most; empty where they don't differ."""
    spans = {
        name: (min(values), max(values))
        for name in {name for part in parts for name in part}
        if (values := [part.get(name, 0.0) for part in parts])
    }
    name, (low, high) = max(sorted(spans.items()), key=lambda item: item[1][1] - item[1][0])
    return f"The points differ most in: {name}, {human(low)} to {human(high)}" if human(low) != human(high) else ""
