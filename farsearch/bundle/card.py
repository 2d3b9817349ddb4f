"""The model card of a bundle: metrics, cost on the device, data, licences and commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from farsearch.formatting import (
    constant_text,
    human_memory,
    human_metric,
    human_time,
    markdown_code,
    markdown_text,
    mean_frozen,
)
from farsearch.records import Completed, StudySnapshot, Trial
from farsearch.study.refit import Refit
from farsearch.tasks.spec import TaskSpec, study_task

__all__ = ["card_of"]


def card_of(
    snapshot: StudySnapshot,
    trial: Trial[Completed],
    licence: str | None,
    base: str | None,
    predicted: Mapping[str, Any],
    refit: Refit | None = None,
) -> str:
    """Return the card as markdown, with the front matter of model hubs.

    Args:
        licence: licence of the base model, None if it is unknown.
        base: name of the base checkpoint of a delta, else None.
        predicted: cost of the bundle's training, as ``far.json`` has it.
        refit: the final model; None where it is the trial's.
    """
    job = snapshot.settings.job
    task = study_task(snapshot.meta, job.task)
    front = {
        "base_model": job.model,
        "license": licence or "unknown",
        "pipeline_tag": task.pipeline,
        "tags": ["farsearch", "freeze-and-reconfigure"],
    }
    model, device = markdown_text(job.model), markdown_text(snapshot.settings.device)
    version = snapshot.meta["versions"]["farsearch"]
    title = task.title if task.title.endswith("?") else f"{task.title}."
    return (
        f"---\n{yaml.safe_dump(front)}---\n\n# {model} on {markdown_text(job.task)}, for {device}\n\n"
        f"Trial {trial.number} of the study {markdown_code(snapshot.name)}, made by farsearch {version}. "
        "FAR (Freeze And Reconfigure) trains a few neurons of each feed-forward layer and freezes the rest.\n\n"
        f"{_table([*_metric_rows(snapshot, trial, refit), *_rows(snapshot, trial, predicted)])}\n\n"
        f"## Data and licences\n\n- {markdown_text(title)} Data: {markdown_text(snapshot.meta['data_source'])} "
        f"(SHA-256 {job.data[:16]}…); terms: {markdown_text(task.licence)}.\n"
        f"- Base model: {model}, {_licence(licence)}; weights SHA-256 `{job.weights[:16]}`…\n\n"
        f"## Use\n\n```\n{_install(trial)}{_commands(base)}\n```\n\n{_rows_of(task)}\n"
    )


def _rows_of(task: TaskSpec) -> str:
    """The format of a user's own rows."""
    columns = ", ".join(markdown_code(name) for name in task.task.row_columns)
    labels = (
        f" Labels are {', '.join(map(markdown_text, task.labels[:20]))}{', …' * (len(task.labels) > 20)}."
        if task.labels
        else ""
    )
    forms = {
        "question-answering": ", or SQuAD's `.json`",
        "token-classification": ", or `.conll`: a word and its tag per line",
    }
    also = forms.get(task.kind, "")
    return f"The files are `.tsv`, `.csv`, `.jsonl` or `.json` with the columns {columns}{also}.{labels}"


def _licence(licence: str | None) -> str:
    return (
        f"licence {licence}" if licence else "whose licence its folder does not state: look it up before you share this"
    )


def _metric_rows(
    snapshot: StudySnapshot, trial: Trial[Completed], refit: Refit | None
) -> Sequence[tuple[str, str]]:  # fmt: skip
    """The metrics and the training rows. What a final model was trained on does not measure it."""
    job, metric, result = snapshot.settings.job, snapshot.metric_name, trial.outcome
    value = human_metric(metric, result.metric, result.metric_error)
    validation, rows = f"{metric}, {job.validation_samples:,} validation rows", f"{job.train_samples:,} rows"
    if refit is None:
        return [
            (f"{validation} (± their error alone)", value),
            (f"{metric}, development set", human_metric(metric, result.dev_metric)),
            ("trained on", rows),
        ]
    return [
        (f"{metric}, development set", human_metric(metric, refit.metric, refit.metric_error)),
        ("trained on", f"{refit.rows:,} rows after the search, those among them that it had held out"),
        (f"before, trained on {rows}: {validation}", value),
    ]


def _rows(
    snapshot: StudySnapshot, trial: Trial[Completed], predicted: Mapping[str, Any]
) -> Sequence[tuple[str, str]]:  # fmt: skip
    job, config, plan = snapshot.settings.job, trial.config, trial.plan
    return [
        *([("beside it", markdown_text(constant_text(snapshot)))] if constant_text(snapshot) else []),
        *([("F1 is of class", markdown_text(job.positive))] if job.positive is not None else []),
        *_cost_rows(trial, predicted, snapshot.settings.device_samples or job.train_samples),
        ("training", f"{config.epochs:g} epochs, batch {job.batch_size}, seed {job.seed}"),
        ("learning rate", f"{config.learning_rate:.3g}"),
        *([("frozen attention heads", f"{100 * config.frozen_head_share:.0f} %")] if config.frozen_heads else ()),
        ("frozen hidden neurons", f"{100 * mean_frozen(config):.0f} %, by {config.priming_epochs:g} epochs of priming"),
        ("trained parameters", f"{trial.outcome.trainable:,}"),
        ("step", f"{plan.summary}, {plan.optimizer}"),
    ]  # fmt: skip


def _cost_rows(trial: Trial[Completed], predicted: Mapping[str, Any], samples: int) -> Sequence[tuple[str, str]]:
    """The cost on the device: the trial's, or that of its compiled step, which the study did not price."""
    if trial.plan.engine == "onnx":
        device, longest = markdown_text(predicted["device"]), max(map(int, predicted["step_s"]))
        return [
            (f"peak memory on {device}, engine onnx", human_memory(predicted["peaks"][0][1])),
            (f"time of a step on {device}, engine onnx", human_time(predicted["step_s"][str(longest)])),
        ]
    cost = trial.cost
    low, high = cost.peak_memory_range_mib or (None, None)
    span = f"{human_memory(low)} to {human_memory(high)}"
    return [
        ("peak memory on the device", f"{human_memory(cost.peak_memory_mib)} ({span})"),
        ("time on the device", f"{human_time(cost.wall_time_s)} for {samples:,} rows"),
    ]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _install(trial: Trial[Completed]) -> str:
    """What a compiled bundle needs on a board; boards with a GPU have torch from their makers."""
    compiled = trial.plan.engine == "onnx"
    return "pip install numpy onnxruntime tokenizers\n" if compiled else ""


def _commands(base: str | None) -> str:
    name = re.sub("[^A-Za-z0-9._-]", "_", base.rpartition("/")[2]) if base else ""
    option = f" --base FOLDER_OF_{name}" if base else ""
    model = (
        f"python3 train.py --tuned --out model/{option}   # the fine-tuned model, from the checkpoint"
        if base
        else "# the fine-tuned model is in model/ and loads with transformers alone"
    )
    return f"python3 train.py --train my.tsv --dev my_dev.tsv --out tuned/{option}\n{model}"
