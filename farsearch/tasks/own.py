"""A task of the user's own: described in a TOML file or by options, its kind and labels found in the data."""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from farsearch.errors import BadInput, DataError, MissingResource
from farsearch.far.board.answers import id_finder
from farsearch.far.board.records import Record as RowRecord
from farsearch.far.board.records import RowProblem, json_reason, missing_column
from farsearch.far.board.rows import rows_of
from farsearch.far.board.scores import METRICS, OF_ONE_CLASS
from farsearch.far.board.squad import squad_rows
from farsearch.far.shown import PATH, shown, shown_text
from farsearch.strict import Record
from farsearch.tasks.columns import Columns, find_columns, unused_columns
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec
from farsearch.tasks.files import file_errors, read_bytes
from farsearch.tasks.folders import parts_of
from farsearch.tasks.found import check_kind, check_label, find_kind, find_labels, name_problem
from farsearch.tasks.own_files import DataFile, Form, open_data, open_lines
from farsearch.tasks.spec import TASKS
from farsearch.tasks.split import split_examples
from farsearch.tasks.understood import understand

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # only there on Python 3.10

__all__ = ["OwnData", "find_own", "load_own", "name_of", "option_words", "own_data", "own_from_toml"]

METRIC_OF: Mapping[Kind, str] = {
    "classification": "accuracy",
    "multi-label": "micro_f1",
    "regression": "pearson_spearman",
    "token-classification": "entity_f1",
    "question-answering": "squad",
}
"""What is searched on where the user does not say."""

_PATHS = ("train", "dev", "train_labels", "dev_labels")
"""Fields that name files."""

_LABEL_COLUMNS = "labels"
"""What is learned is called where each label is a column of its own."""

Separator = Literal["comma", "tab", "semicolon", "pipe"]

_LONGEST_NAME = 100
"""Characters of a task's name, which studies and their folders are named by."""

_HELD_OUT_SEED = 0
"""The development rows stay the same whatever the seed of a study."""

_SHOWN = 3
"""So many of the rows that were left out are shown."""


@dataclass(frozen=True)
class OwnData(Record):
    """What a user says of a task of their own. None is found in the data, or has a default.

    Attributes:
        name: of the task; studies and bundles are named by it.
        train, dev: files or folders. Without ``dev`` a part of ``train`` is held out.
        text_columns: one, two of a pair, question and context, or the column of the words.
        label_column: what is learned.
        label_columns: instead of it, a column of 0 and 1 for each label.
        labels: names by id, where the data have ids, or where their order matters; all that are classes.
        label_separator: what is between the labels of a cell; None for ``|``.
        decimal_comma: numbers may be written as 0,5.
        positive: label of the class that ``f1`` and ``accuracy_f1`` are of; None for the one with the fewest rows.
        separator: between the columns of a table; None: it is found.
        columns: of tables without a header.
        train_labels, dev_labels: files with the label of each line of ``train`` and ``dev``, which then are texts.
        file: that describes the task, where it was read from one.
        skip_bad_rows: rows that break the format are left out and counted.
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
            close = difflib.get_close_matches(self.metric, METRICS, n=1)
            hint = f"; did you mean {shown(close[0])}?" if close else ""
            raise BadInput(f"the metric {shown(self.metric)} is unknown; it must be one of {', '.join(METRICS)}{hint}")
        if self.kind is not None:
            _check_fits(self.metric, self.kind)

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
        """The kind that the user names, or that an option is for; None where the data say it."""
        if self.kind is None and (self.label_separator is not None or self.label_columns is not None):
            return "multi-label"
        return "regression" if self.kind is None and self.decimal_comma else self.kind


def _check_fits(metric: str, kind: Kind) -> None:
    if kind not in METRICS[metric].kinds:
        fitting = ", ".join(name for name, rule in METRICS.items() if kind in rule.kinds)
        raise BadInput(f"the metric {shown(metric)} is not for {kind}; choose one of {fitting}")


def own_from_toml(path: Path) -> OwnData:
    """The task that a TOML file describes; its paths are relative to the folder of the file.

    Raises:
        MissingResource: when it can't be read.
        BadInput: for what is no TOML, an unknown key, or a value that breaks a rule.
    """
    try:
        says = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path.name} is not TOML: {shown_text(json_reason(error), 160)}; correct it") from error
    try:
        if "file" in says:
            raise BadInput("the key 'file' stands for the file itself; leave it out, and name rows with train")
        says = {"name": name_of(path), **says, "file": str(_resolved(path))}
        for key in _PATHS:
            if says.get(key) == "":
                raise BadInput(f"{key} is empty; name a file")
            if isinstance(says.get(key), str):
                says[key] = str(_resolved(Path(says[key]), path.parent))
        return OwnData.from_dict(says)
    except BadInput as error:
        raise BadInput(f"{path.name}: {error}") from error


def _resolved(path: Path, folder: Path | None = None) -> Path:
    """The whole path of a file that the user named, below ``folder`` where it is not absolute.

    Raises:
        BadInput: for what can't be a path. MissingResource: for links that lead in a circle.
    """
    try:
        return ((folder or Path()) / path.expanduser()).resolve()
    except ValueError as error:
        raise BadInput(f"{shown(str(path), PATH)} can't be the name of a file: {error}; correct it") from error
    except (OSError, RuntimeError) as error:
        raise MissingResource(f"the file {shown(str(path), PATH)} can't be read: {error}; check the path") from error


def name_of(path: Path) -> str:
    """Return a task's name where the user gives none: the file's, or its folder's where it is called ``train``."""
    resolved = _resolved(path)
    name = resolved.parent.name if resolved.stem.lower() == "train" and resolved.parent.name else resolved.stem
    return f"my-{name}" if name in TASKS else name[:_LONGEST_NAME]


