"""Options of a task: an official one, or a user's own data, which becomes an ``OwnData``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click

__all__ = ["own_options", "task_options", "with_options"]

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = ("classification", "multi-label", "regression", "token-classification", "question-answering")
_SEPARATORS = ("comma", "tab", "semicolon", "pipe")
_TASK: Mapping[str, Mapping[str, Any]] = {
    "task": {"metavar": "NAME", "help": "An official one (see: farsearch tasks list), or your own: a .toml file."},
    "train": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "Your own rows: .csv, .tsv, .jsonl, .json, .conll, .parquet, or a folder: of Dataset.save_to_disk, "
        "or with a folder of texts for each class.",
    },
    "train_labels": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "A label a line, where --train is a text a line.",
    },
    "dev": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "Your own rows to report on.  [default: 20 % of --train, at most 1024]",
    },
    "dev_labels": {"type": click.Path(path_type=Path), "metavar": "FILE", "help": "A label a line of --dev."},
    "separator": {
        "type": click.Choice(_SEPARATORS),
        "help": "Separator of the columns of your tables.  [default: detected]",
    },
    "columns": {
        "metavar": "NAME,...",
        "callback": lambda _ctx, _param, value: None if value is None else tuple(value.split(",")),
        "help": "Columns of your tables that have no header, in their order: text,label.",
    },
    "text_column": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Column of your texts; twice for a pair, or question and context.  [default: a usual name]",
    },
    "label_column": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Column of the labels; several times for columns of 0 and 1, one for each label.  "
        "[default: a usual name]",
    },
    "kind": {
        "type": click.Choice(_KINDS),
        "help": "Kind of your task.  [default: by the labels. Numbers with fractions: regression; lists, "
        "or names with | between: multi-label, or token-classification where there is one for each word; answers: "
        "question-answering; others: classification]",
    },
    "label": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Name of a class, label or tag, by id; name all. Others are bad rows.  [default: all in the data]",
    },
    "label_separator": {
        "metavar": "TEXT",
        "help": "Separator of the labels of a row, in one cell; the kind is then multi-label.  [default: |]",
    },
    "decimal_comma": {"is_flag": True, "help": "Numbers are written as 0,5; the kind is then regression."},
    "positive": {
        "metavar": "LABEL",
        "help": "Class that --metric f1 or accuracy_f1 is of.  [default: the one with the fewest rows]",
    },
    "metric": {"metavar": "NAME", "help": "Metric to search on, of your own data.  [default: the kind's]"},
    "skip_bad_rows": {"is_flag": True, "help": "Leave out your rows that break the format, and count them."},
}
"""The options of a task, in the order of the help."""

_OWN_FIELDS = {
    name: {"text_column": "text_columns", "label": "labels"}.get(name, name) for name in _TASK if name != "task"
}


def _own_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of ``OwnData``, which distinguishes one column of labels from several."""
    labels = given["label_column"]
    one, several = (labels[0], None) if len(labels) == 1 else (None, labels)
    return {**given, "label_column": one, "label_columns": several}


def task_options(function: F) -> F:
    """Add the options of a task. The command gets ``task``, and ``own``: the user's ``OwnData`` as JSON types."""

    @functools.wraps(function)
    def with_task(*args: Any, task: str | None, **given: Any) -> Any:
        from farsearch.tasks.description import own_data

        described = own_data(task, _own_fields({field: given.pop(name) for name, field in _OWN_FIELDS.items()}))
        if described is None:
            return function(*args, task=task, own=None, **given)
        return function(*args, task=described.name, own=described.to_dict(), **given)

    return cast("F", with_options(with_task, _TASK))


def own_options(function: F) -> F:
    """Add the options of a task except its training file. The command gets ``given``: fields of ``OwnData``."""

    @functools.wraps(function)
    def with_given(*args: Any, **given: Any) -> Any:
        fields = _own_fields({field: given.pop(name) for name, field in _OWN_FIELDS.items() if name != "train"})
        return function(*args, given=fields, **given)

    others = {name: options for name, options in _TASK.items() if name not in ("task", "train")}
    return cast("F", with_options(with_given, others))


def with_options(function: Any, options: Mapping[str, Mapping[str, Any]]) -> Any:
    """Add options by parameter name, each with click's settings and perhaps a ``flag``, in the order of the help."""
    for name, rules in reversed([*options.items()]):
        flag = rules.get("flag", f"--{name.replace('_', '-')}")
        click.option(flag, name, **{key: value for key, value in rules.items() if key != "flag"})(function)
    return function
