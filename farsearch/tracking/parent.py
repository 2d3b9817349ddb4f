"""Parents of the trials' runs: the experiment of a study, and the study's own run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from farsearch.records import StudySnapshot
from farsearch.tracking.artifacts import write_files, write_report
from farsearch.tracking.connection import Connection
from farsearch.tracking.content import (
    TAG_ARTIFACTS,
    TAG_MIRRORED,
    RunContent,
    family,
    has_report,
)
from farsearch.tracking.digests import shown_digest, study_digest
from farsearch.tracking.runs import count_deleted, dataset_of, write_run
from farsearch.tracking.views import experiment_tags

__all__ = ["is_mirrored", "mark_mirrored", "unmark", "write_artifacts", "write_experiment", "write_parent"]


_REPORTED = "report"
"""Suffix of the artifacts' hash where the report is included."""


def write_experiment(client: MlflowClient, connection: Connection, snapshot: StudySnapshot) -> str:
    """Return the id of the study's experiment, created or restored, with description and saved views."""
    name = family(snapshot.name)
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if experiment is None:
        experiment = _create_experiment(client, name, connection.artifact_location(name), experiment_tags(snapshot))
    for key, value in experiment_tags(snapshot, experiment.experiment_id).items():
        # auxiliary studies share the experiment: only the study that it is named after may overwrite tags
        if experiment.tags.get(key) != value and (snapshot.name == name or key not in experiment.tags):
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


def _create_experiment(client: MlflowClient, name: str, location: str | None, tags: Mapping[str, str]) -> Experiment:
    try:
        # with its tags from the start: they identify its artifacts after a move
        made = client.create_experiment(name, location, dict(tags))
    except MlflowException as error:
        held = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or held is None:
            raise
        return held  # another host was faster
    return client.get_experiment(made)


def write_parent(
    client: MlflowClient, experiment: str, held: Run | None, snapshot: StudySnapshot, content: RunContent, begin: int
) -> str:
    """Write the study's own run, without its artifacts. Return the run's id."""
    span = (begin, time.time_ns() // 1_000_000)
    run_id, _ = write_run(client, experiment, held, content, span, dataset_of(snapshot.settings.job))
    return run_id


def unmark(client: MlflowClient, parent: Run) -> None:
    """Record that runs are being written: until that is complete, the next sync compares all of them."""
    if parent.data.tags.get(TAG_MIRRORED):
        client.set_tag(parent.info.run_id, TAG_MIRRORED, "")


def write_artifacts(
    connection: Connection, parent: str, snapshot: StudySnapshot, content: RunContent, report: bool
) -> None:
    """Write the artifacts of the study's run if their content has changed or they are missing.

    Args:
        report: include the report, which takes seconds. Otherwise an existing one is not changed.
    """
    digest = shown_digest(snapshot, content)
    reported = f"{digest} {_REPORTED}"
    wanted = reported if report and has_report(snapshot) else digest
    run = connection.client.get_run(parent)
    artifacts = connection.artifacts_of(run)
    if run.data.tags.get(TAG_ARTIFACTS) in (wanted, reported) and artifacts.list_artifacts():
        return
    with TemporaryDirectory() as folder:
        write_files(snapshot, Path(folder))
        if wanted == reported:
            write_report(snapshot, Path(folder))
        artifacts.log_artifacts(folder)
    connection.client.set_tag(parent, TAG_ARTIFACTS, wanted)


def is_mirrored(
    client: MlflowClient, experiment: str, parent: Run, snapshot: StudySnapshot, content: RunContent
) -> bool:
    """Return whether all runs of the study are up to date, and none was deleted since."""
    held = parent.data.tags.get(TAG_MIRRORED, "")
    return bool(held) and held == _mark(client, experiment, snapshot, content)


def mark_mirrored(
    client: MlflowClient, experiment: str, parent: str, snapshot: StudySnapshot, content: RunContent
) -> None:
    """Record that all runs of the study are written."""
    client.set_tag(parent, TAG_MIRRORED, _mark(client, experiment, snapshot, content))


def _mark(client: MlflowClient, experiment: str, snapshot: StudySnapshot, content: RunContent) -> str:
    """Return the study's digest and its number of deleted runs, which detects deletions without reading the runs."""
    return f"{study_digest(snapshot, content)} {count_deleted(client, experiment, snapshot.name)}"
