"""Pictures of a study, and its report as a page. The only home of matplotlib, plotly and jinja2.

==============  ===============================================================
page.py         the report: all sections on one page, and their pictures
page.html       its template, with body.html and table.html
watch.py        the page of a search that goes on, with watch.html and progress.html
display.py      a figure that notebooks show
section.py      sections, and the style of their pictures
points.py       the trials that a picture shows, in its units, colours and texts
interactive.py  the front as an interactive picture
figure.py       the front as a static picture
layers.py       frozen neurons by layer; components of memory and time
history.py      hypervolume over the trials, learning curves
importance.py   importance of the hyperparameters for metric, memory and time
reliability.py  selections that are random, points that were trained again
measured.py     predicted against measured
command.py      the commands that made the study and resume it
sweep.py        a swept space as a static picture
==============  ===============================================================
"""

from __future__ import annotations

from farsearch.report.figure import front_figure, save_front_png
from farsearch.report.page import Report, make_report

__all__ = ["Report", "front_figure", "make_report", "save_front_png"]
