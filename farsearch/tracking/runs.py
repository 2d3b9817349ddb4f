"""Read and write single runs of MLflow: only differences are written, and a run that can't be changed is replaced.

MLflow's active run is thread-local state, so everything uses ``MlflowClient`` with explicit run ids.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType

from farsearch.records import JobSpec
from farsearch.tracking.content import (
    LOSS,
    ROLE_STUDY,
    ROLE_TRIAL,
    TAG_ARTIFACTS,
    TAG_DIGEST,
    TAG_MIRRORED,
    TAG_ROLE,
    TAG_STUDY,
    TAG_TENSORS,
    TAG_TRIAL,
    RunContent,
)

__all__ = [
    "Outcome",
    "StudyRuns",
    "count_deleted",
    "dataset_of",
    "find_parents",
    "find_study",
    "find_tagged",
    "find_trial",
    "read_runs",
    "write_run",
]

Outcome = Literal["created", "updated", "unchanged"]

_PAGE = 1000
_METRICS_A_BATCH, _PARAMS_A_BATCH = 800, 100
"""MLflow accepts 1000 values per batch, of which 100 parameters and 100 tags."""
_ENDED = ("FINISHED", "FAILED", "KILLED")
_OURS = "farsearch."
_PARENT = "mlflow.parentRunId"
"""Tag of earlier mirrors, which hid the trials below the study's run."""


@dataclass(frozen=True)
class StudyRuns:
    """The runs of one study: its parents and, by number of the trial, its children.

    There should be one of each. Two concurrent mirrors may create more; the one to keep comes first.
    """

    parents: list[Run]
    children: dict[int, list[Run]]


def read_runs(client: MlflowClient, experiment_id: str, study: str) -> StudyRuns:
    """Return all runs of ``study`` with their last values, by one paged search."""
    parents: list[Run] = []
    children: dict[int, list[Run]] = {}
    for run in _search(client, experiment_id, _tagged(TAG_STUDY, study)):
        tags = run.data.tags
        if tags.get(TAG_ROLE) == ROLE_STUDY:
            parents.append(run)
        elif tags.get(TAG_TRIAL, "").isdecimal():
            children.setdefault(int(tags[TAG_TRIAL]), []).append(run)
    return StudyRuns(_best_first(parents), {number: _best_first(runs) for number, runs in children.items()})


def find_study(client: MlflowClient, experiment_id: str, study: str) -> list[Run]:
    """Return all active runs of a study."""
    return list(_search(client, experiment_id, _tagged(TAG_STUDY, study)))


def find_parents(client: MlflowClient, experiment_id: str, study: str) -> list[Run]:
    """Return the study's own runs, the one to keep first."""
    return _best_first(_search(client, experiment_id, _tagged(TAG_STUDY, study), _tagged(TAG_ROLE, ROLE_STUDY)))


def find_trial(client: MlflowClient, experiment_id: str, study: str, number: int) -> list[Run]:
    """Return the runs of one trial, the one to keep first."""
    return _best_first(_search(client, experiment_id, _tagged(TAG_STUDY, study), _tagged(TAG_TRIAL, str(number))))


def find_tagged(client: MlflowClient, experiment_id: str, study: str, tag: str, view: int) -> list[Run]:
    """Return the runs of the study's trials that have ``tag``, the one to keep of a trial first.

    Args:
        view: one of ``ViewType``.
    """
    return _best_first(_search(client, experiment_id, _tagged(TAG_STUDY, study), f"tags.`{tag}` LIKE '%'", view=view))


def count_deleted(client: MlflowClient, experiment_id: str, study: str) -> int:
    """Return the number of deleted runs of the study's trials that can still be restored."""
    tags = (_tagged(TAG_STUDY, study), _tagged(TAG_ROLE, ROLE_TRIAL))
    return sum(1 for _ in _search(client, experiment_id, *tags, view=ViewType.DELETED_ONLY))


def _tagged(tag: str, value: str) -> str:
    return f"tags.`{tag}` = '{value}'"


