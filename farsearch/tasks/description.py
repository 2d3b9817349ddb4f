"""The description of a task of a user's own data, by options or a TOML file."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from farsearch.errors import BadInput, MissingResource
from farsearch.far.display import PATH, shown, shown_text
from farsearch.json_records import Record
from farsearch.runtime.near_names import did_you_mean
from farsearch.runtime.records import json_reason, missing_column
from farsearch.runtime.scores import METRICS
from farsearch.tasks.data import Kind
from farsearch.tasks.files import read_bytes
from farsearch.tasks.schema import name_problem
from farsearch.tasks.spec import TASKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # only there on Python 3.10

__all__ = ["OwnData", "check_fits", "find_own", "name_of", "option_words", "own_data", "own_from_toml"]

_PATHS = ("train", "dev", "train_labels", "dev_labels")
"""Fields that name files."""

Separator = Literal["comma", "tab", "semicolon", "pipe"]

_LONGEST_NAME = 100
"""Maximum characters of a task's name, after which studies and their folders are named."""


@dataclass(frozen=True)
class OwnData(Record):
    """Description of a task by a user. None infers the value from the data, or is a default.

    Attributes:
        name: name of the task, used in the names of studies and bundles.
        train, dev: files or folders. Without ``dev`` a part of ``train`` is held out.
        text_columns: one, two of a pair, question and context, or the column of the words.
        label_column: column of the label.
        label_columns: instead of it, a column of 0 and 1 for each label.
        labels: all names in the order of their ids, for data with ids or if the order matters.
        label_separator: separator of the labels in a cell; None for ``|``.
        decimal_comma: numbers may be written as 0,5.
        positive: positive class of ``f1`` and ``accuracy_f1``; None for the class with the fewest rows.
        separator: between the columns of a table; None detects it.
        columns: columns of tables without a header.
        train_labels, dev_labels: files with the labels of the lines of ``train`` and ``dev``, which then are texts.
        file: TOML file with this description, if there is one.
        skip_bad_rows: leave out and count invalid rows.
    """

    name: str
    train: str
    dev: str | None = None
    kind: Kind | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    labels: tuple[str, ...] | None = None
    metric: str | None = None
    licence: str = "not stated"
    title: str | None = None
    skip_bad_rows: bool = False
    label_separator: str | None = None
    decimal_comma: bool = False
    positive: str | None = None
    separator: Separator | None = None
    columns: tuple[str, ...] | None = None
    label_columns: tuple[str, ...] | None = None
    train_labels: str | None = None
    dev_labels: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.name in TASKS:
            raise BadInput(f"the name {shown(self.name)} is that of an official task; give yours another")
        if not self.name.strip():
            raise BadInput("the name of the task is empty; give it one")
        if not self.name.isprintable() or len(self.name) > _LONGEST_NAME or re.search(r"^\.|[/\\]", self.name):
            raise BadInput(
                f"the name {shown(self.name)} of the task is not usable; give one of at most {_LONGEST_NAME} "
                "characters that can be seen, without slashes and without a dot before it"
            )
        if self.text_columns is not None and not self.text_columns:
            raise BadInput("text_columns is empty; name one column, or two of a pair")
        if self.label_columns is not None and (len(self.label_columns) < 2 or self.label_column is not None):
            raise BadInput("label_columns are two or more, of 0 and 1; name one column with label_column alone")
        labels = self.label_columns or ([self.label_column] if self.label_column else [])
        self._check_columns([*(self.text_columns or ()), *labels])
        self._check_labels()
        self._check_files()
        self._check_metric()
        self._check_label_options()

    def _check_columns(self, columns: Sequence[str]) -> None:
        for i, column in enumerate(columns):
            if column in columns[:i]:
                raise BadInput(f"the column {shown(column)} is named twice; each of texts and label is another")
        if self.text_columns is not None and len(self.text_columns) > 2:
            raise BadInput(f"{len(self.text_columns)} text columns are too many; name one, or two of a pair")
        if self.columns is not None and (len(set(self.columns)) < len(self.columns) or len(self.columns) < 2):
            raise BadInput(
                f"the columns {', '.join(self.columns) or '(none)'} must be different names, at least two; name all of "
                "the file in their order"
            )
        unknown = [column for column in columns if self.columns is not None and column not in self.columns]
        if unknown:
            raise BadInput(f"{missing_column(unknown[0], self.columns or ())}, which are named for the file; name one")

    def _check_labels(self) -> None:
        if self.labels is not None and self.label_columns is not None:
            raise BadInput("labels are named by label_columns already; leave out one of them")
        if self.label_columns is not None and self.kind not in (None, "multi-label"):
            raise BadInput(f"label_columns are for multi-label, and the kind is {self.kind}; leave out one of them")
        labels = self.labels or self.label_columns or ()
        if len(set(labels)) < len(labels) or self.labels == ():
            raise BadInput(f"the labels {', '.join(labels) or '(none)'} must be different names, at least one")
        for problem in filter(None, map(name_problem, labels)):
            raise BadInput(problem)

    def _check_files(self) -> None:
        if self.dev_labels is not None and (self.dev is None or self.train_labels is None):
            raise BadInput("dev_labels needs dev and train_labels; add them")
        if self.train_labels is not None and self.dev is not None and self.dev_labels is None:
            raise BadInput("train_labels needs dev_labels beside dev; add it")

    def _check_metric(self) -> None:
        if self.metric is None:
            return
        if self.metric not in METRICS:
            hint = did_you_mean(self.metric, METRICS)
            known = f"it must be one of {', '.join(METRICS)}{hint and '; ' + hint}"
            raise BadInput(f"the metric {shown(self.metric)} is unknown; {known}")
        if self.kind is not None:
            check_fits(self.metric, self.kind)

    def _check_label_options(self) -> None:
        if self.label_separator is not None:
            if not self.label_separator.strip() and self.label_separator != " ":
                raise BadInput(f"the label separator is {shown(self.label_separator)}; give what is between two labels")
            if self.kind not in (None, "multi-label"):
                raise BadInput(
                    f"labels with a separator are for multi-label, and the kind is {self.kind}; leave out one of them"
                )
        if self.decimal_comma and self.kind not in (None, "regression"):
            raise BadInput(f"decimal commas are for regression, and the kind is {self.kind}; leave out one of them")
        if self.decimal_comma and self.label_separator is not None:
            raise BadInput("decimal commas are for numbers, and a separator is for several labels; leave out one")

    @property
    def stated_kind(self) -> Kind | None:
        """The kind that is named or implied by an option; None if it is inferred from the data."""
        if self.kind is None and (self.label_separator is not None or self.label_columns is not None):
            return "multi-label"
        return "regression" if self.kind is None and self.decimal_comma else self.kind


