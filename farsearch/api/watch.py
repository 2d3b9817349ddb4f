"""A page that follows a search, served by this process: the report of a study, read again and drawn again."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from farsearch.api.mirror import with_predictions
from farsearch.errors import FarsearchError, MissingResource
from farsearch.formatting import human_time, metric_words, trial_rows
from farsearch.records import Running, StudySnapshot, flat
from farsearch.report.command import made_by, resume_command
from farsearch.report.watch import Progress, progress_html, report_html, watch_page
from farsearch.study.activity import Activity, activities
from farsearch.study.read_only import ReadingStore, running_since, stored_trials
from farsearch.study.snapshot import SnapshotReader
from farsearch.study.store import storage_errors

if TYPE_CHECKING:
    from farsearch.api.workspace import Workspace

__all__ = ["WatchServer"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PAUSE_PER_DRAWING = 9.0
"""Seconds without drawing for each second of drawing while this machine trains, because both take its cores."""

_ENDED = 5
"""Trials that are listed as ended last."""


class _Watched:
    """A study that is read at each request; while this machine trains, it is drawn for a tenth of the time.

    Where it can't be read, its last state remains, with the reason.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self._name = workspace, name
        self._reading, self._drawing = threading.Lock(), threading.Lock()
        self._store: ReadingStore | None = None
        self._reader: SnapshotReader | None = None
        self._to_draw: StudySnapshot | None = None
        self._version = self._drawn = 0
        self._html, self._draw_after = "", 0.0
        self._progress = Progress("", 0, 1)

    def read(self) -> None:
        """Read the study.

        Raises:
            BadInput: when it does not exist.
            MissingResource: when the storage can't be read.
        """
        with self._reading:
            try:
                snapshot, started = self._read()
            except FarsearchError:
                self._store = self._reader = None  # to be opened again
                raise
            here = activities(self._workspace.store().folder(self._name))
            self._progress = _progress(snapshot, here, started)
            due = not here or time.monotonic() >= self._draw_after
            if due and _content(snapshot) != _content(self._to_draw):
                self._to_draw = with_predictions(snapshot, self._workspace.store())
                self._version += 1

    def state(self) -> dict[str, Any]:
        """Return the progress as HTML, and the version of the report."""
        try:
            self.read()
            progress = self._progress
        except FarsearchError as error:
            warning = f"The study can't be read now: {error}. This is its last state."
            progress = Progress(self._progress.title, self._progress.done, self._progress.total, warning)
        return {"progress": progress_html(progress), "version": self._version}

    def report(self) -> str:
        """Return the report as a part of the page, drawn where it has changed."""
        with self._drawing:
            snapshot, version = self._to_draw, self._version
            assert snapshot is not None
            if self._drawn != version:
                began = time.monotonic()
                self._html, self._drawn = report_html(snapshot), version
                now = time.monotonic()
                self._draw_after = now + _PAUSE_PER_DRAWING * (now - began)
            return self._html

    def page(self) -> str:
        """Return the page with the last state that was read."""
        report = self.report()
        assert self._to_draw is not None
        return watch_page(self._to_draw, self._progress, report, self._drawn)

    def _read(self) -> tuple[StudySnapshot, Mapping[int, datetime]]:
        """Return the study, and the starts of its running trials."""
        store = self._store or ReadingStore(self._workspace.home, self._workspace.storage)
        if not store.exists():
            raise MissingResource(f"there is no study in {store.where} any more; start its farsearch run again")
        study = store.load(self._name)
        with storage_errors(store.where):
            trials = stored_trials(study)
        if self._reader is None or not self._reader.reads(study):
            self._reader = SnapshotReader(study)
        self._store = store
        return self._reader.snapshot(trials), running_since(trials)


def _content(snapshot: StudySnapshot | None) -> object:
    """Return what changes a report."""
    if snapshot is None:
        return None
    return snapshot.ended, snapshot.baselines, snapshot.verified, snapshot.measurements, snapshot.n_trials


