"""Pictures of a study, and its report as a page. The only home of matplotlib and plotly.

==============  ===============================================================
page.py         the report: all sections on one page, and their pictures
display.py      a figure that notebooks show
section.py      what a section is, and how pictures of the page look
points.py       which trials a picture shows, in which units, colours and words
interactive.py  the front, as a picture that answers to the mouse
figure.py       the front on paper
layers.py       what is frozen; what memory and time consist of
history.py      hypervolume over the trials, learning curves
importance.py   what metric, memory and time hang on
reliability.py  selections that mean nothing, points that were trained again
measured.py     predicted against measured
command.py      the commands that made the study and go on with it
sweep.py        a swept space on paper
==============  ===============================================================
"""

from __future__ import annotations

from farsearch.report.figure import front_figure, save_front_png
from farsearch.report.page import Report, make_report

__all__ = ["Report", "front_figure", "make_report", "save_front_png"]
