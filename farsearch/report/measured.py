"""Predicted against measured figures, on this host where it is the device, and on boards."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from farsearch.devices import is_another_machine
from farsearch.formatting import human_memory, human_metric, human_time
from farsearch.records import Measurement, StudySnapshot
from farsearch.report.points import BESIDE
from farsearch.report.section import BLUE, Section, canvas, quiet

__all__ = ["Pair", "measured_section", "pairs_of"]

_LOCAL = "local"
"""The profile of the searching machine, whose figures are those of the device."""


@dataclass(frozen=True)
class Pair:
    """One figure, predicted and measured, in MiB or seconds; ``board``: measured by a board."""

    predicted: float
    measured: float
    board: bool


def pairs_of(snapshot: StudySnapshot) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of memory and of time, measured on the device or a board like it.

    The host's time is comparable only where the prediction is for the rows that were trained on, without priming.
    """
    settings = snapshot.settings
    host = snapshot.complete if settings.device == _LOCAL else ()
    same = settings.prime_on == "host" and settings.device_samples in (None, settings.job.train_samples)
    memory = [Pair(t.cost.peak_memory_mib, t.outcome.host_peak_mib, False) for t in host]
    time = [Pair(t.cost.wall_time_s, t.outcome.host_seconds, False) for t in host if same]
    boards = [m for m in snapshot.measurements if not is_another_machine(settings.device, m.machine)]
    memory += [Pair(m.predicted_memory_mib, m.peak_memory_mib, True) for m in boards if m.predicted_memory_mib]
    time += [Pair(m.predicted_time_s, m.wall_time_s, True) for m in boards if m.predicted_time_s]
    return memory, time


def measured_section(snapshot: StudySnapshot) -> Section | None:
    """Draw predicted against measured figures, or report that there are no measurements."""
    if not snapshot.complete:
        return None
    memory, time = pairs_of(snapshot)
    if not memory and not time:
        title = f"Nothing was measured on {snapshot.settings.device} yet: memory and time are estimates"
        text = "train.py of an exported bundle measures both where it runs."
        return Section("measured", title, f"{text}{_others(snapshot)}", rows=_rows(snapshot))
    figure, left = canvas(1.65, left=0.62, right=0.12, bottom=0.58, top=0.28)
    place = left.get_position()
    width = 0.42 * place.width
    left.set_position((place.x0, place.y0, width, place.height))
    right = figure.add_axes((place.x0 + place.width - width, place.y0, width, place.height))
    quiet(right)
    unit, seconds = ("min", 60.0) if max((p.measured for p in time), default=0.0) >= 120 else ("s", 1.0)
    _scatter(left, memory, 1.0, "memory (MiB)")
    _scatter(right, time, seconds, f"time ({unit})")
    figure.text(place.x0 + place.width / 2, 0.035, "predicted", ha="center", fontsize=9)
    left.set_ylabel("measured")
    words = (
        "On the line, both are equal. Blue: this host"
        if snapshot.settings.device == _LOCAL
        else "On the line, both are equal"
    )
    boards = "; purple: boards" * (any(p.board for p in memory) and snapshot.settings.device == _LOCAL)
    biases = [f"{name} is {_bias(pairs)}" for name, pairs in (("memory", memory), ("time", time)) if pairs]
    title = f"Measured {' and '.join(biases)}"
    return Section("measured", title, f"{words}{boards}.{_others(snapshot)}", figure, _rows(snapshot))


def _others(snapshot: StudySnapshot) -> str:
    """Return a sentence on measurements that are not compared; empty where all are."""
    device = snapshot.settings.device
    machines = {m.machine for m in snapshot.measurements if is_another_machine(device, m.machine)}
    if not machines:
        return ""
    return f" Measurements on {', '.join(sorted(machines))} are not compared: predictions are for {device}."


def _rows(snapshot: StudySnapshot) -> list[Mapping[str, str]]:
    return [_row(snapshot, m) for m in snapshot.measurements]


def _bias(pairs: Sequence[Pair]) -> str:
    """Return the median deviation from the prediction, as text."""
    ratio = statistics.median(pair.measured / pair.predicted for pair in pairs) - 1
    return f"{abs(100 * ratio):.0f} % {'above' if ratio >= 0 else 'below'} the prediction"


def _scatter(axes: Axes, pairs: Sequence[Pair], scale: float, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    if not pairs:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8.5, transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for board, marker, colour in ((False, "o", BLUE), (True, "D", BESIDE)):
        chosen = [pair for pair in pairs if pair.board == board]
        style: dict[str, Any] = {
            "s": 22,
            "marker": marker,
            "color": colour,
            "alpha": 0.75,
            "linewidths": 0,
            "zorder": 3,
        }
        axes.scatter([p.predicted / scale for p in chosen], [p.measured / scale for p in chosen], **style)
    values = [value / scale for pair in pairs for value in (pair.predicted, pair.measured)]
    margin = 0.08 * (max(values) - min(values)) or 0.05 * max(values)
    ends = (min(values) - margin, max(values) + margin)
    axes.plot(ends, ends, color="#9f9f9f", linewidth=1, zorder=2)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.locator_params(nbins=4)


def _row(snapshot: StudySnapshot, m: Measurement) -> Mapping[str, str]:
    return {
        "trial": str(m.trial),
        "board": m.machine,
        "memory": human_memory(m.peak_memory_mib),
        "predicted": human_memory(m.predicted_memory_mib),
        "time": human_time(m.wall_time_s),
        "predicted time": human_time(m.predicted_time_s),
        "one step": human_time(m.step_time_s),
        "steps": f"{m.steps:,}",
        "metric there": human_metric(snapshot.metric_name, m.metric),
        "software": ", ".join(f"{name} {version}" for name, version in m.software.items()),
        "measured": m.created,
    }