def _progress(snapshot: StudySnapshot, here: Sequence[Activity], since: Mapping[int, datetime]) -> Progress:
    """Describe the progress of a search.

    Args:
        here: the trainings of this machine.
        since: the starts of running trials.
    """
    rows = {row["trial"]: row for row in trial_rows(snapshot)}
    running = [trial.number for trial in snapshot.trials if isinstance(trial.outcome, Running)]
    elsewhere = [number for number in running if number not in [one.number for one in here]]
    training = [_here_row(one, rows) for one in here]
    training += [_elsewhere_row(number, since.get(number), rows) for number in elsewhere]
    done, total = snapshot.finished, max(1, snapshot.n_trials)
    over = done >= total and not training
    left = None if over else _seconds_left(snapshot, here, len(training))
    title = f"{done} of {total} trials are done{'' if left is None else f', about {human_time(left)} left'}"
    metric = metric_words(snapshot.metric_name)
    ended = [rows[str(trial.number)] for trial in snapshot.ended[-_ENDED:]]
    shown = ("trial", metric, "memory", "time", "frozen", "also frozen", "rate", "state")
    return Progress(
        title=f"The search is finished: {title}" if over else title,
        done=done,
        total=total,
        hint="" if over or training else "Nothing is trained at the moment. If no run goes on, this resumes the study",
        command=resume_command(snapshot) or made_by(snapshot) or "",
        training=training,
        ended=[{name: row[name] for name in shown} for row in reversed(ended)],
    )


def _seconds_left(snapshot: StudySnapshot, here: Sequence[Activity], running: int) -> float | None:
    """Return the seconds until the last trial, at the mean pace of those that ended and those in training.

    None before the first step.
    """
    trials = [one for one in here if one.number is not None]
    paces = [seconds for trial in snapshot.ended if (seconds := flat(trial).host_seconds)]
    paces += [one.seconds * one.steps / one.step for one in trials if one.step]
    if not paces:
        return None
    pace = statistics.fmean(paces)
    begun = sum(min(pace, one.seconds) for one in trials)
    return max(0.0, pace * (snapshot.n_trials - snapshot.finished) - begun) / max(1, running)


def _here_row(one: Activity, rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    step = f"{one.step:,} of {one.steps:,}" if one.steps else ""
    epoch = f"{one.epoch:.2f} of {one.epochs:g}" if one.steps else ""
    loss = "" if one.loss is None else f"{one.loss:.3f}"
    state = {
        "phase": one.phase,
        "epoch": epoch,
        "step": step,
        "loss": loss,
        "for": human_time(one.seconds),
    }
    return {"training now": one.title, **state, **_settings(one.number, rows)}


def _elsewhere_row(number: int, since: datetime | None, rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the row of a running trial without a process on this machine: another's, or one that was killed."""
    seconds = None if since is None else max(0.0, (datetime.now() - since).total_seconds())
    state = {"phase": "not on this machine", "epoch": "", "step": "", "loss": "", "for": human_time(seconds)}
    return {"training now": f"trial {number}", **state, **_settings(number, rows)}


def _settings(number: int | None, rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the costs and the configuration of a trial; nothing for other trainings."""
    row = rows.get(str(number), {})
    return {name: row.get(name, "") for name in ("memory", "time", "frozen", "also frozen", "rate", "priming")}


class WatchServer(ThreadingHTTPServer):
    """Serves the page of a study.

    On a loopback address only requests to a name of this machine are answered, so that no page of another site can read
    the study under a name of its own.

    Args:
        host, port: to listen on; port 0 is any.

    Attributes:
        url: of the page.

    Raises:
        BadInput: when the study does not exist.
        MissingResource: when the storage can't be read, or the port is in use.
    """

    daemon_threads = True

    def __init__(self, workspace: Workspace, name: str, host: str, port: int) -> None:
        self.watched, self.host = _Watched(workspace, name), host
        self.watched.read()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            reason = f"port {port} of {host} can't be used: {error.strerror or error}"
            raise MissingResource(f"{reason}; give another `port` or `host`") from error
        self.url = f"http://{host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error of the program; a browser that leaves in the middle of an answer is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers ``/``, ``/state`` and ``/report``."""

    server: WatchServer

    def do_GET(self) -> None:
        """Answer a request of the page."""
        watched, path = self.server.watched, urlsplit(self.path).path
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.server.host in _LOOPBACK and name not in _LOOPBACK:
            self.send_error(421, "farsearch watch answers to names of this machine only")
        elif path == "/":
            self._send("text/html", watched.page())
        elif path == "/state":
            self._send("application/json", json.dumps(watched.state()))
        elif path == "/report":
            self._send("text/html", watched.report())
        else:
            self.send_error(404)

    def _send(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""
