"""Format studies: rounded figures, rows of tables, markdown.

Only this module rounds, so that terminal, MLflow and pictures agree. Output for programs (``trials_json.py``) is not
rounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from farsearch.comparison import difference, full_fine_tuning_of, leads, ratios
from farsearch.far.display import shown_text
from farsearch.records import (
    AnyTrial,
    CompleteTrial,
    FarConfig,
    JobSpec,
    StudySnapshot,
    UnpricedTrial,
    constant_answer,
    flat,
    is_complete,
    on_front,
)

__all__ = [
    "COMPARED",
    "ROWS_ERROR",
    "SEEDS_ERROR",
    "baseline_rows",
    "constant_text",
    "constant_value",
    "constant_words",
    "front_markdown",
    "front_rows",
    "heads_of",
    "human_difference",
    "human_interval",
    "human_memory",
    "human_metric",
    "human_time",
    "idle_words",
    "is_percentage",
    "markdown_code",
    "markdown_table",
    "markdown_text",
    "mean_frozen",
    "metric_title",
    "metric_words",
    "operation_title",
    "training_settings",
    "trial_rows",
]

_CORRELATIONS = {
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "pearson_spearman": "Pearson and Spearman",
}
"""Metrics that are not shares: 0 is not their worst value."""
_SHARES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "accuracy_f1": "accuracy and F1",
    "squad": "answer F1",
    "entity_f1": "entity F1",
    "exact_match": "exact match",
    "precision": "precision",
    "recall": "recall",
}
"""Metrics between 0 and 1, shown in per cent."""

ROWS_ERROR = "± is the error of the rows alone, not of the seed"
SEEDS_ERROR = "± is one standard deviation over seeds"
"""Meaning of ±, for headings of tables and beside pictures: of a search, and of a verification."""

Row = dict[str, str]


def is_percentage(metric_name: str) -> bool:
    """Return whether ``metric_name`` is a share that is shown in per cent."""
    return metric_name in _SHARES


def constant_value(snapshot: StudySnapshot, rows: str = "validation") -> float | None:
    """Return the score of a constant answer on the ``validation`` or ``dev`` rows; None where it is not recorded."""
    return constant_answer(snapshot.meta, rows)


def constant_text(snapshot: StudySnapshot) -> str:
    """Return the scores of a constant answer in one line, and whether no trial is better; empty if not recorded."""
    words, value = constant_words(snapshot.metric_name, snapshot.meta), constant_value(snapshot)
    metrics = [trial.outcome.metric for trial in snapshot.complete]
    worse = value is not None and metrics and max(metrics) <= value
    return f"{words}: no trial is better" if worse else words


def constant_words(metric_name: str, meta: Mapping[str, Any]) -> str:
    """Return the scores of a constant answer in one line, from the metadata of a study or a job."""
    titles = {"validation": "validation rows", "dev": "development rows"}
    answers = meta.get("constant_answer", {})
    parts = [
        f"{human_metric(metric_name, answers[rows]['value'])} on the {title}"
        for rows, title in titles.items()
        if rows in answers
    ]
    answer = shown_text(next(iter(answers.values()))["answer"]) if answers else ""
    return f"a constant answer ({answer}) scores {', '.join(parts)}" if parts else ""


def training_settings(job: JobSpec) -> dict[str, str]:
    """Return how a study's trainings differ from ordinary ones, by title: loss, gradients, and their end."""
    settings = {
        "class weights": "" if job.class_weights == "none" else job.class_weights,
        "label smoothing": "" if job.label_smoothing is None else f"{job.label_smoothing:g}",
        "norm of gradients": "" if job.clip_norm is None else f"at most {job.clip_norm:g}",
        "early stopping": "" if job.patience is None else f"after {job.patience} evaluations without a better metric",
    }
    return {title: text for title, text in settings.items() if text}


def metric_words(metric_name: str) -> str:
    """Return the metric's name within a sentence: ``accuracy_f1`` is accuracy and F1."""
    return {**_CORRELATIONS, **_SHARES}.get(metric_name, metric_name.replace("_", " "))


def metric_title(metric_name: str) -> str:
    """Return the metric's name as a heading: ``accuracy_f1`` is Accuracy and F1."""
    words = metric_words(metric_name)
    return words[:1].upper() + words[1:]


_OPERATIONS = {"gemm": "matrix products", "bmm": "attention products", "stream": "other operations"}


def operation_title(name: str) -> str:
    """Return the title of a class of operations."""
    return _OPERATIONS.get(name, name)