def check_fits(metric: str, kind: Kind) -> None:
    """Raise for a metric that does not apply to a kind of task.

    Raises:
        BadInput: with those that do.
    """
    if kind not in METRICS[metric].kinds:
        fitting = ", ".join(name for name, rule in METRICS.items() if kind in rule.kinds)
        raise BadInput(f"the metric {shown(metric)} is not for {kind}; choose one of {fitting}")


def own_from_toml(path: Path) -> OwnData:
    """Read the task of a TOML file; its paths are relative to the folder of the file.

    Raises:
        MissingResource: when it can't be read.
        BadInput: for invalid TOML, an unknown key, or an invalid value.
    """
    try:
        values = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path.name} is not TOML: {shown_text(json_reason(error), 160)}; correct it") from error
    try:
        if "file" in values:
            raise BadInput("the key 'file' stands for the file itself; leave it out, and name rows with train")
        values = {"name": name_of(path), **values, "file": str(_resolved(path))}
        for key in _PATHS:
            if values.get(key) == "":
                raise BadInput(f"{key} is empty; name a file")
            if isinstance(values.get(key), str):
                values[key] = str(_resolved(Path(values[key]), path.parent))
        return OwnData.from_dict(values)
    except BadInput as error:
        raise BadInput(f"{path.name}: {error}") from error


def _resolved(path: Path, folder: Path | None = None) -> Path:
    """The absolute path of a file that the user named, relative to ``folder``.

    Raises:
        BadInput: for an invalid path.
        MissingResource: for circular links.
    """
    try:
        return ((folder or Path()) / path.expanduser()).resolve()
    except ValueError as error:
        raise BadInput(f"{shown(str(path), PATH)} can't be the name of a file: {error}; correct it") from error
    except (OSError, RuntimeError) as error:
        raise MissingResource(f"the file {shown(str(path), PATH)} can't be read: {error}; check the path") from error


def name_of(path: Path) -> str:
    """Return the default name of a task: the file's, or its folder's for a file called ``train``."""
    resolved = _resolved(path)
    name = resolved.parent.name if resolved.stem.lower() == "train" and resolved.parent.name else resolved.stem
    return f"my-{name}" if name in TASKS else name[:_LONGEST_NAME]


def own_data(task: str | None, given: Mapping[str, Any]) -> OwnData | None:
    """Return the task of a user's own data that options describe; None if ``task`` is the name of an official one.

    Args:
        task: a name, or a TOML file, whose values options override.
        given: fields of ``OwnData``; None for those that are not set.

    Raises:
        BadInput: for contradictory or incomplete options.
        MissingResource: when the TOML file can't be read.
    """
    options = {key: value for key, value in given.items() if value is not None and value != () and value is not False}
    for key in _PATHS:
        if key in options:
            options[key] = str(_resolved(Path(options[key])))
    if task is not None and task.endswith(".toml"):
        return dataclasses.replace(own_from_toml(Path(task).expanduser()), **options)
    if task is not None:
        if options:
            option = f"--{next(iter(options)).replace('_', '-')}"
            raise BadInput(f"{option} is for your own data, and --task {task} is not; leave out one of them")
        return None
    if "train" not in options:
        raise BadInput("there is no task; add --task NAME, or --train FILE for your own data")
    return OwnData.from_dict({"name": name_of(Path(options["train"])), **options})


def option_words(given: Mapping[str, Any]) -> list[str]:
    """Return fields of ``OwnData`` as arguments of a command; those without an option are left out."""
    flags = {
        "text_columns": "--text-column", "label_columns": "--label-column", "labels": "--label",
        "name": "", "licence": "", "title": "", "file": "",
    }  # fmt: skip
    words: list[str] = []
    for field, value in given.items():
        if field == "columns" and value:
            value = ",".join(value)
        flag = flags.get(field, f"--{field.replace('_', '-')}")
        if value is True and flag:
            words.append(flag)
        elif value and flag:
            words += [
                word for item in (value if isinstance(value, tuple | list) else [value]) for word in (flag, str(item))
            ]
    return words


def find_own(name: str, given: Mapping[str, Any]) -> OwnData | None:
    """Return the task of a TOML file or a file of rows; None for an official name.

    Args:
        given: fields of ``OwnData``, as in ``own_data``.

    Raises:
        BadInput, MissingResource: as ``own_data``.
    """
    if name in TASKS or name.endswith(".toml") or not (Path(name).suffix or Path(name).is_dir()):
        return own_data(name, given)
    return own_data(None, {**given, "train": Path(name)})