def own_data(task: str | None, given: Mapping[str, Any]) -> OwnData | None:
    """The task of the user's own that options describe; None where ``task`` is the name of an official one.

    Args:
        task: a name, or a TOML file, of which options override the values.
        given: fields of ``OwnData`` that the user said; None is what they did not.

    Raises:
        BadInput: for options that contradict each other, or lack something.
        MissingResource: when the TOML file can't be read.
    """
    said = {key: value for key, value in given.items() if value is not None and value != () and value is not False}
    for key in _PATHS:
        if key in said:
            said[key] = str(_resolved(Path(said[key])))
    if task is not None and task.endswith(".toml"):
        return dataclasses.replace(own_from_toml(Path(task).expanduser()), **said)
    if task is not None:
        if said:
            option = f"--{next(iter(said)).replace('_', '-')}"
            raise BadInput(f"{option} is for your own data, and --task {task} is not; leave out one of them")
        return None
    if "train" not in said:
        raise BadInput("there is no task; add --task NAME, or --train FILE for your own data")
    return OwnData.from_dict({"name": name_of(Path(said["train"])), **said})


def option_words(given: Mapping[str, Any]) -> list[str]:
    """Return fields of ``OwnData`` as words of a command; those that no option has are left out."""
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
                word for each in (value if isinstance(value, tuple | list) else [value]) for word in (flag, str(each))
            ]
    return words


def find_own(name: str, given: Mapping[str, Any]) -> OwnData | None:
    """The task of the user's own that a TOML file describes, or that a file of rows is; None of an official name.

    Args:
        given: fields of ``OwnData``, as ``own_data`` has them.

    Raises:
        BadInput, MissingResource: as ``own_data``.
    """
    if name in TASKS or name.endswith(".toml") or not (Path(name).suffix or Path(name).is_dir()):
        return own_data(name, given)
    return own_data(None, {**given, "train": Path(name)})


