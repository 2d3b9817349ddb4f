"""The report of a study: one page that needs no network, with its pictures as files too."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from farsearch.files import MADE_BY
from farsearch.formatting import (
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
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.report.command import made_by, resume_command
from farsearch.report.figure import front_figure
from farsearch.report.history import course_section, curves_section
from farsearch.report.importance import importance_section
from farsearch.report.interactive import front_picture
from farsearch.report.layers import frozen_section, memory_section, time_section
from farsearch.report.measured import measured_section
from farsearch.report.points import Points, headline, points_of
from farsearch.report.reliability import selection_section, verified_section
from farsearch.report.section import Section, name_of, png
from farsearch.select import Intent, Preference, choose, objectives
from farsearch.significance import agreement_text
from farsearch.tasks.summary import Understood

__all__ = ["Report", "make_report"]

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


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        html: the page, complete in itself. About 5 MB, nearly all of it plotly's script.
        figures: PNG files by name, ``front.png`` and one for each picture of the page.
    """

    html: str
    figures: Mapping[str, bytes]


def make_report(snapshot: StudySnapshot) -> Report:
    """Everything that a study shows, as a page and as files. Takes a second or two, most of it for the pictures."""
    sections = [section for make in _SECTIONS if (section := make(snapshot)) is not None]
    sections.sort(key=lambda section: section.figure is None)  # pictures first, what can't be said last
    figures = {f"{section.name}.png": png(section.figure) for section in sections if section.figure is not None}
    parts = "\n".join(_section(section, figures.get(f"{section.name}.png")) for section in sections)
    title = html.escape(f"{snapshot.name}: {headline(snapshot)}")
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="generator" content="{MADE_BY}">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n{_head(snapshot)}\n{_front(snapshot)}\n"
        f'<div class="grid">\n{parts}\n</div>\n{_made(snapshot)}\n</body></html>\n'
    )
    return Report(page, {"front.png": png(front_figure(snapshot)), **figures})


_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""A browser keeps the page from asking a network for anything."""

_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;color:#262626;background:#fff;margin:0 auto;max-width:1040px;padding:.8em 1em}
h1{font-size:1.35em;margin:.2em 0 0}h2{font-size:1.08em;line-height:1.3;margin:0 0 .3em;text-wrap:balance}
p{margin:.2em 0 .6em;color:#5c5c5c;font-size:.9em}
section{margin:1.6em 0 0;min-width:0}img{display:block;width:100%;height:auto;max-width:560px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));column-gap:2.4em}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.6em;margin:.9em 0 0}
.card{border:1px solid #e4e4e4;border-radius:8px;padding:.5em .8em;font-size:.85em;color:#5c5c5c}
.card b{display:block;font-size:1.3em;color:#2f6db2;font-weight:650;white-space:nowrap}
.wide{overflow:auto;max-height:24em;border-top:1px solid #e4e4e4}
table{border-collapse:collapse;font-size:.85em;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{text-align:right;padding:.25em .8em;border-bottom:1px solid #e4e4e4}
th{font-weight:600;position:sticky;top:0;background:#fff}
pre{overflow-x:auto;background:#f6f6f6;border-radius:6px;padding:.6em .8em;font-size:.82em;white-space:pre-wrap;
overflow-wrap:anywhere;margin:.2em 0 .8em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;font-size:.85em;margin:0}
dt{color:#5c5c5c}dd{margin:0;overflow-wrap:anywhere}
"""


def _head(snapshot: StudySnapshot) -> str:
    """What the study is, and the four points of the front that are asked for most."""
    ended = sum(trial.state not in ("running", "waiting") for trial in snapshot.trials)
    job = snapshot.settings.job
    about = (
        f"study {snapshot.name} · {ended:,} of {snapshot.n_trials:,} trials · {job.train_samples:,} training and "
        f"{job.validation_samples:,} validation rows"
    )
    cards = "".join(_cards(snapshot))
    beside = constant_text(snapshot)
    more = f"<p>{_heading(beside)}</p>" if beside else ""
    return (
        f"<header><h1>{html.escape(headline(snapshot))}</h1><p>{html.escape(about)}</p>{more}"
        f'<div class="cards">{cards}</div></header>'
    )


_ASKED: tuple[tuple[Preference, str], ...] = (
    ("knee", "compromise"),
    ("accuracy", "best"),
    ("memory", "least memory"),
    ("time", "least time"),
)


def _cards(snapshot: StudySnapshot) -> Iterator[str]:
    if not any(objectives(trial) for trial in snapshot.front):
        return
    for prefer, words in _ASKED:
        trial = choose(snapshot, Intent(prefer=prefer)).trial
        figures = {
            "accuracy": human_metric(snapshot.metric_name, trial.metric, trial.metric_error),
            "memory": human_memory(trial.peak_memory_mib),
            "time": human_time(trial.wall_time_s),
        }
        large = figures.pop("accuracy" if prefer == "knee" else prefer)
        rest = "<br>".join(html.escape(each) for each in figures.values())
        yield f'<div class="card">{words} · trial {trial.number}<b>{html.escape(large)}</b>{rest}</div>'


