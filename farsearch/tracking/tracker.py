"""The mirror as a whole: syncing a study into MLflow and reading it back."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from farsearch.errors import MissingResource
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.tracking.artifacts import write_files
from farsearch.tracking.connection import Connection, connect
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

__all__ = ["SyncResult", "Tracker", "open_tracking"]

Progress = Callable[[int, int], None]
Spans = Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class SyncResult:
    """Trials by what a sync did with their runs; ``removed`` counts runs that mirrored no trial, or one twice."""

    created: int
    updated: int
    unchanged: int
    removed: int = 0


def open_tracking(uri: str) -> Tracker:
    """The mirror at ``uri``: ``sqlite:///mlflow.db``, created where it is not there yet, or ``http://host:port``.

    Raises:
        BadInput: for another kind of address.
        MissingResource: where the server does not answer or the database can't be used.
    """
    return Tracker(connect(uri))


class Tracker:
    """The mirror in one MLflow database or server. Made by ``open_tracking``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def uri(self) -> str:
        """The address, a database's with an absolute path."""
        return self._connection.uri

    def sync(self, snapshot: StudySnapshot, progress: Progress | None = None) -> SyncResult:
        """Makes MLflow show ``snapshot`` and writes only what differs.

        Args:
            progress: called after each trial with the number of trials done and their total.

        Raises:
            MissingResource: where the server does not answer or the database can't be written. What was written
                stays, and the next sync goes on from there.
        """
        with self._connection.writing() as client:
            experiment = self._experiment(client, snapshot)
            runs = read_runs(client, experiment, snapshot.name)
            numbers = {trial.number for trial in snapshot.trials}
            stale = [run for number, held in runs.children.items() for run in held[number in numbers :]]
            for run in [*runs.parents[1:], *stale]:
                client.delete_run(run.info.run_id)
            kept = {number: held[0] for number, held in runs.children.items() if number in numbers}
            spans = _spans([trial for trial in snapshot.trials if trial.number not in kept])
            begin = min((start for start, _ in spans.values()), default=_now_ms())
            parent = _write_parent(client, experiment, next(iter(runs.parents), None), snapshot, begin)
            done = _write_trials(client, experiment, parent, kept, snapshot, spans, progress)
        return SyncResult(done["created"], done["updated"], done["unchanged"], len(stale))

    def trials(self, study: str) -> dict[int, dict[str, dict[str, Any]]]:
        """What MLflow holds of ``study``, by number of the trial: ``params`` (texts), ``metrics`` and ``tags``."""
        with self._connection.reading() as client:
            experiment = client.get_experiment_by_name(family(study))
            runs = read_runs(client, experiment.experiment_id, study).children if experiment is not None else {}
        first = {number: held[0].data for number, held in sorted(runs.items())}
        return {n: {"params": data.params, "metrics": data.metrics, "tags": data.tags} for n, data in first.items()}

    def differences(self, snapshot: StudySnapshot) -> list[str]:
        """``trial 3 metrics.wall_time_s: 1.5 in MLflow, 2.5 in the study`` for each value that differs; else []."""
        held = self.trials(snapshot.name)
        wanted = {trial.number: _values(trial_content(snapshot, trial)) for trial in snapshot.trials}
        found = []
        for number in sorted({*held, *wanted}):
            here, there = _flat(held.get(number, {})), _flat(wanted.get(number, {}))
            # MLflow adds tags of its own, and users may.
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
        with self._connection.reading() as client:
            experiment = client.get_experiment_by_name(family(study))
        if experiment is None:
            raise MissingResource(f"MLflow at {self.uri} does not hold study {study!r}; farsearch sync puts it there")
        view = f"workflowType=machine_learning&viewStateShareKey={saved_view_id(study)}"
        return f"#/experiments/{experiment.experiment_id}/runs?{view}"

    def _experiment(self, client: MlflowClient, snapshot: StudySnapshot) -> str:
        """Id of the experiment of the study's family, made or brought back, with description and saved views."""
        name = family(snapshot.name)
        location = self._connection.artifact_location(name)
        experiment = client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        if experiment is not None and _moved(experiment, location):
            # MLflow can't change where artifacts go: its runs would write to where the folder was.
            client.rename_experiment(experiment.experiment_id, f"{name} (before a move, {time.time_ns()})")
            client.delete_experiment(experiment.experiment_id)
            experiment = None
        if experiment is None:
            experiment = _create_experiment(client, name, location)
        for key, value in experiment_tags(snapshot).items():
            # Siblings share the experiment: only the study that it is named after may change what another wrote.
            if experiment.tags.get(key) != value and (snapshot.name == name or key not in experiment.tags):
                client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)


def _moved(experiment: Experiment, location: str | None) -> bool:
    """Whether the database was moved to another folder since the experiment was made."""
    held = experiment.artifact_location
    if location is None or held == location or not held.startswith("file:"):
        return False
    return not Path(urllib.request.url2pathname(held.removeprefix("file://"))).exists()


def _create_experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    try:
        made = client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        held = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or held is None:
            raise
        return held  # another host was faster
    return client.get_experiment(made)


def _write_parent(client: MlflowClient, experiment: str, held: Run | None, snapshot: StudySnapshot, begin: int) -> str:
    """Writes the study's own run and, where what they show has changed, its artifacts. The run's id."""
    content, span = study_content(snapshot), (begin, _now_ms())
    run_id, _ = write_run(client, experiment, held, content, span, dataset_of(snapshot.settings.job))
    digest = shown_digest(snapshot, content)
    known = held is not None and held.info.run_id == run_id and held.data.tags.get(TAG_ARTIFACTS) == digest
    if not known or not client.list_artifacts(run_id):
        with TemporaryDirectory() as folder:
            write_files(snapshot, Path(folder))
            client.log_artifacts(run_id, folder)
        client.set_tag(run_id, TAG_ARTIFACTS, digest)
    return run_id


def _write_trials(
    client: MlflowClient,
    experiment: str,
    parent: str,
    held: Mapping[int, Run],
    snapshot: StudySnapshot,
    spans: Spans,
    progress: Progress | None,
) -> dict[Outcome, int]:
    """Writes the runs of all trials that differ; how many were created, updated and unchanged."""
    dataset = dataset_of(snapshot.settings.job)
    done: dict[Outcome, int] = {"created": 0, "updated": 0, "unchanged": 0}
    for i, trial in enumerate(snapshot.trials, start=1):
        content = trial_content(snapshot, trial)
        content = replace(content, tags={**content.tags, "mlflow.parentRunId": parent})
        now = _now_ms()
        _, outcome = write_run(
            client, experiment, held.get(trial.number), content, spans.get(trial.number, (now, now)), dataset
        )
        done[outcome] += 1
        if progress is not None:
            progress(i, len(snapshot.trials))
    return done


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _spans(trials: Sequence[TrialRecord]) -> Spans:
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
    last = max(content.curve, key=lambda point: point.step, default=None)
    loss = {} if last is None else {LOSS: last.loss}
    return {"params": content.params, "metrics": {**content.metrics, **loss}, "tags": content.tags}


def _flat(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{kind}.{key}": value for kind, held in values.items() for key, value in held.items()}
