"""Saved views of MLflow's runs table: useful columns, order, filter and charts. Pure.

MLflow stores a view that a user saved in its interface as a tag of the experiment, ``mlflow.sharedViewState.<id>``: the
view's name and, as JSON in a string, the state of the page. The format is that of MLflow 3.17's pages. A version that
does not support it ignores the tag and shows its default table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from farsearch.formatting import markdown_text
from farsearch.records import StudySnapshot
from farsearch.tracking.content import (
    FRONT_FILTER,
    ON_FRONT,
    ROLE_TRIAL,
    TAG_ROLE,
    TAG_STUDY,
    objective_names,
    shown_names,
)

__all__ = ["experiment_tags", "saved_view_id", "trials_address", "view_tags"]

_VIEW_KEY = "mlflow.sharedViewState."

_TRIALS_FILTER = f"tags.`{TAG_ROLE}` = '{ROLE_TRIAL}'"
"""Trials, baselines and verification together: an experiment has those of one study."""


def saved_view_id(study: str, view: str = "front") -> str:
    """Return the id of one of a study's views, ``front`` or ``trials``."""
    return f"farsearch-{view}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"


def trials_address(experiment: str) -> str:
    """Return the fragment of an address that shows all trials of an experiment, the front first.

    The saved view has more columns, but MLflow puts a banner above each saved view that an address names.
    """
    state = {"searchFilter": _TRIALS_FILTER, "orderByKey": f"metrics.`{ON_FRONT}`", "orderByAsc": "false"}
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&{urlencode(state, quote_via=quote)}"


def view_tags(study: str) -> list[str]:
    """Return the keys of the experiment's tags with the views of a study."""
    return [_VIEW_KEY + saved_view_id(study, view) for view in ("front", "trials")]


def experiment_tags(snapshot: StudySnapshot, experiment: str | None = None) -> dict[str, str]:
    """Return the tags of the study's experiment: description and two views of its runs.

    Args:
        experiment: its id, for a link to all trials in the description, which stands above every page of an experiment;
            None before it exists.
    """
    job = snapshot.settings.job
    model, task, device = map(markdown_text, (job.model, job.task, snapshot.settings.device))
    link = "" if experiment is None else f"[All trials]({trials_address(experiment)}): "
    of_study = f"tags.`{TAG_STUDY}` = {_quoted(snapshot.name)}"
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": objective_names(snapshot)[0],
        "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
        "mlflow.note.content": (
            f"{link}Search of the neurons to train of **{model}** on **{task}** within the limits of "
            f"**{device}**. One run per trial; the Pareto front is `` {FRONT_FILTER} ``."
        ),
        _VIEW_KEY + saved_view_id(snapshot.name): _view(
            snapshot, "Pareto front", f"{of_study} AND {FRONT_FILTER}", 2, True
        ),
        _VIEW_KEY + saved_view_id(snapshot.name, "trials"): _view(snapshot, "All trials", _TRIALS_FILTER, 1, False),
    }


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def _view(snapshot: StudySnapshot, name: str, search: str, created_at: int, front: bool) -> str:
    """Return a view: the front by memory, or all trials with the front first."""
    metric, memory, seconds = shown_names(snapshot)
    shown = [metric, memory, seconds, "mean_frozen_fraction"]
    columns = [*(f"metrics.`{key}`" for key in shown), "params.`learning_rate`", "params.`priming_epochs`"]
    state = {
        "searchFilter": search,
        "orderByKey": f"metrics.`{memory if front else ON_FRONT}`",
        "orderByAsc": front,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, 150),
        "runsHiddenMode": "SHOWALL",
        **_charts(snapshot),
    }
    title = f"{name} of {snapshot.name}"
    return json.dumps({"name": title, "createdAt": created_at, "updatedAt": created_at, "state": json.dumps(state)})


def _charts(snapshot: StudySnapshot) -> dict[str, Any]:
    """Return charts of the objectives against each other, and parallel coordinates from parameters to objectives."""
    metric, memory, seconds = shown_names(snapshot)
    section = "farsearch-objectives"
    params = ["learning_rate", "priming_epochs"]
    charts: Sequence[Mapping[str, Any]] = [
        _scatter("memory", memory, metric),
        _scatter("time", seconds, metric),
        {
            "type": "PARALLEL",
            "uuid": "farsearch-parallel",
            "selectedParams": params,
            "selectedMetrics": ["mean_frozen_fraction", memory, seconds, metric],
            "showAllRuns": False,
        },
    ]
    common = {"runsCountToCompare": 100, "metricSectionId": section, "deleted": False, "isGenerated": False}
    return {
        "compareRunCharts": [{**chart, **common} for chart in charts],
        "compareRunSections": [{"uuid": section, "name": "Objectives", "display": True, "isReordered": False}],
        "isAccordionReordered": True,  # or the page puts its own sections first
    }


def _scatter(name: str, x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return {"type": "SCATTER", "uuid": f"farsearch-{name}", **axes}
