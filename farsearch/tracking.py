"""An idempotent mirror of a study in MLflow, which can be rebuilt from the study at any time. The only home of mlflow.

An experiment holds a study and its siblings, a parent run a study, a child run a trial. ``Tracker.sync`` reads what MLflow
has with one paged search and writes only what differs: a run's values are skipped when the hash that they were written
with is unchanged, tags are compared one by one. A run that can't be changed in place is replaced.

MLflow's active run is state of a thread, so everything here goes through ``MlflowClient`` with explicit run ids.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from farsearch.errors import BadInput, MissingResource
from farsearch.mirror import (
    TAG_ARTIFACTS,
    TAG_DIGEST,
    TAG_ROLE,
    TAG_STUDY,
    TAG_TRIAL,
    RunContent,
    experiment_tags,
    family,
    saved_view_id,
    shown_digest,
    study_content,
    trial_content,
)
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.tables import front_markdown, front_rows, trials_json

__all__ = ["SyncResult", "Tracker", "open_tracking", "ui_command"]

_LOCK_SECONDS = 120.0
"""Longer than any sync of one trial; a first sync of thousands holds the lock for minutes."""
_ALIVE_SECONDS = 5.0
_METRICS_A_BATCH, _PARAMS_A_BATCH, _TAGS_A_BATCH = 800, 100, 90
"""MLflow takes 1000 values a batch in all, of which 100 parameters and 100 tags."""
_PAGE = 1000
_ENDED = ("FINISHED", "FAILED", "KILLED")

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
    # A search on someone's own data tells no third party that it runs.
    if not MLFLOW_DISABLE_TELEMETRY.is_set():
        MLFLOW_DISABLE_TELEMETRY.set(True)
    set_telemetry_client()
    if uri.startswith("sqlite:///"):
        return _open_sqlite(Path(uri.removeprefix("sqlite:///").split("?", 1)[0]).absolute())
    if uri.startswith(("http://", "https://")):
        tracker = Tracker(MlflowClient(tracking_uri=uri), uri, database=None)
        tracker.check()
        return tracker
    raise BadInput(f"tracking URI {uri!r} is neither sqlite:///FILE nor http(s)://HOST:PORT; give one of these")


def _open_sqlite(database: Path) -> Tracker:
    uri = f"sqlite:///{database.as_posix()}"
    with _boundary(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
        with _lock(database):
            _check_sqlite(database)
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
    return Tracker(client, uri, database)


def _check_sqlite(database: Path) -> None:
    """Fails at once where MLflow would try for half an hour: it retries every failure to open a database."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()


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
            f"MLflow at {uri} is held by another farsearch process for over {_LOCK_SECONDS:.0f} s; try again when it is done"
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
        self._client = client
        self._database = database
        self.uri = uri

    def check(self) -> None:
        """Raises MissingResource at once where the server does not answer: MLflow itself would try for minutes."""
        if self._database is not None:
            return
        try:
            urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=_ALIVE_SECONDS).close()
        except urllib.error.HTTPError:
            return  # it answers: behind a proxy, /health may be closed
        except (OSError, ValueError) as error:
            raise MissingResource(
                f"MLflow server {self.uri} does not answer ({_first_line(error)}); start it or give another --tracking-uri"
            ) from error

    def sync(self, snapshot: StudySnapshot, progress: Progress | None = None) -> SyncResult:
        """Makes MLflow show ``snapshot`` and writes only what differs.

        Args:
            progress: called with the number of trials done and their total after each one.

        Raises:
            MissingResource: where the server does not answer or the database can't be written. What was written
                stays, and the next sync goes on from there.
        """
        self.check()
        lock = contextlib.nullcontext() if self._database is None else _lock(self._database)
        with _boundary(self.uri), lock:
            experiment = self._experiment(snapshot)
            parents, children = self._runs(experiment.experiment_id, snapshot.name)
            numbers = {trial.number for trial in snapshot.trials}
            stale = [run for number, runs in children.items() for run in (runs[1:] if number in numbers else runs)]
            for run in [*parents[1:], *stale]:
                self._client.delete_run(run.info.run_id)
            parent = self._write_parent(experiment.experiment_id, parents, snapshot)
            kept = {number: runs[0] for number, runs in children.items() if number in numbers}
            done = self._write_children(experiment.experiment_id, parent, kept, snapshot, progress)
            self._write_artifacts(parent, snapshot)
        return SyncResult(*done, removed=len(stale))

    def trials(self, study: str) -> dict[int, dict[str, dict[str, Any]]]:
        """What MLflow holds of ``study``: ``params`` (texts), ``metrics`` and ``tags`` by number of the trial."""
        self.check()
        with _boundary(self.uri):
            experiment = self._client.get_experiment_by_name(family(study))
            if experiment is None:
                return {}
            _, children = self._runs(experiment.experiment_id, study)
        return {
            number: {"params": run[0].data.params, "metrics": run[0].data.metrics, "tags": run[0].data.tags}
            for number, run in sorted(children.items())
        }

    def differences(self, snapshot: StudySnapshot) -> list[str]:
        """``trial 3 metrics.wall_time_s: MLflow 1.5, study 2.5`` for each value that MLflow holds wrongly; empty when all agree."""
        held = self.trials(snapshot.name)
        found = [f"trial {number}: in MLflow only" for number in held if number not in _numbers(snapshot)]
        for trial in snapshot.trials:
            content = trial_content(snapshot, trial)
            wanted: dict[str, Mapping[str, Any]] = {
                "params": content.params,
                "metrics": content.metrics | _last_loss(content),
                "tags": content.tags,
            }
            for kind, values in wanted.items():
                here = held.get(trial.number, {}).get(kind, {})
                keys = set(values) | (set(here) if kind != "tags" else set())
                found += [
                    f"trial {trial.number} {kind}.{key}: MLflow {here.get(key)!r}, study {values.get(key)!r}"
                    for key in sorted(keys)
                    if here.get(key) != values.get(key)
                ]
        return found

    def experiment_url_path(self, study: str) -> str:
        """The part of the UI's address that shows ``study``: its runs table with the columns that matter.

        Raises:
            MissingResource: where MLflow does not hold the study.
        """
        self.check()
        with _boundary(self.uri):
            experiment = self._client.get_experiment_by_name(family(study))
        if experiment is None:
            raise MissingResource(f"MLflow at {self.uri} does not hold study {study!r}; farsearch sync puts it there")
        return f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={saved_view_id(study)}"

    def _experiment(self, snapshot: StudySnapshot) -> Experiment:
        """The experiment of the study's family, made or brought back, with description and saved views."""
        name = family(snapshot.name)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        if experiment is not None and self._moved(experiment):
            # MLflow keeps absolute paths: after a move its runs would go on writing to where they were.
            self._client.rename_experiment(experiment.experiment_id, f"{name} (moved {time.time():.0f})")
            self._client.delete_experiment(experiment.experiment_id)
            experiment = None
        if experiment is None:
            experiment = self._create_experiment(name)
        for key, value in experiment_tags(snapshot).items():
            if experiment.tags.get(key) != value:
                self._client.set_experiment_tag(experiment.experiment_id, key, value)
        return experiment

    def _create_experiment(self, name: str) -> Experiment:
        location = None if self._database is None else (self._artifact_root(self._database) / name).as_uri()
        try:
            return self._client.get_experiment(self._client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        existing = self._client.get_experiment_by_name(name)
        assert existing is not None
        return existing