def load_own(own: OwnData, tell: Callable[[str], None], data_dir: Path | None = None) -> TaskData:
    """The rows of a task of the user's own.

    Args:
        tell: told in one line what was found, and what was left out.
        data_dir: folder with the files, by their names, on a host that has them elsewhere.

    Raises:
        MissingResource: when a file can't be read.
        DataError: for rows that break the format, and data that no task can be made of.
    """
    try:
        return _load(own, tell, data_dir)
    except RowProblem as error:
        raise DataError(str(error)) from error


def _load(own: OwnData, tell: Callable[[str], None], data_dir: Path | None) -> TaskData:
    train_file, dev_file = _files(own, tell, data_dir)
    columns = _columns(own, train_file)
    texts, label = columns
    kept, left_out = _records(own, train_file)
    used = Columns((*texts, *(own.label_columns or ())), label)
    unused = unused_columns(train_file.columns, used, [cells for _, cells in kept])
    spec = _spec(own, train_file, [cells for _, cells in kept], texts, label)
    train = _examples(own, spec, train_file, kept, left_out)
    files = {"train": (train_file.name, train.digest)}
    _tell_left_out(tell, train_file, left_out)
    _check_answers(train, spec, train_file.name, 3 if dev_file is None else 2)
    spec = dataclasses.replace(spec, positive=_positive(own, spec, train, tell))
    if dev_file is None:
        train, dev = _hold_out(train, spec.kind, tell)
        source = f"{train_file.name}, a part held out"
    else:
        kept, left_out = _records(own, dev_file)
        dev = _examples(own, spec, dev_file, kept, left_out)
        files["dev"] = (dev_file.name, dev.digest)
        _tell_left_out(tell, dev_file, left_out)
        _tell_shared(train, dev, dev_file.name, tell)
        source = f"{train_file.name} and {dev_file.name}"
    if spec.kind == "question-answering":
        unanswerable = not all((*train.answers, *dev.answers))
        spec = dataclasses.replace(spec, unanswerable=unanswerable)
    data = TaskData(spec, train, dev, source, unused=unused, files=files)
    for line in understand(data).lines():
        tell(line)
    return data


def _files(own: OwnData, tell: Callable[[str], None], data_dir: Path | None) -> tuple[DataFile, DataFile | None]:
    """The file of training rows, and that of development rows where there is one."""
    train, dev = _place(own.train, data_dir), None if own.dev is None else _place(own.dev, data_dir)
    with file_errors(train):
        parts = parts_of(train) if train.is_dir() else None
    if parts is not None:
        tell(f"{train.name}: {parts.note if dev is None else f'{parts.train.name} is trained on'}")
        train, dev = parts.train, dev or parts.dev
    opened = []
    for path, labels in ((train, own.train_labels), (dev, own.dev_labels)):
        if path is not None:
            form = Form(own.separator, own.columns)
            opened.append(open_data(path, form) if labels is None else open_lines(path, _place(labels, data_dir)))
    for file in opened:
        if file.note:
            tell(f"{file.name}: {file.note}")
    return opened[0], opened[1] if len(opened) > 1 else None


def _place(path: str, data_dir: Path | None) -> Path:
    return Path(path) if data_dir is None else data_dir.expanduser() / Path(path).name


def _columns(own: OwnData, file: DataFile) -> Columns:
    """The columns of texts and label: as the user names them, or those that have a usual name."""
    if file.is_squad:
        columns = Columns(("question", "context"), "answers")
        if (own.text_columns or columns.texts, own.label_column or columns.label) != columns:
            raise DataError(
                f"{file.name} is SQuAD's JSON, whose columns are question, context and answers; leave out the names of "
                "columns, or save it as JSON lines (.jsonl)"
            )
        return columns
    columns = find_columns(file.columns, own.text_columns, own.label_column)
    file.check(columns.texts, "--text-column")
    if own.label_columns is not None:
        file.check(own.label_columns, "--label-column")
        return Columns(columns.texts, _LABEL_COLUMNS)
    if columns.label not in file.columns and own.label_column is None:
        _check_label_columns(file)
    file.check((columns.label,), "--label-column")
    return columns


