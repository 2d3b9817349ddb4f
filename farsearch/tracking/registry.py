"""The fine-tuned model of a bundle in MLflow's model registry, linked to the run of the trial that trained it.

Saved by ``mlflow.transformers``, with weights as safetensors and nothing pickled, for ``mlflow.transformers`` and
``mlflow.pyfunc``.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from farsearch.errors import BadInput, MissingResource
from farsearch.far.display import shown
from farsearch.formatting import human_metric
from farsearch.models.load import load_finetuned
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import load_tokenizer
from farsearch.records import CompleteTrial, StudySnapshot
from farsearch.study.refit import Refit
from farsearch.tasks.spec import study_task
from farsearch.tracking.connection import Connection, connect
from farsearch.tracking.content import family
from farsearch.tracking.runs import find_trial
from farsearch.tracking.tracker import Tracker

__all__ = ["DEFAULT_ALIAS", "Registered", "check_names", "register_model"]

DEFAULT_ALIAS = "deployed"

_NAME = re.compile(r"[A-Za-z0-9._+-]{1,200}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)
"""Aliases that MLflow reserves."""
_REQUIRED = ("torch", "transformers")
_LOGGED_NAME = "fine-tuned"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    name: str
    version: int
    alias: str

    @property
    def uri(self) -> str:
        """Return the address for ``load_model`` of ``mlflow.transformers`` and ``mlflow.pyfunc``."""
        return f"models:/{self.name}@{self.alias}"


def check_names(name: str, alias: str) -> None:
    """Raise BadInput for a name or an alias that MLflow refuses, or that an address can't contain."""
    for option, value in (("`register`", name), ("`alias`", alias)):
        if not _NAME.fullmatch(value):
            raise BadInput(f"{option} {shown(value)} has other characters than letters, digits and . _ + -; rename it")
    if _RESERVED.fullmatch(alias):
        raise BadInput(f"`alias` {shown(alias)} is MLflow's own; give another, such as {DEFAULT_ALIAS}")


def register_model(
    uri: str, snapshot: StudySnapshot, trial: CompleteTrial, model_folder: Path, name: str, alias: str = DEFAULT_ALIAS,
    refit: Refit | None = None,
) -> Registered:  # fmt: skip
    """Register a fine-tuned model as a new version of ``name``, and give that version the alias.

    The study is mirrored first if MLflow does not have the trial's run.

    Args:
        uri: as for ``open_tracking``.
        model_folder: the fine-tuned model with its tokenizer, as written by ``save_pretrained``.
        refit: the final model that it is; None for the trial's.

    Raises:
        BadInput: for a name or an alias that MLflow refuses.
        MissingResource: where MLflow can't be used.
    """
    check_names(name, alias)
    connection = connect(uri)
    run_id, experiment = _run_of(connection, snapshot, trial)
    with connection.writing() as client, tempfile.TemporaryDirectory() as scratch:
        logged = client.create_logged_model(experiment, name=_LOGGED_NAME, source_run_id=run_id)
        _save(model_folder, Path(scratch) / "model", snapshot, trial, logged)
        client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        _create(client, name)
        # MLflow would resolve models:/ID in a default database; a server resolves it in its own
        source = f"models:/{logged.model_id}" if connection.database is None else logged.artifact_location
        version = client.create_model_version(
            name, source, run_id, tags=_tags(snapshot, trial, refit), model_id=logged.model_id,
            description=f"trial {trial.number} of study {snapshot.name}"
            + ("" if refit is None else f", trained again on all {refit.rows:,} rows"),
        )  # fmt: skip
        client.set_registered_model_alias(name, alias, version.version)
    return Registered(name, int(version.version), alias)


def _run_of(connection: Connection, snapshot: StudySnapshot, trial: CompleteTrial) -> tuple[str, str]:
    """Return the ids of the trial's run and of its experiment."""
    for attempt in range(2):
        with connection.reading() as client:
            experiment = client.get_experiment_by_name(family(snapshot.name))
            if experiment is not None:
                runs = find_trial(client, experiment.experiment_id, snapshot.name, trial.number)
                if runs:
                    return runs[0].info.run_id, experiment.experiment_id
        if attempt == 0:
            Tracker(connection).sync(snapshot)
    raise MissingResource(f"MLflow at {connection.uri} has no run of trial {trial.number}; farsearch sync reports why")


def _create(client: MlflowClient, name: str) -> None:
    """Create the registered model if it is missing."""
    try:
        client.create_registered_model(name)
    except (MlflowException, RestException) as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _tags(snapshot: StudySnapshot, trial: CompleteTrial, refit: Refit | None) -> dict[str, str]:
    """Return the tags of a version, for the registry's page."""
    metric, result = snapshot.metric_name, trial.outcome
    measured = (
        {metric: human_metric(metric, result.metric, result.metric_error)}
        if refit is None
        else {f"dev_{metric}": human_metric(metric, refit.metric, refit.metric_error)}
    )
    return {
        "farsearch.study": snapshot.name,
        "farsearch.trial": str(trial.number),
        "farsearch.device": snapshot.settings.device,
        **measured,
        "farsearch.plan": trial.plan.summary,
    }


def _save(model_folder: Path, out: Path, snapshot: StudySnapshot, trial: CompleteTrial, logged: LoggedModel) -> None:
    """Save the model in MLflow's format."""
    from huggingface_hub import ModelCard

    source = resolve_model(str(model_folder))
    spec = study_task(snapshot.meta, snapshot.settings.job.task)
    model = load_finetuned(source, spec.kind)
    # MLflow looks a model's name up on the hub; this one can't exist there
    model.name_or_path = f"farsearch/{snapshot.name}/{trial.number}"  # type: ignore[assignment]
    readme = model_folder.parent / "README.md"
    card = readme.read_text(encoding="utf-8") if readme.is_file() else f"# Trial {trial.number} of {snapshot.name}\n"
    with warnings.catch_warnings():
        # warnings about MLflow's own type hints, and about a newer transformers
        warnings.simplefilter("ignore")
        import mlflow.transformers
        from mlflow.models import Model

        mlflow.transformers.save_model(
            {"model": model.cpu().eval(), "tokenizer": load_tokenizer(source)},
            str(out),
            task=spec.pipeline,
            model_card=ModelCard(card, ignore_metadata_errors=True),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=logged.source_run_id,
            ),
            # no package index has a wheel's local version, 2.13.0+cpu
            pip_requirements=[f"{package}=={metadata.version(package).partition('+')[0]}" for package in _REQUIRED],
            # texts are cut as in training
            model_config={"truncation": True, "max_length": snapshot.settings.job.max_length},
        )
    # it refers to a page that does not exist; the model card has the licence
    (out / "LICENSE.txt").unlink(missing_ok=True)
