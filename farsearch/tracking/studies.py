"""Rename and delete studies in MLflow."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Experiment

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.tracking.content import TAG_STUDY
from farsearch.tracking.runs import find_study
from farsearch.tracking.views import view_tags

__all__ = ["check_rename", "delete_study", "forget_views", "rename_study"]


def check_rename(client: MlflowClient, old: str, new: str) -> None:
    """Refuse a name of another experiment, also of a deleted one, which MLflow can restore.

    Raises:
        BadInput: when both names are in use.
    """
    if client.get_experiment_by_name(old) is not None and client.get_experiment_by_name(new) is not None:
        raise BadInput(
            f"MLflow already has an experiment {shown(new)}, or a deleted one that mlflow gc has not removed yet; "
            "give another name"
        )


def rename_study(client: MlflowClient, old: str, new: str, siblings: list[str]) -> None:
    """Rename a study's experiment and update the tags of its runs. Idempotent."""
    experiment = _active(client, old)
    if experiment is not None:
        client.rename_experiment(experiment.experiment_id, new)
    experiment = _active(client, new)
    if experiment is None:
        return
    for ending in ("", *(f"/{kind}" for kind in siblings)):
        for run in find_study(client, experiment.experiment_id, old + ending):
            client.set_tag(run.info.run_id, TAG_STUDY, new + ending)


def forget_views(client: MlflowClient, old: str, new: str) -> None:
    """Remove the saved views of the old name. Those of the new one must exist: they mark farsearch's experiments."""
    experiment = client.get_experiment_by_name(new)
    for key in view_tags(old) if experiment is not None else ():
        if experiment is not None and key in experiment.tags:
            client.delete_experiment_tag(experiment.experiment_id, key)


def delete_study(client: MlflowClient, study: str, siblings: list[str]) -> int:
    """Delete the runs of a study, and its experiment if that is then empty; ``mlflow gc`` frees the disk.

    Returns:
        the number of deleted runs.
    """
    experiment = client.get_experiment_by_name(study)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return 0
    deleted = 0
    for name in (study, *(f"{study}/{kind}" for kind in siblings)):
        for run in find_study(client, experiment.experiment_id, name):
            client.delete_run(run.info.run_id)
            deleted += 1
    if not client.search_runs([experiment.experiment_id], max_results=1):
        client.delete_experiment(experiment.experiment_id)
    return deleted


def _active(client: MlflowClient, name: str) -> Experiment | None:
    """Return the experiment of this name, restored if deleted: MLflow only changes active ones."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment
