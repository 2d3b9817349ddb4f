"""What stands above the runs of trials: the experiment of a study's family, and the study's own run."""

from __future__ import annotations

import time
import urllib.request
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
    shown_digest,
    study_digest,
)
from farsearch.tracking.runs import count_deleted, dataset_of, write_run
from farsearch.tracking.views import experiment_tags

__all__ = ["is_mirrored", "mark_mirrored", "unmark", "write_artifacts", "write_experiment", "write_parent"]


_REPORTED = "report"
"""After the hash of what the artifacts show: the report shows it too."""


def write_experiment(client: MlflowClient, connection: Connection, snapshot: StudySnapshot) -> str:
    """Id of the experiment of the study's family, made or brought back, with description and saved views."""
    name = family(snapshot.name)
    location = connection.artifact_location(name)
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


def write_parent(
    client: MlflowClient, experiment: str, held: Run | None, snapshot: StudySnapshot, content: RunContent, begin: int
) -> str:
    """Writes the study's own run, without its artifacts. The run's id."""
    span = (begin, time.time_ns() // 1_000_000)
    run_id, _ = write_run(client, experiment, held, content, span, dataset_of(snapshot.settings.job))
    return run_id


def unmark(client: MlflowClient, parent: Run) -> None:
    """Notes that runs are being written: until that is done, the next sync looks at all of them."""
    if parent.data.tags.get(TAG_MIRRORED):
        client.set_tag(parent.info.run_id, TAG_MIRRORED, "")


def write_artifacts(
    client: MlflowClient, parent: str, snapshot: StudySnapshot, content: RunContent, report: bool
) -> None:
    """Draws and writes the artifacts of the study's run where what they show has changed, or they are gone.

    Args:
        report: the report too, which takes seconds. Without it, the one that is there stays as it is.
    """
    digest = shown_digest(snapshot, content)
    reported = f"{digest} {_REPORTED}"
    wanted = reported if report and has_report(snapshot) else digest
    if client.get_run(parent).data.tags.get(TAG_ARTIFACTS) in (wanted, reported) and client.list_artifacts(parent):
        return
    with TemporaryDirectory() as folder:
        write_files(snapshot, Path(folder))
        if wanted == reported:
            write_report(snapshot, Path(folder))
        client.log_artifacts(parent, folder)
    client.set_tag(parent, TAG_ARTIFACTS, wanted)


def is_mirrored(
    client: MlflowClient, experiment: str, parent: Run, snapshot: StudySnapshot, content: RunContent
) -> bool:
    """Whether all runs of the study were written as they are to be, and none was deleted since."""
    held = parent.data.tags.get(TAG_MIRRORED, "")
    return bool(held) and held == _mark(client, experiment, snapshot, content)


def mark_mirrored(
    client: MlflowClient, experiment: str, parent: str, snapshot: StudySnapshot, content: RunContent
) -> None:
    """Notes that all runs of the study are written."""
    client.set_tag(parent, TAG_MIRRORED, _mark(client, experiment, snapshot, content))


def _mark(client: MlflowClient, experiment: str, snapshot: StudySnapshot, content: RunContent) -> str:
    """What is mirrored, and how many runs were deleted: by that a deletion is noticed without reading the others."""
    return f"{study_digest(snapshot, content)} {count_deleted(client, experiment, snapshot.name)}"
