"""Pictures of a study: its front as a PNG and as an interactive page. The only home of matplotlib and plotly."""

from __future__ import annotations

from farsearch.report.figure import front_figure, save_front_png
from farsearch.report.page import front_html

__all__ = ["front_figure", "front_html", "save_front_png"]