def human_metric(metric_name: str, value: float | None, error: float | None = None) -> str:
    """Return ``89.1 ± 0.9 %`` or ``0.512 ± 0.021``; an empty string for None."""
    if value is None:
        return ""
    scale, digits, unit = (100, 1, " %") if is_percentage(metric_name) else (1, 3, "")
    spread = "" if error is None else f" ± {error * scale:.{digits}f}"
    return f"{value * scale:.{digits}f}{spread}{unit}"


def human_difference(metric_name: str, difference: float, error: float | None = None) -> str:
    """Return a signed difference of the metric: ``+0.5 points``, ``+0.5 ± 0.3 points`` or ``−0.021``."""
    scale, digits, unit = (100, 1, " points") if is_percentage(metric_name) else (1, 3, "")
    spread = "" if error is None else f" ± {error * scale:.{digits}f}"
    return f"{_signed(difference * scale, digits)}{spread}{unit}"


def human_interval(metric_name: str, low: float, high: float) -> str:
    """Return an interval of a difference of the metric: ``−4.8 to +9.0 points``."""
    scale, digits, unit = (100, 1, " points") if is_percentage(metric_name) else (1, 3, "")
    return f"{_signed(low * scale, digits)} to {_signed(high * scale, digits)}{unit}"


def _signed(value: float, digits: int) -> str:
    """Return a number with its sign, a typographic minus, and ± for zero."""
    text = f"{abs(value):,.{digits}f}"
    if not any(digit in "123456789" for digit in text):
        return f"±{text}"
    return f"{'−' if value < 0 else '+'}{text}"


def human_memory(mib: float | None, *, signed: bool = False) -> str:
    """Return ``1,204 MiB``; an empty string for None."""
    if mib is None:
        return ""
    return f"{_signed(mib, 0) if signed else f'{mib:,.0f}'} MiB"


def human_time(seconds: float | None, *, signed: bool = False) -> str:
    """Return ``41 ms`` under 0.1 s, ``48 s`` under two minutes, ``12.5 min`` under two hours, then ``3.4 h``.

    An empty string for None.
    """
    if seconds is None:
        return ""
    size = abs(seconds)
    if 0 < size < 0.1:
        value, digits, unit = 1000 * seconds, 0 if size >= 0.01 else 1 if size >= 0.001 else 2, "ms"
    elif size < 10:
        value, digits, unit = seconds, 1, "s"
    elif size < 120:
        value, digits, unit = seconds, 0, "s"
    elif size < 7200:
        value, digits, unit = seconds / 60, 1, "min"
    else:
        value, digits, unit = seconds / 3600, 1, "h"
    return f"{_signed(value, digits) if signed else f'{value:,.{digits}f}'} {unit}"


def mean_frozen(config: FarConfig) -> float:
    """Return the share of frozen hidden neurons, averaged over the layers; those of a frozen bottom count as 1."""
    fractions = config.canonical().frozen_fractions
    return math.fsum(fractions) / len(fractions) if fractions else 0.0


COMPARED = "vs full, × memory, × time: compared with full fine-tuning"
"""Meaning of three columns, for headings of tables."""


def front_rows(snapshot: StudySnapshot) -> list[Row]:
    """Return a row for each choice of the front, from the least memory to the most.

    Trials that only noise distinguishes from a cheaper one stand behind it, in its note.
    """
    rows, full = [], full_fine_tuning_of(snapshot)
    for lead in leads(snapshot):
        behind = ", ".join(str(trial.number) for trial in lead.behind)
        row = _row(snapshot, lead.trial, full, paired=True)
        notes = filter(None, [row["note"], behind and f"no better for more: {behind}"])
        rows.append({**row, "note": "; ".join(notes)})
    return rows


def baseline_rows(snapshot: StudySnapshot) -> list[Row]:
    """Return a row for each baseline, with the columns of ``front_rows``."""
    full = full_fine_tuning_of(snapshot)
    return [_row(snapshot, trial, full, paired=True) for trial in snapshot.baselines]


def trial_rows(snapshot: StudySnapshot) -> list[Row]:
    """Return a row for each trial, by number, with its state; ``front`` for those on the front."""
    full = full_fine_tuning_of(snapshot)
    ordered = sorted(snapshot.trials, key=lambda trial: trial.number)
    return [{**_row(snapshot, trial, full), "state": _state(trial)} for trial in ordered]


def _state(trial: AnyTrial) -> str:
    if on_front(trial):
        return "front"
    return "infeasible" if is_complete(trial) and trial.cost.feasible is False else trial.outcome.state


