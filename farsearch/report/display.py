"""A figure that notebooks show."""

from __future__ import annotations

from matplotlib.figure import Figure

from farsearch.report.section import png

__all__ = ["DisplayedFigure"]


class DisplayedFigure(Figure):
    """A figure without pyplot, which a notebook would show as text."""

    def _repr_png_(self) -> bytes:
        return png(self, dpi=100)