def _check_label_columns(file: DataFile) -> None:
    """Refuse a table without a label whose columns of 0 and 1 may be one for each label."""
    columns = file.set_columns()
    if len(columns) > 1:
        listed = ", ".join(columns[:10]) + ", …" * (len(columns) > 10)
        raise RowProblem(
            f"{file.name}: there is no column of labels, and 0 and 1 alone in {shown(listed)}; where each is a label, "
            f"name them: {shlex.join(word for column in columns for word in ('--label-column', column))}"
        )


def _records(own: OwnData, file: DataFile) -> tuple[list[RowRecord], list[str]]:
    """The records of a file, and the messages of those that could not be read."""
    left_out: list[str] = []
    if file.is_squad:
        return [], left_out
    return list(file.records(left_out if own.skip_bad_rows else None)), left_out


def _spec(
    own: OwnData, file: DataFile, cells: Sequence[Mapping[str, Any]], texts: tuple[str, ...], label: str
) -> TaskSpec:
    kind = own.stated_kind or ("question-answering" if file.is_squad else find_kind(cells, texts, label))
    labelled = [row[label] for row in cells if label in row]
    if own.stated_kind is None and own.labels is None:
        check_kind(kind, labelled, file.name)
    if file.is_squad and kind != "question-answering":
        raise DataError(f"{file.name} is SQuAD's JSON, and the kind is {kind}; save it as JSON lines (.jsonl)")
    if kind == "question-answering" and len(texts) != 2:
        raise DataError(f"{file.name}: questions need two text columns, question and context; name both")
    if kind == "token-classification" and len(texts) != 1:
        raise DataError(f"{file.name}: words are in one text column, and {len(texts)} are named; name one")
    metric = own.metric or METRIC_OF[kind]
    _check_fits(metric, kind)
    if own.labels and kind in ("regression", "question-answering"):
        raise DataError(f"{file.name}: labels are names of classes, and the kind is {kind}; leave them out")
    labels = own.labels or own.label_columns or _found_labels(own, file, kind, labelled, label)
    if metric in OF_ONE_CLASS and len(labels) > 2:
        raise DataError(
            f"{file.name}: the metric {shown(metric)} is of two classes, and there are {len(labels)}; choose macro_f1"
        )
    return TaskSpec(
        name=own.name, title=own.title or f"rows of {file.name}", kind=kind, labels=labels, metric=metric, texts=texts,
        label=label, columns=own.columns, licence=own.licence, label_separator=own.label_separator,
        decimal_comma=own.decimal_comma, label_columns=own.label_columns is not None,
    )  # fmt: skip


def _found_labels(own: OwnData, file: DataFile, kind: Kind, cells: Sequence[Any], label: str) -> tuple[str, ...]:
    """The labels in the rows, in the order that the file has them in where it names them."""
    found = find_labels(kind, cells, own.label_separator)
    named = [name for name in file.classes.get(label, ()) if name in found]
    return (*named, *(name for name in found if name not in named))


def _examples(own: OwnData, spec: TaskSpec, file: DataFile, kept: Sequence[RowRecord], left_out: list[str]) -> Examples:
    skip = left_out if own.skip_bad_rows else None
    if file.is_squad:
        return Examples(*squad_rows(file.source.squad, file.name, skip))
    return Examples(*rows_of(_checked(own, spec, kept, skip), spec.task, file.name, skip))


def _checked(own: OwnData, spec: TaskSpec, records: Sequence[RowRecord], skip: list[str] | None) -> Iterator[RowRecord]:
    """The records of which the label looks as those of the others do."""
    first = next((cells[spec.label] for _, cells in records if cells.get(spec.label) is not None), None)
    for where, cells in records:
        there = spec.label in cells and not spec.label_columns
        problem = check_label(spec, cells[spec.label], own.labels is None, first) if there else ""
        if not problem:
            yield where, cells
        elif skip is None:
            raise RowProblem(f"{where}: {problem}")
        else:
            skip.append(f"{where}: {problem}")