def _row(snapshot: StudySnapshot, any_trial: AnyTrial, full: CompleteTrial | None, paired: bool = False) -> Row:
    """Return the cells of a trial.

    Args:
        full: full fine-tuning, to compare with.
        paired: with the difference from full fine-tuning, for which the predictions of the trial are read.
    """
    trial, name = flat(any_trial), snapshot.metric_name
    config, baseline = trial.config, trial.baseline
    trained_at = baseline or config
    return {
        "trial": str(trial.number) if baseline is None else baseline.title,
        metric_words(name): human_metric(name, trial.metric, trial.metric_error),
        **({"vs full": _versus(snapshot, any_trial, full)} if paired else {}),
        "memory": human_memory(trial.peak_memory_mib),
        "× memory": _ratio(any_trial, full, 0),
        "time": human_time(trial.wall_time_s),
        "× time": _ratio(any_trial, full, 1),
        "frozen": "" if config is None else f"{100 * mean_frozen(config):.0f} %",
        "also frozen": "" if config is None else _also_frozen(config),
        "trained": "" if trial.trainable is None else _millions(trial.trainable),
        "rate": "" if trained_at is None else f"{trained_at.learning_rate:.1e}",
        "priming": "" if config is None else f"{config.priming_epochs:g} ep",
        "note": idle_words(any_trial),
    }


def _versus(snapshot: StudySnapshot, trial: AnyTrial, full: CompleteTrial | None) -> str:
    """Return the difference of the metric from full fine-tuning's, without a unit."""
    if full is None or full is trial or full.outcome.learned is False or not is_complete(trial):
        return ""
    found = difference(snapshot, trial, full)
    return human_difference(snapshot.metric_name, found.value, found.error).removesuffix(" points")


def _ratio(trial: AnyTrial, full: CompleteTrial | None, which: int) -> str:
    """Return memory (0) or time (1) as a share of full fine-tuning's."""
    if full is None or isinstance(trial, UnpricedTrial):
        return ""
    return f"{ratios(trial, full)[which]:.2f}"


def _also_frozen(config: FarConfig) -> str:
    """Return what is frozen beside neurons: embeddings, attention or heads, whole bottom layers."""
    config = config.canonical()
    bottom, attention = config.frozen_bottom_layers, config.frozen_attention_layers
    parts = ["emb"] * config.frozen_embeddings
    heads = f"{config.frozen_head_share:.0%} of heads" if config.frozen_heads else f"attention 0-{attention - 1}"
    parts += [f"layers 0-{bottom - 1}"] * (bottom > 0) + [heads] * (bool(config.frozen_heads) or attention > bottom)
    return ", ".join(parts)


def idle_words(trial: AnyTrial) -> str:
    """Return ``did not learn`` where a trial is no better than a constant answer; else an empty string."""
    return "did not learn" if is_complete(trial) and trial.outcome.learned is False else ""


def _millions(count: int) -> str:
    return f"{count / 1e6:.{1 if count >= 1e6 else 2}f} M"


def markdown_text(text: str) -> str:
    """Return a name or text of a user, escaped for one line of markdown."""
    line = " ".join(shown_text(text, len(text)).split())
    entities = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+#=]|^\d+(?=[.)]))", r"\\\1", entities)


def markdown_code(text: str) -> str:
    """Return a name as code in one line of markdown, delimited by more backticks than it contains."""
    line = " ".join(shown_text(text, len(text)).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


_OPTIONAL = ("note", "vs full", "× memory", "× time", "also frozen")
"""Columns that are left out where they are empty."""


def heads_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the columns of a table; some only if a row has them."""
    return [head for head in (rows[0] if rows else ()) if head not in _OPTIONAL or any(row.get(head) for row in rows)]


def markdown_table(rows: Sequence[Row]) -> str:
    """Return ``rows`` as a GitHub-flavoured table, figures aligned to the right; an empty string for no rows."""
    if not rows:
        return ""
    heads = heads_of(rows)
    lines = [heads, ["---:"] * len(heads), *([row.get(head, "") for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def front_markdown(snapshot: StudySnapshot) -> str:
    """Return the front as a markdown table with a caption."""
    rows, others = front_rows(snapshot), baseline_rows(snapshot)
    title = f"No trial of {snapshot.name} is on the front yet."
    if rows:
        title = (
            f"Pareto front of {snapshot.name}: {len(rows)} of {len(snapshot.complete)} complete trials; {ROWS_ERROR}."
        )
    if full_fine_tuning_of(snapshot) is not None:
        title += f" {COMPARED}."
    if others:
        title += " The rows with a name are baselines, each at its best learning rate."
    if any(row["note"] for row in (*rows, *others)):
        title += " A row that did not learn is no better than a constant answer, beyond the error of the rows."
    table = markdown_table([*rows, *others])
    return f"{title}\n\n{table}\n" if table else f"{title}\n"
