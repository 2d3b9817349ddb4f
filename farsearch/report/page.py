"""The report of a study: one page that needs no network, and its pictures as files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from farsearch.comparison import full_fine_tuning_of
from farsearch.files import MADE_BY
from farsearch.formatting import (
    COMPARED,
    ROWS_ERROR,
    baseline_rows,
    constant_text,
    front_rows,
    heads_of,
    human_memory,
    human_metric,
    human_time,
    metric_words,
)
from farsearch.records import Completed, StudySnapshot, Trial
from farsearch.report.command import made_by, resume_command
from farsearch.report.figure import front_figure
from farsearch.report.history import course_section, curves_section
from farsearch.report.importance import importance_section
from farsearch.report.interactive import front_picture
from farsearch.report.layers import frozen_section, memory_section, time_section
from farsearch.report.measured import measured_section
from farsearch.report.points import headline, points_of
from farsearch.report.reliability import selection_section, verified_section
from farsearch.report.section import Section, name_of, png
from farsearch.select import Intent, Preference, choose, won
from farsearch.significance import agreement_text
from farsearch.tasks.summary import Understood

__all__ = ["POLICY", "Report", "content_of", "make_report", "template"]

_SECTIONS: tuple[Callable[[StudySnapshot], Section | None], ...] = (
    verified_section,
    frozen_section,
    memory_section,
    time_section,
    importance_section,
    course_section,
    curves_section,
    selection_section,
    measured_section,
)
"""In the order of the page, after the front."""

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Content security policy: a browser requests nothing."""

_CARDS: tuple[tuple[Preference, str], ...] = (
    ("knee", "compromise"),
    ("accuracy", "best"),
    ("memory", "least memory"),
    ("time", "least time"),
)


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        html: the page, self-contained. About 5 MB, nearly all of it plotly's script.
        figures: PNG files by name, ``front.png`` and one for each picture of the page.
    """

    html: str
    figures: Mapping[str, bytes]


@dataclass(frozen=True)
class _Card:
    """One point of the front at the top of the page: a large value, and the two other objectives."""

    label: str
    value: str
    rest: Sequence[str]


def make_report(snapshot: StudySnapshot) -> Report:
    """Return the report as a page and as picture files. Takes a second or two, most of it for the pictures."""
    content = content_of(snapshot)
    plotly = get_plotlyjs() if content["front"]["picture"] else ""
    page = template("page.html").render(policy=POLICY, plotly=plotly, **content)
    files = {f"{name}.png": picture for name, picture in content["pictures"].items()}
    return Report(page, {"front.png": png(front_figure(snapshot)), **files})


def content_of(snapshot: StudySnapshot) -> dict[str, Any]:
    """Return the values of ``body.html`` and of the page's head."""
    sections = [section for make in _SECTIONS if (section := make(snapshot)) is not None]
    sections.sort(key=lambda section: section.figure is None)  # pictures first
    pictures = {section.name: png(section.figure) for section in sections if section.figure is not None}
    return {
        "made_by": MADE_BY,
        "study": snapshot.name,
        "headline": headline(snapshot),
        "about": _about(snapshot),
        "constant": constant_text(snapshot),
        "cards": list(_cards(snapshot)),
        "won": won(snapshot),
        "front": _front(snapshot),
        "sections": sections,
        "pictures": pictures,
        "commands": {"Made by": made_by(snapshot), "To resume or repeat it": resume_command(snapshot)},
        "facts": _facts(snapshot),
    }


def template(name: str) -> jinja2.Template:
    """Return a template of this package."""
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("farsearch", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "heads_of": heads_of,
        "unbroken": lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%"),
    }
    return environment


def _about(snapshot: StudySnapshot) -> str:
    job = snapshot.settings.job
    return (
        f"study {snapshot.name} · {len(snapshot.ended):,} of {snapshot.n_trials:,} trials · {job.train_samples:,} "
        f"training and {job.validation_samples:,} validation rows"
    )


