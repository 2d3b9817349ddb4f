"""The picture of engines.py: peak memory of whole processes against time, a panel for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.step_picture import COLOURS, DOTS, Marker, name_markers, styled

__all__ = ["Figures", "save_picture"]


@dataclass(frozen=True)
class Figures:
    """The figures of one variant. ``time_ratio`` is to full fine-tuning in torch."""

    model: str
    variant: str
    engine: str
    batch: int
    seq: int
    time_ratio: float
    step_s: float
    process_peak_mib: float
    anonymous_peak_mib: float


def save_picture(settings: Sequence[Sequence[Figures]], path: Path) -> None:
    """Draw each setting's variants by name. Nearer to the lower left corner is better."""
    figure = Figure(figsize=(5 * len(settings), 4.6), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(settings), squeeze=False)[0]
    for axes, entries in zip(panels, settings, strict=True):
        first = entries[0]
        axes.set_title(f"{first.model} {first.batch} × {first.seq}", loc="left", fontsize=9.5, fontweight="bold")
        axes.set_xlabel("peak of the whole process, MiB")
        axes.set_ylabel("time of a step, ratio to full fine-tuning")
        styled(axes)
        for entry in entries:
            axes.scatter(entry.process_peak_mib, entry.time_ratio, color=_colour(entry), **DOTS)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    canvas.draw()  # type: ignore[no-untyped-call]  # sets the limits
    for axes, entries in zip(panels, settings, strict=True):
        name_markers(axes, [_marker(entry) for entry in entries], canvas)
    figure.savefig(path, format="png")


def _marker(entry: Figures) -> Marker:
    return Marker(entry.process_peak_mib, entry.time_ratio, f"{entry.variant}, {entry.engine}", _colour(entry))


def _colour(entry: Figures) -> str:
    if not entry.variant.startswith("far"):
        return COLOURS["full fine-tuning" if entry.variant == "full" else "other methods"]
    return COLOURS["FAR, more frozen" if entry.engine == "onnx" else "FAR"]
