"""The picture of cost_model: predicted against measured, memory, time here, and published steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.cost_memory import MemoryCase
from benchmarks.cost_models import MODELS
from benchmarks.cost_published import PublishedDevice
from benchmarks.cost_time import TimeCase

__all__ = ["save_picture"]

_COLOURS = dict(zip(MODELS, ("#0072b2", "#e69f00", "#009e73"), strict=True))
"""Okabe and Ito's, safe for colour-blind eyes."""
_BAND = 0.1
"""Band around equality: 10 % either way."""


def save_picture(
    memory: Sequence[MemoryCase], time: Sequence[TimeCase], devices: Sequence[PublishedDevice], path: Path
) -> None:
    """Write a PNG with one panel per part, each on logarithmic axes with a band of 10 % around equality."""
    figure = Figure(figsize=(13, 4.6), dpi=150)
    axes = figure.subplots(1, 3)
    for model, colour in _COLOURS.items():
        _points(axes[0], [(o.measured_mib, o.predicted_mib) for o in memory if o.model == model], model, colour)
        _points(axes[1], [(o.steady_s, o.predicted_s) for o in time if o.setting.model == model], model, colour)
    for device, colour, marker in zip(devices, ("#cc79a7", "#d55e00"), "os", strict=False):
        scaled = [(row.published_s, device.scalar * row.predicted_s) for row in device.rows]
        _points(axes[2], scaled, device.device, colour, marker)
    titles = (
        f"Memory: {len(memory)} steps", f"Time on the calibrated machine: {len(time)} steps",
        "Published steps, one scalar a board",
    )  # fmt: skip
    for panel, title, unit in zip(axes, titles, ("MiB", "s", "s"), strict=True):
        _finish(panel, title, unit)
    figure.tight_layout()
    figure.savefig(path, dpi=150, format="png")


def _points(axes: Axes, points: Sequence[tuple[float, float]], label: str, colour: str, marker: str = "o") -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=22, color=colour, label=label, marker=marker, alpha=0.8, linewidths=0)


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    low, high = axes.get_xlim()
    axes.plot((low, high), (low, high), color="#8c8c8c", linewidth=0.8, zorder=0)
    band = [(1 - _BAND) * low, (1 - _BAND) * high], [(1 + _BAND) * low, (1 + _BAND) * high]
    axes.fill_between((low, high), *band, color="#ececec", zorder=-1, label="within 10 %")
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
