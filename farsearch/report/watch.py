"""The page of a search that goes on: its progress above its report. ``api/watch.py`` serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plotly.offline import get_plotlyjs

from farsearch.files import MADE_BY
from farsearch.records import StudySnapshot
from farsearch.report.page import POLICY, content_of, template
from farsearch.report.points import headline

__all__ = ["Progress", "progress_html", "report_html", "watch_page"]


@dataclass(frozen=True)
class Progress:
    """What changes while a trial is trained, as texts.

    Attributes:
        title: the numbers of trials, and the time left.
        done, total: numbers of trials that have ended, and of all; 1 at least.
        warning: why the study can't be read now; empty otherwise.
        hint: what can be done when nothing is trained.
        command: for that.
        training: a row for each training.
        ended: rows of the last trials that ended, the latest first.
    """

    title: str
    done: int
    total: int
    warning: str = ""
    hint: str = ""
    command: str = ""
    training: Sequence[Mapping[str, str]] = ()
    ended: Sequence[Mapping[str, str]] = ()


def watch_page(snapshot: StudySnapshot, progress: Progress, body: str, version: int) -> str:
    """Return the page, which fetches ``state`` (JSON: ``progress``, HTML, and ``version``) and ``report`` (HTML).

    Args:
        body: of ``report_html``.
        version: of the report; when it changes, the page fetches the report again.
    """
    return template("watch.html").render(
        policy=f"{POLICY}; connect-src 'self'",
        made_by=MADE_BY,
        plotly=get_plotlyjs(),
        study=snapshot.name,
        headline=headline(snapshot),
        progress=progress,
        body=body,
        version=version,
    )


def progress_html(progress: Progress) -> str:
    """Return the progress as a part of the page."""
    return template("progress.html").render(progress=progress)


def report_html(snapshot: StudySnapshot) -> str:
    """Return the report as a part of the page. Takes a second or two, as ``make_report``."""
    return template("body.html").render(**content_of(snapshot))
