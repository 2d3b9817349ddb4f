"""Content of a study's runs in MLflow: parameters, metrics, tags and descriptions. Pure; ``runs`` writes it.

Names are chosen for MLflow's table and charts: objectives have a plain name (``validation_accuracy``,
``peak_memory_mib``, ``wall_time_s``), details a prefix with a slash, which MLflow folds into a
section of its own (``memory/…``, ``time/…``, ``priming/…``).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from farsearch.formatting import (
    constant_text,
    constant_value,
    front_markdown,
    human_memory,
    human_metric,
    human_time,
    is_percentage,
    markdown_text,
    mean_frozen,
    metric_words,
)
from farsearch.records import AnyTrial, Baseline, FlatTrial, LossPoint, StudySnapshot, flat
from farsearch.select import won
from farsearch.tracking.params import flag, study_params, trial_params

__all__ = [
    "FRONT_FILTER",
    "LOSS",
    "ON_FRONT",
    "ROLE_STUDY",
    "ROLE_TRIAL",
    "TAG_ARTIFACTS",
    "TAG_DIGEST",
    "TAG_MIRRORED",
    "TAG_ON_FRONT",
    "TAG_ROLE",
    "TAG_STUDY",
    "TAG_TENSORS",
    "TAG_TRIAL",
    "RunContent",
    "digest_of",
    "family",
    "has_report",
    "objective_names",
    "shown_names",
    "study_content",
    "trial_content",
]

TAG_ROLE = "farsearch.role"
TAG_STUDY = "farsearch.study"
TAG_TRIAL = "farsearch.trial"
TAG_ON_FRONT = "farsearch.on_front"
TAG_DIGEST = "farsearch.digest"
"""Hash of the values of a run, written last: it proves that all of them were written."""
TAG_ARTIFACTS = "farsearch.artifacts"
"""Hash of the content of a parent run's artifacts."""

TAG_MIRRORED = "farsearch.mirrored"
"""On a parent run: hash of the completely mirrored study, and the number of runs deleted by then."""

TAG_TENSORS = "farsearch.tensors"
"""On a trial's run: manifest of the tensors among its artifacts, see ``tensors``."""

ROLE_STUDY, ROLE_TRIAL = "study", "trial"

ON_FRONT = "on_front"
"""Metric that is 1 for trials on the front and 0 for other complete ones, for sorting."""
LOSS = "train_loss"
"""Metric of the learning curve."""

FRONT_FILTER = f"tags.`{TAG_ON_FRONT}` = 'true'"
"""Search in MLflow's runs table that selects the front."""

Status = Literal["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"]
_STATUS: Mapping[str, Status] = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "complete": "FINISHED",
    # stopped early is how a search saves time, and given back is no error of the training
    "pruned": "FINISHED",
    "fail": "KILLED",
}
_COLOURS = {"front": "#2f6db2", "trial": "#9f9f9f", "baseline": "#7a3f9d", "verified": "#009e73"}
"""Colours of runs in MLflow's table and charts, by what they are: those of the report."""
_COLOUR = "mlflow.runColor"
"""Tag in which MLflow stores the colour of a run."""
_TAG_LIMIT = 8000
"""MLflow cuts longer tag values."""