def _front(snapshot: StudySnapshot) -> str:
    points = points_of(snapshot)
    picture = front_picture(snapshot, points) if points.all else "<p>No complete trial yet.</p>"
    table = _table([*front_rows(snapshot), *baseline_rows(snapshot)])
    title, words = _heading(_front_title(snapshot, points)), html.escape(_front_words(snapshot))
    return f'<section id="pareto"><h2>{title}</h2><p>{words}</p>\n{picture}\n{table}</section>'


def _front_title(snapshot: StudySnapshot, points: Points) -> str:
    front = points.front
    if not front:
        return "No trial is on the front yet"
    what = metric_words(snapshot.metric_name)
    if len(front) == 1:
        return f"One trial is best in all of {what}, memory and time: {name_of(front[0])}"
    metric = _span(front, lambda t: human_metric(snapshot.metric_name, t.metric), "metric")
    memory = _span(front, lambda t: human_memory(t.peak_memory_mib), "peak_memory_mib")
    time = _span(front, lambda t: human_time(t.wall_time_s), "wall_time_s")
    return f"{len(front)} trade-offs: {what} {metric}, {memory}, {time}"


def _span(trials: Sequence[TrialRecord], human: Callable[[TrialRecord], str], key: str) -> str:
    """From the least to the most, as people read it."""
    ordered = sorted(trials, key=lambda trial: getattr(trial, key))
    low, high = human(ordered[0]), human(ordered[-1])
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number if high.endswith(f' {unit}') else low} to {high}"


def _front_words(snapshot: StudySnapshot) -> str:
    """What does not show in the picture: the bounds, and how sure they are."""
    bounds = [f"Fits up to {human_memory(snapshot.budget_mib)}"]
    if snapshot.settings.max_time_s is not None:
        bounds.append(f"up to {human_time(snapshot.settings.max_time_s)}")
    estimates = f"memory and time are estimates for {snapshot.settings.device}"
    tap = " Tap a point to see what it is." * bool(snapshot.complete)
    agreement = agreement_text(snapshot)
    return f"{' and '.join(bounds)}; {estimates}; {ROWS_ERROR}.{tap}{f' {agreement}.' if agreement else ''}"


def _heading(title: str) -> str:
    """A title whose figures stay with their unit."""
    return html.escape(title.replace(" %", "\N{NO-BREAK SPACE}%"))


def _section(section: Section, picture: bytes | None) -> str:
    title, image = _heading(section.title), ""
    if picture is not None:
        data = base64.b64encode(picture).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{title}" loading="lazy">'
    words = f"<p>{html.escape(section.words)}</p>" if section.words else ""
    return f'<section id="{section.name}"><h2>{title}</h2>{words}{image}{_table(section.rows)}</section>'


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in a box of its own, which scrolls."""
    if not rows:
        return ""
    heads = heads_of(rows)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(row[name])}</td>' for name in heads)}</tr>\n" for row in rows)
    box = 'class="wide" tabindex="0"'  # so that the keyboard scrolls it too
    return f"<div {box}><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"


def _understood(snapshot: StudySnapshot) -> dict[str, str]:
    """What was understood of the rows; nothing in an older study."""
    about = snapshot.meta.get("understood")
    return {} if about is None else {"rows": "; ".join(Understood.from_dict(about).lines())}


def _made(snapshot: StudySnapshot) -> str:
    """Commands, versions and identities: all that it takes to get the same again."""
    commands = {"Made by": made_by(snapshot), "To go on with it, or to repeat it": resume_command(snapshot)}
    shown = "".join(
        f"<p>{title}:</p><pre>{html.escape(command)}</pre>" for title, command in commands.items() if command
    )
    settings, meta = snapshot.settings, snapshot.meta
    job, versions = settings.job, meta.get("versions")
    facts = {
        **({name: str(version) for name, version in versions.items()} if isinstance(versions, Mapping) else {}),
        "data": f"{job.task}, {meta.get('data_source', 'source unknown')}, {job.data[:16]}",
        **_understood(snapshot),
        "model": f"{job.model}, {job.weights[:16]}",
        "device": f"{meta.get('device_title', settings.device)}, {settings.profile[:16]}",
        "batch, length, seed": f"{job.batch_size} rows, {job.max_length} tokens, {job.seed}",
        "study": f"{snapshot.name}, {settings.fingerprint()}",
    }
    told = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return f'<section id="made"><h2>How it was made</h2>{shown}<dl>{told}</dl></section>'