def _tell_left_out(tell: Callable[[str], None], file: DataFile, left_out: Sequence[str]) -> None:
    if left_out:
        tell(f"{len(left_out)} row{'s' * (len(left_out) != 1)} of {file.name} left out (--skip-bad-rows), as:")
        for message in left_out[:_SHOWN]:
            tell(f"  {message}")


def _check_answers(train: Examples, spec: TaskSpec, name: str, parts: int) -> None:
    """Refuse training rows that there is nothing to learn from.

    Args:
        parts: that they are divided into, of which each needs a row of each class.
    """
    answers = Counter(train.answers)
    told = {tag for tags in answers for tag in tags} if spec.kind == "token-classification" else set(answers)
    if spec.kind == "classification":
        if len(answers) == 1:
            raise DataError(
                f"{name}: all {len(train)} rows are of class {shown(spec.labels[train.answers[0]])}; give "
                "rows of at least 2"
            )
        missing = [label for i, label in enumerate(spec.labels) if i not in answers]
        if missing:
            raise DataError(
                f"{name} has no row of class {shown(missing[0])}; add rows of it, or leave it out of the labels"
            )
        if len(train) >= 20 and len(answers) > len(train) / 2:
            raise DataError(
                f"{name}: {len(answers)} different labels in {len(train)} rows are no classes; name another "
                "--label-column, or the --kind"
            )
        rarest, rows = min(answers.items(), key=lambda item: item[1])
        if rows < parts:
            raise DataError(
                f"{name}: class {shown(spec.labels[rarest])} has {rows} row{'s' * (rows != 1)}; it needs "
                f"{parts} at least, "
                "one for each part of the data: add rows of it, or leave it out"
            )
    elif len(told) == 1:
        raise DataError(f"{name}: what is learned ({spec.label}) is the same in all {len(train)} rows; give others too")


def _positive(own: OwnData, spec: TaskSpec, train: Examples, tell: Callable[[str], None]) -> str | None:
    """Label of the class that the metric is of: as named, else that with the fewest rows; None of other metrics."""
    if spec.metric not in OF_ONE_CLASS:
        if own.positive is not None:
            raise BadInput(
                f"the positive class {shown(own.positive)} is for {' and '.join(OF_ONE_CLASS)}, and the metric is "
                f"{spec.metric}; choose one of them with --metric, or leave it out"
            )
        return None
    if own.positive is not None:
        found = id_finder(spec.labels)(own.positive)
        if found is None:
            raise BadInput(
                f"the positive class {shown(own.positive)} is unknown; it must be one of {', '.join(spec.labels)}"
            )
        return spec.labels[found]
    counts = Counter(train.answers)
    rarest = min(range(len(spec.labels)), key=lambda i: (counts[i], -i))
    why = "which has the fewest rows" if len(set(counts.values())) > 1 else "the second of two with as many rows"
    tell(f"{spec.metric} is of class {shown(spec.labels[rarest])}, {why}; --positive names another")
    return spec.labels[rarest]


def _hold_out(train: Examples, kind: Kind, tell: Callable[[str], None]) -> tuple[Examples, Examples]:
    """Training rows and development rows, by the rule of the validation split, each in the order of the file."""
    split = split_examples(train, None, _HELD_OUT_SEED, kind=kind)
    neither = len(train) - len(split.train) - len(split.validation)
    more = f"; {neither} of neither, for they share texts with those" if neither else ""
    tell(f"no --dev: {len(split.validation)} of {len(train)} rows are held out for development{more}")
    return train.take(sorted(split.train)), train.take(sorted(split.validation))


def _tell_shared(train: Examples, dev: Examples, name: str, tell: Callable[[str], None]) -> None:
    shared = len(set(dev.texts) & set(train.texts))
    if shared:
        tell(f"{shared} text{'s' * (shared != 1)} of {name} {'are' if shared != 1 else 'is'} trained on too: its "
             "figures will be too good")  # fmt: skip