@dataclass(frozen=True)
class RunContent:
    """Content of one run in MLflow.

    Attributes:
        name: shown in the first column of MLflow's table.
        params: never change once a run has them, so a run whose parameters differ is replaced.
        metrics: the last value of each, without the learning curve.
        curve: training loss by step, the metric ``train_loss``.
        latest: metrics of which a later value replaces the earlier one.
        tags: including the description, without name and parent.
    """

    name: str
    status: Status
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    curve: tuple[LossPoint, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    latest: Mapping[str, float] = field(default_factory=dict)

    def digest(self) -> str:
        """Return SHA-256 (first 16 digits) over parameters, metrics and curve, which can't be changed in place."""
        curve = [(point.step, point.loss) for point in self.curve]
        return digest_of([dict(self.params), dict(self.metrics), curve])


def digest_of(value: Any) -> str:
    """Return SHA-256 (first 16 digits) of JSON types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def family(study: str) -> str:
    """Return the experiment of a study: ``NAME`` also for ``NAME/baselines``."""
    return study.split("/", 1)[0]


def has_report(snapshot: StudySnapshot) -> bool:
    """Return whether the study's run has a report. Trials of auxiliary studies are in that of the study."""
    return family(snapshot.name) == snapshot.name


def objective_names(snapshot: StudySnapshot) -> tuple[str, str, str]:
    """Return MLflow's names of the three objectives: metric (higher is better), memory, time."""
    return f"validation_{snapshot.metric_name}", "peak_memory_mib", "wall_time_s"


def shown_names(snapshot: StudySnapshot) -> tuple[str, str, str]:
    """Return MLflow's names of the objectives in the units and digits that people read, beside the exact ones."""
    unit = "percent" if is_percentage(snapshot.metric_name) else "rounded"
    return f"{snapshot.metric_name}_{unit}", "memory_gib", "time_s"


def _shown(snapshot: StudySnapshot, trial: FlatTrial) -> dict[str, float | None]:
    """Return the objectives under ``shown_names``."""
    metric, memory, seconds = shown_names(snapshot)
    scale, digits = (100, 1) if is_percentage(snapshot.metric_name) else (1, 3)
    return {
        metric: None if trial.metric is None else round(scale * trial.metric, digits),
        memory: None if trial.peak_memory_mib is None else round(trial.peak_memory_mib / 1024, 2),
        seconds: None if trial.wall_time_s is None else float(f"{trial.wall_time_s:.3g}"),
    }


def trial_content(snapshot: StudySnapshot, any_trial: AnyTrial) -> RunContent:
    """Return the child run of a trial."""
    trial = flat(any_trial)
    tags = {
        TAG_ROLE: ROLE_TRIAL,
        TAG_STUDY: snapshot.name,
        TAG_TRIAL: str(trial.number),
        TAG_ON_FRONT: flag(trial.on_front),
        "farsearch.state": trial.state,
        "mlflow.note.content": _trial_note(snapshot, trial),
        _COLOUR: _COLOURS[_kind(trial)],
        "mlflow.source.name": _source(trial),
        "mlflow.source.type": "LOCAL",
    }
    if trial.feasible is not None:
        tags["farsearch.feasible"] = flag(trial.feasible)
    if trial.learned is not None:
        tags["farsearch.learned"] = flag(trial.learned)
    if trial.reason:
        tags["farsearch.reason"] = trial.reason[:_TAG_LIMIT]
    return RunContent(
        name=f"{_figures(snapshot, trial)} · {_source(trial)}{' · front' * trial.on_front}",
        status=_STATUS[trial.state],
        params=trial_params(trial),
        metrics=_finite(_trial_metrics(snapshot, trial)),
        curve=tuple(point for point in trial.curve if math.isfinite(point.loss)),
        tags=tags,
        # a number, because MLflow's table is not sorted by tags
        latest={ON_FRONT: float(trial.on_front)} if trial.state == "complete" else {},
    )


def _kind(trial: FlatTrial) -> str:
    if trial.verifies is not None:
        return "verified"
    if trial.baseline is not None:
        return "baseline"
    return "front" if trial.on_front else "trial"


def _figures(snapshot: StudySnapshot, trial: FlatTrial) -> str:
    """Return ``82.1 % · 1.03 GiB · 23 s``: what MLflow's first column has room for, as it shows no metric by itself."""
    metric = "stopped" if trial.state == "pruned" else human_metric(snapshot.metric_name, trial.metric)
    memory = "" if trial.peak_memory_mib is None else f"{trial.peak_memory_mib / 1024:.2f} GiB"
    return " · ".join(filter(None, [metric or trial.state, memory, human_time(trial.wall_time_s)]))


def _source(trial: FlatTrial) -> str:
    """Return what the study calls a training: ``trial 005``."""
    if trial.verifies is None:
        return f"trial {trial.number:03d}" if trial.baseline is None else _baseline_name(trial.baseline)
    point = f"trial {trial.verifies.trial:03d}" if trial.baseline is None else trial.baseline.title
    return f"{point} again, seed {trial.verifies.seed}"


def _baseline_name(baseline: Baseline) -> str:
    return f"{baseline.title}, rate {baseline.learning_rate:g}"


def _trial_metrics(snapshot: StudySnapshot, trial: FlatTrial) -> dict[str, float | None]:
    objective, memory, seconds = objective_names(snapshot)
    low_mib, high_mib = trial.peak_memory_range_mib or (None, None)
    low_s, high_s = trial.wall_time_range_s or (None, None)
    metrics: dict[str, float | None] = {
        **_shown(snapshot, trial),
        objective: trial.metric,
        f"{objective}_error": trial.metric_error,
        f"dev_{snapshot.metric_name}": trial.dev_metric,
        "constant_answer": constant_value(snapshot),
        "dev_constant_answer": constant_value(snapshot, "dev"),
        **trial.parts,
        memory: trial.peak_memory_mib,
        seconds: trial.wall_time_s,
        "energy_j": trial.energy_j,
        "host_seconds": trial.host_seconds,
        "trainable": trial.trainable,
        "mean_frozen_fraction": None if trial.config is None else mean_frozen(trial.config),
        "memory/range_low_mib": low_mib,
        "memory/range_high_mib": high_mib,
        "time/range_low_s": low_s,
        "time/range_high_s": high_s,
        **_under("memory", "mib", trial.memory),
        **_under("time", "s", trial.time),
    }
    if trial.verifies is not None:
        # a verification holds nothing out: it is scored on the development set, and charted beside the trials
        metrics.pop(objective)
        metrics.pop(f"{objective}_error")
    for measured in snapshot.measurements:
        if measured.trial == trial.number:
            metrics |= {
                "board/peak_memory_mib": measured.peak_memory_mib,
                "board/step_time_s": measured.step_time_s,
                "board/wall_time_s": measured.wall_time_s,
                "board/wall_time_predicted_s": measured.predicted_time_s,
                f"board/{snapshot.metric_name}": measured.metric,
            }
    if trial.priming is not None:
        metrics |= {
            "priming/steps": trial.priming.steps,
            "priming/host_seconds": trial.priming.host_seconds,
            "priming/from_cache": trial.priming.from_cache,
            "priming/score_spread": trial.priming.score_spread,
            "priming/half_overlap": trial.priming.half_overlap,
            "priming/chance_overlap": trial.priming.chance_overlap,
        }
    return metrics


def _under(prefix: str, unit: str, parts: Mapping[str, float]) -> dict[str, float | None]:
    """Return ``parts`` under ``prefix/``, with characters that MLflow accepts."""
    return {f"{prefix}/{re.sub(r'[^0-9A-Za-z]+', '_', name)}_{unit}": value for name, value in parts.items()}


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Drop unknown and non-finite values: MLflow would store an infinity as the largest float."""
    return {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def _trial_note(snapshot: StudySnapshot, trial: FlatTrial) -> str:
    """Return two lines: the result and the configuration."""
    figures = [
        human_metric(snapshot.metric_name, trial.metric, trial.metric_error),
        human_memory(trial.peak_memory_mib),
        human_time(trial.wall_time_s),
    ]
    result = " · ".join(figure for figure in figures if figure) or "no result"
    place = "on the Pareto front" if trial.on_front else markdown_text(trial.reason or trial.state)
    place += ", did not learn: no better than a constant answer" * (trial.learned is False)
    if trial.config is None:
        method = "" if trial.baseline is None else f"  \n{_baseline_name(trial.baseline)}, ordinary modules and AdamW"
        return f"{result} — {place}{method}"
    config = trial.config
    trained = (
        f"{100 * mean_frozen(config):.0f} % of the hidden neurons frozen, learning rate {config.learning_rate:.2g}, "
        f"{config.epochs:g} epochs after {config.priming_epochs:g} of priming"
    )
    return f"{result} — {place}  \n{trained}"[:_TAG_LIMIT]


def study_content(snapshot: StudySnapshot) -> RunContent:
    """Return the parent run of the study."""
    ended = snapshot.ended
    tags = {
        TAG_ROLE: ROLE_STUDY,
        TAG_STUDY: snapshot.name,
        "farsearch.fingerprint": snapshot.settings.fingerprint(),
        "farsearch.trials": f"{len(ended)} of {snapshot.n_trials}",
        "farsearch.front": " ".join(str(trial.number) for trial in snapshot.front)[:_TAG_LIMIT],
        "mlflow.note.content": _study_note(snapshot),
    }
    params, identities = study_params(snapshot)
    return RunContent(
        name=snapshot.name,
        status="FINISHED" if len(ended) >= snapshot.n_trials else "RUNNING",
        params=params,
        metrics=_finite({"constant_answer": constant_value(snapshot)}),
        curve=(),
        tags=tags | {f"farsearch.{key}": value for key, value in identities.items()},
        latest=_finite(_best(snapshot)),
    )


def _best(snapshot: StudySnapshot) -> dict[str, float | None]:
    """Return the best value of each objective on the front, and the number of its trials."""
    front, (metric, memory, seconds) = [flat(trial) for trial in snapshot.front], shown_names(snapshot)
    shown = [_shown(snapshot, trial) for trial in front]
    best: dict[str, float | None] = {metric: max((row[metric] or 0.0 for row in shown), default=None)}
    for name in (memory, seconds):
        best[name] = min((row[name] or 0.0 for row in shown), default=None)
    return {**best, "trials_on_front": len(front)}


def _study_note(snapshot: StudySnapshot) -> str:
    """Return two lines and the front as a table, truncated between rows at MLflow's limit."""
    job, shown = snapshot.settings.job, "report.html" if has_report(snapshot) else "front.png"
    model, task, device = map(markdown_text, (job.model, job.task, snapshot.settings.device))
    head = (
        f"FAR fine-tuning of **{model}** on **{task}** for **{device}** (at most "
        f"{human_memory(snapshot.budget_mib)}): {metric_words(snapshot.metric_name)}, memory and time.  \n"
        f"The front's runs are found with `` {FRONT_FILTER} ``; `{shown}` among the artifacts shows it.\n\n"
    )
    beside = markdown_text(constant_text(snapshot))
    sentences = "".join(f"- {sentence}\n" for sentence in won(snapshot))
    parts = [head, f"{sentences}\n" * bool(sentences), f"{beside}\n\n" * bool(beside), front_markdown(snapshot)]
    return _whole_lines("".join(parts))


def _whole_lines(text: str) -> str:
    lines: list[str] = []
    size = 0
    for line in text.splitlines():
        size += len(line) + 1
        if size > _TAG_LIMIT:
            break
        lines.append(line)
    return "\n".join(lines)
