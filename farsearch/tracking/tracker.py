"""The mirror as a whole: opening it, syncing a study into it, reading it back, and MLflow's own interface to it."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout
from mlflow import MlflowClient, environment_variables
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from farsearch.errors import BadInput, MissingResource
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.tables import front_markdown, front_rows, trials_json
from farsearch.tracking.content import (
    LOSS,
    TAG_ARTIFACTS,
    RunContent,
    family,
    shown_digest,
    study_content,
    trial_content,
)
from farsearch.tracking.runs import Outcome, dataset_of, read_runs, write_run
from farsearch.tracking.views import experiment_tags, saved_view_id

__all__ = ["SyncResult", "Tracker", "open_tracking", "ui_command"]

_LOCK_SECONDS = 120.0
"""How long a sync waits for another one; that of a single trial takes a fraction of a second."""
_ALIVE_SECONDS = 5.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SyncResult:
    """Trials by what a sync did with their runs; ``removed`` counts runs that mirrored no trial, or one twice."""

    created: int
    updated: int
    unchanged: int
    removed: int = 0


def open_tracking(uri: str) -> Tracker:
    """The mirror at ``uri``: ``sqlite:///mlflow.db`` or ``http://host:port``.

    A database that is not there yet is created, by one process at a time.

    Raises:
        BadInput: for another kind of address.
        MissingResource: where the server does not answer or the database can't be used.
    """
    _set_defaults()
    if uri.startswith("sqlite:///"):
        return _open_sqlite(_database(uri))
    if uri.startswith(("http://", "https://")):
        tracker = Tracker(MlflowClient(tracking_uri=uri), uri, database=None)
        tracker.check()
        return tracker
    raise BadInput(f"tracking URI {uri!r} is neither sqlite:///FILE nor http(s)://HOST:PORT; give one of these")


def ui_command(uri: str, port: int) -> list[str]:
    """The command that shows the mirror at ``uri`` in a browser, on this machine alone: one process, no access log.

    Raises:
        BadInput: for a server, which has its own interface.
    """
    if not uri.startswith("sqlite:///"):
        raise BadInput(f"tracking URI {uri!r} is a server and shows its own interface; open that address in a browser")
    database = _database(uri)
    options = {
        "--backend-store-uri": f"sqlite:///{database.as_posix()}",
        "--artifacts-destination": str(database.parent / "mlartifacts"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--uvicorn-opts": "--log-level warning",
    }
    return [sys.executable, "-m", "mlflow", "ui", *(word for option in options.items() for word in option)]


def _database(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///").split("?", 1)[0]).absolute()


def _set_defaults() -> None:
    """MLflow is told in its own variables, which win where the user has set them, to keep to itself.

    No usage data goes to third parties, no links are printed between our data, and a server that is gone is given up
    after seconds instead of minutes: the study goes on and the next sync catches up.
    """
    defaults = {
        environment_variables.MLFLOW_DISABLE_TELEMETRY: True,
        environment_variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: True,
        environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES: 2,
    }
    for variable, value in defaults.items():
        if not variable.is_set():
            variable.set(value)
    set_telemetry_client()


def _open_sqlite(database: Path) -> Tracker:
    uri = f"sqlite:///{database.as_posix()}"
    with _boundary(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
        with _lock(database):
            # MLflow would try for minutes: it repeats every failure to open a database.
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
    return Tracker(client, uri, database)


def _lock(database: Path) -> FileLock:
    return FileLock(f"{database}.lock", timeout=_LOCK_SECONDS)


@contextlib.contextmanager
def _boundary(uri: str) -> Iterator[None]:
    """Vendors' errors become one line of ours, and their logs, which repeat them with a traceback, are silent."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except Timeout as error:
        raise MissingResource(
            f"MLflow at {uri} is held by another process for over {_LOCK_SECONDS:.0f} s; try again when that is done"
        ) from error
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise MissingResource(
            f"MLflow at {uri} can't be used ({_first_line(error)}); mend or remove it, then farsearch sync rebuilds it"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    """What went wrong in the vendor's words, without SQL, links and traceback."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()[:200]


class Tracker:
    """One MLflow database or server. Made by ``open_tracking``."""

    def __init__(self, client: MlflowClient, uri: str, database: Path | None) -> None:
        self.uri = uri
        self._client = client
        self._database = database

    def check(self) -> None:
        """Raises MissingResource within seconds where the server does not answer."""
        if self._database is not None:
            return
        try:
            urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=_ALIVE_SECONDS).close()
        except urllib.error.HTTPError:
            return  # it answers: a proxy may keep /health to itself
        except (OSError, ValueError) as error:
            raise MissingResource(
                f"MLflow server {self.uri} does not answer ({_first_line(error)}); start it or give another tracking URI"
            ) from error

    def sync(self, snapshot: StudySnapshot, progress: Progress | None = None) -> SyncResult:
        """Makes MLflow show ``snapshot`` and writes only what differs.

        Args:
            progress: called after each trial with the number of trials done and their total.

        Raises:
            MissingResource: where the server does not answer or the database can't be written. What was written
                stays, and the next sync goes on from there.
        """
        self.check()
        lock = contextlib.nullcontext() if self._database is None else _lock(self._database)
        with _boundary(self.uri), lock:
            experiment = self._experiment(snapshot)
            runs = read_runs(self._client, experiment, snapshot.name)
            numbers = {trial.number for trial in snapshot.trials}
            stale = [run for number, held in runs.children.items() for run in held[number in numbers :]]
            for run in [*runs.parents[1:], *stale]:
                self._client.delete_run(run.info.run_id)
            kept = {number: held[0] for number, held in runs.children.items() if number in numbers}
            spans = _spans([trial for trial in snapshot.trials if trial.number not in kept])
            begin = min((start for start, _ in spans.values()), default=_now_ms())
            parent = self._write_parent(experiment, next(iter(runs.parents), None), snapshot, begin)
            done = self._write_trials(experiment, parent, kept, snapshot, spans, progress)
        return SyncResult(done["created"], done["updated"], done["unchanged"], len(stale))

    def trials(self, study: str) -> dict[int, dict[str, dict[str, Any]]]:
        """What MLflow holds of ``study``, by number of the trial: ``params`` (texts), ``metrics`` and ``tags``."""
        self.check()
        with _boundary(self.uri):
            experiment = self._client.get_experiment_by_name(family(study))
            runs = read_runs(self._client, experiment.experiment_id, study).children if experiment is not None else {}
        first = {number: held[0].data for number, held in sorted(runs.items())}
        return {n: {"params": data.params, "metrics": data.metrics, "tags": data.tags} for n, data in first.items()}

    def differences(self, snapshot: StudySnapshot) -> list[str]:
        """``trial 3 metrics.wall_time_s: 1.5 in MLflow, 2.5 in the study`` for each value that differs; [] where all agree."""
        held = self.trials(snapshot.name)
        wanted = {trial.number: _values(trial_content(snapshot, trial)) for trial in snapshot.trials}
        found = []
        for number in sorted({*held, *wanted}):
            here, there = _flat(held.get(number, {})), _flat(wanted.get(number, {}))
            # Users may tag runs as they like, MLflow does.
            keys = {key for key in here if not key.startswith("tags.")} | set(there)
            found += [
                f"trial {number} {key}: {here.get(key)!r} in MLflow, {there.get(key)!r} in the study"
                for key in sorted(keys)
                if here.get(key) != there.get(key)
            ]
        return found

    def experiment_url_path(self, study: str) -> str:
        """The part of the interface's address that shows ``study``: its front, in the columns that matter.

        Raises:
            MissingResource: where MLflow does not hold the study.
        """
        self.check()
        with _boundary(self.uri):
            experiment = self._client.get_experiment_by_name(family(study))
        if experiment is None:
            raise MissingResource(f"MLflow at {self.uri} does not hold study {study!r}; farsearch sync puts it there")
        view = f"workflowType=machine_learning&viewStateShareKey={saved_view_id(study)}"
        return f"#/experiments/{experiment.experiment_id}/runs?{view}"

    def _experiment(self, snapshot: StudySnapshot) -> str:
        """Id of the experiment of the study's family, made or brought back, with description and saved views."""
        name = family(snapshot.name)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        if experiment is not None and self._moved(experiment):
            # MLflow keeps absolute paths: its runs would go on writing to where the folder was.
            self._client.rename_experiment(experiment.experiment_id, f"{name} (before a move, {time.time_ns()})")
            self._client.delete_experiment(experiment.experiment_id)
            experiment = None
        if experiment is None:
            experiment = self._create_experiment(name)
        for key, value in experiment_tags(snapshot).items():
            # Siblings share the experiment: only the study that it is named after may change what another wrote.
            if experiment.tags.get(key) != value and (snapshot.name == name or key not in experiment.tags):
                self._client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def _artifact_location(self, name: str) -> str | None:
        """Beside the database, in the folder of MLflow's own server; None leaves the choice to a server."""
        return None if self._database is None else (self._database.parent / "mlartifacts" / name).as_uri()

    def _moved(self, experiment: Experiment) -> bool:
        """Whether the database was moved to another folder since the experiment was made."""
        wanted, held = self._artifact_location(experiment.name), experiment.artifact_location
        if wanted is None or held == wanted or not held.startswith("file:"):
            return False
        return not Path(urllib.request.url2pathname(held.removeprefix("file://"))).exists()

    def _create_experiment(self, name: str) -> Experiment:
        try:
            made = self._client.create_experiment(name, artifact_location=self._artifact_location(name))
        except MlflowException as error:
            held = self._client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or held is None:
                raise
            return held  # another host was faster
        return self._client.get_experiment(made)

    def _write_parent(self, experiment: str, held: Run | None, snapshot: StudySnapshot, begin: int) -> str:
        """Writes the study's own run and, where what they show has changed, its artifacts. The run's id."""
        content, span = study_content(snapshot), (begin, _now_ms())
        run_id, _ = write_run(self._client, experiment, held, content, span, dataset_of(snapshot.settings.job))
        digest = shown_digest(snapshot, content)
        known = held is not None and held.info.run_id == run_id and held.data.tags.get(TAG_ARTIFACTS) == digest
        if not known or not self._client.list_artifacts(run_id):
            with TemporaryDirectory() as folder:
                _write_files(snapshot, Path(folder))
                self._client.log_artifacts(run_id, folder)
            self._client.set_tag(run_id, TAG_ARTIFACTS, digest)
        return run_id

    def _write_trials(
        self,
        experiment: str,
        parent: str,
        held: Mapping[int, Run],
        snapshot: StudySnapshot,
        spans: Mapping[int, tuple[int, int]],
        progress: Progress | None,
    ) -> dict[Outcome, int]:
        """Writes the runs of all trials that differ; how many were created, updated and unchanged."""
        dataset = dataset_of(snapshot.settings.job)
        done: dict[Outcome, int] = {"created": 0, "updated": 0, "unchanged": 0}
        for i, trial in enumerate(snapshot.trials, start=1):
            content = trial_content(snapshot, trial)
            content = replace(content, tags={**content.tags, "mlflow.parentRunId": parent})
            now = _now_ms()
            span = spans.get(trial.number, (now, now))
            _, outcome = write_run(self._client, experiment, held.get(trial.number), content, span, dataset)
            done[outcome] += 1
            if progress is not None:
                progress(i, len(snapshot.trials))
        return done


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _spans(trials: Sequence[TrialRecord]) -> dict[int, tuple[int, int]]:
    """Start and end of new runs in ms, by number: laid end to end by the trials' own seconds, the last ending now.

    A study that is mirrored as it goes has one at a time and so its true times; one that is mirrored again as a whole
    keeps its order and its durations.
    """
    spans: dict[int, tuple[int, int]] = {}
    end = _now_ms()
    for trial in sorted(trials, key=lambda t: t.number, reverse=True):
        start = end - round(1000 * (trial.host_seconds or 0.0))
        spans[trial.number] = (start, end)
        end = start
    return spans


def _values(content: RunContent) -> dict[str, Mapping[str, Any]]:
    """``content`` in the shape of ``Tracker.trials``: of the learning curve, the last point."""
    last = {LOSS: point.loss for point in sorted(content.curve, key=lambda point: point.step)}
    return {"params": content.params, "metrics": {**content.metrics, **last}, "tags": content.tags}


def _flat(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{kind}.{key}": value for kind, held in values.items() for key, value in held.items()}


def _write_files(snapshot: StudySnapshot, folder: Path) -> None:
    """The artifacts of a study's run: its front as data, table, picture and page, and what the study is."""
    from farsearch.report import front_html, save_front_png  # half a second that reading MLflow need not wait for

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    write("front.json", json.dumps(trials_json(snapshot, snapshot.front), indent=1))
    write("front.md", front_markdown(snapshot))
    write("front.html", front_html(snapshot))
    about = {"settings": snapshot.settings.to_dict(), "rejected": dict(snapshot.rejected), "meta": dict(snapshot.meta)}
    write("study.json", json.dumps(about, indent=1, default=str))
    save_front_png(snapshot, folder / "front.png")
    rows = front_rows(snapshot)
    with (folder / "front.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["trial"])
        table.writeheader()
        table.writerows(rows)