def _search(client: MlflowClient, experiment_id: str, *filters: str, view: int = ViewType.ACTIVE_ONLY) -> Iterator[Run]:
    """Yield the runs that match all filters, page by page."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], " AND ".join(filters), view, _PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _best_first(runs: Iterable[Run]) -> list[Run]:
    """Sort runs: completely written ones first, then in an order that all processes agree on."""
    return sorted(runs, key=lambda run: (TAG_DIGEST not in run.data.tags, run.info.start_time, run.info.run_id))


def dataset_of(job: JobSpec) -> DatasetInput:
    """Return the rows of ``job`` as MLflow's dataset, with a digest short enough for the runs table."""
    dataset = Dataset(
        name=job.task,
        digest=job.data[:12],
        source_type="farsearch",
        source=json.dumps({"task": job.task, "sha256": job.data}),
        profile=json.dumps({"train_samples": job.train_samples, "validation_samples": job.validation_samples}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def write_run(
    client: MlflowClient,
    experiment_id: str,
    held: Run | None,
    content: RunContent,
    span: tuple[int, int],
    dataset: DatasetInput,
) -> tuple[str, Outcome]:
    """Update the run ``held`` to ``content``, or create a new one if it is None or can't be changed.

    Args:
        span: start and end in ms since 1970, for a new run and for one that ends now.

    Returns:
        the run's id and the outcome.
    """
    run = held
    if run is not None and _outdated(run, content) and not _extends(client, run, content):
        client.delete_run(run.info.run_id)
        run = None
    if run is None:
        run = client.create_run(experiment_id, start_time=span[0], tags=dict(content.tags), run_name=content.name)
    changed = [
        _write_inputs(client, run, dataset),
        _write_values(client, run, content, span[1]),
        _write_state(client, run, content, span[1]),
    ]
    if held is None:
        return run.info.run_id, "created"
    return run.info.run_id, "updated" if run is not held or any(changed) else "unchanged"


def _outdated(run: Run, content: RunContent) -> bool:
    return bool(run.data.tags.get(TAG_DIGEST) != content.digest())


def _extends(client: MlflowClient, run: Run, content: RunContent) -> bool:
    """Return whether ``content`` only adds to ``run``: parameters can't be changed, nor metrics removed."""
    same_params = run.data.params.items() <= content.params.items()
    replaced = {LOSS, *content.latest}
    metrics = {name: value for name, value in run.data.metrics.items() if name not in replaced}
    curve = {point.step: point.loss for point in content.curve}
    return same_params and metrics.items() <= content.metrics.items() and _curve(client, run).items() <= curve.items()


def _curve(client: MlflowClient, run: Run) -> dict[int, float]:
    """Return the learning curve of ``run``, loss by step."""
    if LOSS not in run.data.metrics:
        return {}
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, LOSS)}


def _write_inputs(client: MlflowClient, run: Run, dataset: DatasetInput) -> bool:
    if run.inputs is not None and run.inputs.dataset_inputs:
        return False
    client.log_inputs(run.info.run_id, [dataset])
    return True


def _write_values(client: MlflowClient, run: Run, content: RunContent, timestamp: int) -> bool:
    """Write changed tags, and missing metrics and parameters. Return whether there were any."""
    run_id, held = run.info.run_id, run.data.tags
    tags = {key: value for key, value in content.tags.items() if held.get(key) != value}
    for key in _stale_tags(held, content.tags):
        client.delete_tag(run_id, key)
    later = {name: value for name, value in content.latest.items() if run.data.metrics.get(name) != value}
    # of two values at a step the one with the later time counts
    now = time.time_ns() // 1_000_000
    metrics = [Metric(name, value, now, 0) for name, value in later.items()]
    params: list[Param] = []
    if _outdated(run, content):
        curve = _curve(client, run)
        points = [point for point in content.curve if point.step not in curve]
        lacking = {name: value for name, value in content.metrics.items() if name not in run.data.metrics}
        metrics += [Metric(name, value, timestamp, 0) for name, value in lacking.items()]
        metrics += [Metric(LOSS, point.loss, timestamp, point.step) for point in points]
        params = [Param(key, value) for key, value in content.params.items() if key not in run.data.params]
        tags[TAG_DIGEST] = content.digest()
    while len(metrics) > _METRICS_A_BATCH or len(params) > _PARAMS_A_BATCH:
        client.log_batch(run_id, metrics[:_METRICS_A_BATCH], params[:_PARAMS_A_BATCH])
        metrics, params = metrics[_METRICS_A_BATCH:], params[_PARAMS_A_BATCH:]
    if metrics or params or tags:
        client.log_batch(run_id, metrics, params, [RunTag(key, value) for key, value in tags.items()])
    return bool(metrics or params or tags)


def _stale_tags(held: Mapping[str, str], wanted: Mapping[str, str]) -> Iterable[str]:
    valid = {*wanted, TAG_DIGEST, TAG_ARTIFACTS, TAG_MIRRORED, TAG_TENSORS}
    return [key for key in held if (key.startswith(_OURS) or key == _PARENT) and key not in valid]


def _write_state(client: MlflowClient, run: Run, content: RunContent, end: int) -> bool:
    """Correct name and status. Return whether they had to be."""
    run_id = run.info.run_id
    named, right = run.info.run_name == content.name, run.info.status == content.status
    if not named:
        client.update_run(run_id, name=content.name)
    if not right and content.status in _ENDED:
        client.set_terminated(run_id, content.status, end)
    elif not right:
        client.update_run(run_id, status=content.status)
    return not (named and right)
