"""What a report is made of: a finding in words, with a picture, a table or both; and how its pictures look."""

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
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.report.points import points_of

__all__ = ["BLUE", "FEW", "PARTS", "Section", "canvas", "name_of", "png", "quiet", "spread_over", "whole_numbers"]

_WIDTH_IN = 4.4
"""Of a picture. On a phone of 390 pixels its words are then as large as the page's small ones."""
_DPI = 200

BLUE = "#2f6db2"
"""The one colour of what is spoken of; everything else is grey, and baselines are ``BESIDE``."""
PARTS = ("#2f6db2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#bdbdbd")
"""Of a bar's parts, which colour-blind eyes tell apart; the last is the rest. Five of them are Okabe and Ito's."""
FEW = 16
"""Rows that a picture has at most: with more nobody reads them."""


@dataclass(frozen=True)
class Section:
    """One finding.

    Attributes:
        name: of its picture's file and of its place on the page.
        title: what was found, as a sentence.
        words: what the picture shows and how to read it.
        figure: None where there is nothing to draw.
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
    """A figure of the report's width on an Agg canvas, without pyplot's global state, and axes in it.

    Args:
        height: of the axes, in inches.
        left, right, bottom, top: what is around them, in inches. Fixed places are quicker than a layout engine.
    """
    full = height + bottom + top
    figure = Figure(figsize=(_WIDTH_IN, full))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / _WIDTH_IN, bottom / full, (_WIDTH_IN - left - right) / _WIDTH_IN, height / full))
    quiet(axes)
    return figure, axes


def quiet(axes: Axes) -> None:
    """Few lines, small figures."""
    axes.tick_params(labelsize=8.5, color="#bdbdbd")
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")


def whole_numbers(axes: Axes) -> None:
    """Ticks of the horizontal axis, which counts something."""
    low, high = axes.get_xlim()
    if high - low < 4:  # fewer whole numbers than ticks
        axes.set_xlim(low - 2, high + 2)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """The picture as a file."""
    held = io.BytesIO()
    figure.savefig(held, dpi=dpi, format="png", metadata={"Software": MADE_BY})
    return held.getvalue()


def name_of(trial: TrialRecord) -> str:
    """``trial 7``, or what a baseline is called, with a word where it did not learn."""
    name = f"trial {trial.number}" if trial.baseline is None else trial.baseline.title
    words = idle_words(trial)
    return f"{name} ({words})" if words else name


def spread_over(snapshot: StudySnapshot, most: int = FEW) -> tuple[TrialRecord, ...]:
    """The front's trials that are drawn, from the least memory to the most.

    Of more than ``most`` an even choice, the ends among them.
    """
    front = [trial for trial in points_of(snapshot).front if trial.config is not None]
    if len(front) <= most:
        return tuple(front)
    return tuple(front[round(i * (len(front) - 1) / (most - 1))] for i in range(most))
