"""Sections of a report: a finding as text, with a picture, a table or both. And the style of the pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from farsearch.files import MADE_BY
from farsearch.formatting import idle_words
from farsearch.records import Completed, CompleteTrial, StudySnapshot, Trial
from farsearch.report.points import points_of

__all__ = ["BLUE", "FEW", "PARTS", "Section", "canvas", "name_of", "png", "quiet", "spread_over", "whole_numbers"]

_WIDTH_IN = 4.4
"""Width of a picture. On a phone of 390 pixels its text is then as large as the page's small text."""
_DPI = 200

BLUE = "#2f6db2"
"""Colour of the subject of a picture; the rest is grey, baselines are ``BESIDE``."""
PARTS = ("#2f6db2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#bdbdbd")
"""Colours of a bar's parts, safe for colour-blind readers; the last is the rest. Five of them are Okabe and Ito's."""
FEW = 16
"""Maximum number of rows of a readable picture."""


@dataclass(frozen=True)
class Section:
    """One finding.

    Attributes:
        name: of the picture's file and of the anchor on the page.
        title: the finding, as a sentence.
        words: explanation of the picture and how to read it.
        figure: None without a picture.
        rows: a table below it, all rows with the same keys.
    """

    name: str
    title: str
    words: str = ""
    figure: Figure | None = None
    rows: Sequence[Mapping[str, str]] = ()


def canvas(
    height: float, left: float = 0.62, right: float = 0.12, bottom: float = 0.5, top: float = 0.1
) -> tuple[Figure, Axes]:
    """Return a figure of the report's width on an Agg canvas, without pyplot's global state, and axes in it.

    Args:
        height: of the axes, in inches.
        left, right, bottom, top: margins, in inches. Fixed margins are faster than a layout engine.
    """
    full = height + bottom + top
    figure = Figure(figsize=(_WIDTH_IN, full))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / _WIDTH_IN, bottom / full, (_WIDTH_IN - left - right) / _WIDTH_IN, height / full))
    quiet(axes)
    return figure, axes


def quiet(axes: Axes) -> None:
    """Style axes with few lines and small figures."""
    axes.tick_params(labelsize=8.5, color="#bdbdbd")
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")


def whole_numbers(axes: Axes) -> None:
    """Put the ticks of the horizontal axis, which counts something, at integers."""
    low, high = axes.get_xlim()
    if high - low < 4:  # fewer whole numbers than ticks
        axes.set_xlim(low - 2, high + 2)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """Return the picture as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png", metadata={"Software": MADE_BY})
    return buffer.getvalue()


def name_of(trial: CompleteTrial) -> str:
    """Return ``trial 7`` or the title of a baseline, marked where it did not learn."""
    baseline = None if isinstance(trial, Trial) else trial.baseline
    name = f"trial {trial.number}" if baseline is None else baseline.title
    words = idle_words(trial)
    return f"{name} ({words})" if words else name


def spread_over(snapshot: StudySnapshot, most: int = FEW) -> tuple[Trial[Completed], ...]:
    """Return at most ``most`` trials of the front, evenly spread with both ends, from the least memory to the most."""
    front = points_of(snapshot).front
    if len(front) <= most:
        return front
    return tuple(front[round(i * (len(front) - 1) / (most - 1))] for i in range(most))