def _cards(snapshot: StudySnapshot) -> Iterator[_Card]:
    if not snapshot.front:
        return
    for prefer, label in _CARDS:
        trial = choose(snapshot, Intent(prefer=prefer)).trial
        figures = {
            "accuracy": human_metric(snapshot.metric_name, trial.outcome.metric, trial.outcome.metric_error),
            "memory": human_memory(trial.cost.peak_memory_mib),
            "time": human_time(trial.cost.wall_time_s),
        }
        large = figures.pop("accuracy" if prefer == "knee" else prefer)
        yield _Card(f"{label} · trial {trial.number}", large, list(figures.values()))


def _front(snapshot: StudySnapshot) -> Mapping[str, Any]:
    """Return title, text, picture (HTML, None without a complete trial) and table of the front."""
    points = points_of(snapshot)
    return {
        "title": _front_title(snapshot, points.front),
        "words": _front_words(snapshot),
        "picture": front_picture(snapshot, points) if points.all else None,
        "rows": [*front_rows(snapshot), *baseline_rows(snapshot)],
    }


def _front_title(snapshot: StudySnapshot, front: Sequence[Trial[Completed]]) -> str:
    if not front:
        return "No trial is on the front yet"
    metric_name = metric_words(snapshot.metric_name)
    if len(front) == 1:
        return f"One trial is best in all of {metric_name}, memory and time: {name_of(front[0])}"
    metric = _span([t.outcome.metric for t in front], lambda value: human_metric(snapshot.metric_name, value))
    memory = _span([t.cost.peak_memory_mib for t in front], human_memory)
    time = _span([t.cost.wall_time_s for t in front], human_time)
    return f"{len(front)} trade-offs: {metric_name} {metric}, {memory}, {time}"


def _span(values: Sequence[float], human: Callable[[float], str]) -> str:
    """Return the range as text, with one unit where both ends have the same."""
    low, high = human(min(values)), human(max(values))
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number if high.endswith(f' {unit}') else low} to {high}"


def _front_words(snapshot: StudySnapshot) -> str:
    """Return the bounds and their uncertainty, which the picture does not show."""
    bounds = [f"Fits up to {human_memory(snapshot.budget_mib)}"]
    if snapshot.settings.max_time_s is not None:
        bounds.append(f"up to {human_time(snapshot.settings.max_time_s)}")
    estimates = f"memory and time are estimates for {snapshot.settings.device}"
    tap = " Tap a point to see what it is." * bool(snapshot.complete)
    compared = "" if full_fine_tuning_of(snapshot) is None else f"; {COMPARED}"
    agreement = agreement_text(snapshot)
    return f"{' and '.join(bounds)}; {estimates}; {ROWS_ERROR}{compared}.{tap}{f' {agreement}.' if agreement else ''}"


def _understood(snapshot: StudySnapshot) -> dict[str, str]:
    """Return the interpretation of the rows; nothing for an older study."""
    about = snapshot.meta.get("understood")
    return {} if about is None else {"rows": "; ".join(Understood.from_dict(about).lines())}


def _facts(snapshot: StudySnapshot) -> Mapping[str, str]:
    """Return versions and identities, which reproducing the study needs."""
    settings, meta = snapshot.settings, snapshot.meta
    job, versions = settings.job, meta.get("versions")
    return {
        **({name: str(version) for name, version in versions.items()} if isinstance(versions, Mapping) else {}),
        "data": f"{job.task}, {meta.get('data_source', 'source unknown')}, {job.data[:16]}",
        **_understood(snapshot),
        "model": f"{job.model}, {job.weights[:16]}",
        "device": f"{meta.get('device_title', settings.device)}, {settings.profile[:16]}",
        **({} if settings.engine == "torch" else {"engine": settings.engine}),
        "batch, length, seed": f"{job.batch_size} rows, {job.max_length} tokens, {job.seed}",
        "study": f"{snapshot.name}, {settings.fingerprint()}",
    }
