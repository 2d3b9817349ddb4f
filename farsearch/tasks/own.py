"""A task of the user's own: described in a TOML file or by options, its kind and labels found in the data."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.errors import BadInput, DataError, MissingResource
from farsearch.far.board.answers import id_finder
from farsearch.far.board.records import Record as RowRecord
from farsearch.far.board.records import RowProblem, json_reason
from farsearch.far.board.rows import rows_of
from farsearch.far.board.scores import METRICS, OF_ONE_CLASS
from farsearch.far.board.squad import parse_squad
from farsearch.far.shown import PATH, shown, shown_text
from farsearch.strict import Record
from farsearch.tasks.columns import Columns, find_columns, unused_columns
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec
from farsearch.tasks.files import read_bytes
from farsearch.tasks.found import check_kind, check_label, find_kind, find_labels, name_problem
from farsearch.tasks.own_files import DataFile, open_data
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
        train, dev: files. Without ``dev`` a part of ``train`` is held out.
        text_columns: one, two of a pair, question and context, or the column of the words.
        label_column: what is learned.
        labels: names by id, where the data have ids, or where their order matters; all that are classes.
        label_separator: what is between the labels of a cell; None for ``|``.
        decimal_comma: numbers may be written as 0,5.
        positive: label of the class that ``f1`` and ``accuracy_f1`` are of; None for the one with the fewest rows.
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
        columns = [*(self.text_columns or ()), *([self.label_column] if self.label_column else [])]
        for i, column in enumerate(columns):
            if column in columns[:i]:
                raise BadInput(f"the column {shown(column)} is named twice; each of texts and label is another")
        if self.text_columns is not None and len(self.text_columns) > 2:
            raise BadInput(f"{len(self.text_columns)} text columns are too many; name one, or two of a pair")
        labels = self.labels or ()
        if len(set(labels)) < len(labels) or self.labels == ():
            raise BadInput(f"the labels {', '.join(labels) or '(none)'} must be different names, at least one")
        for problem in filter(None, map(name_problem, labels)):
            raise BadInput(problem)
        self._check_metric()
        self._check_label_options()

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
        if self.kind is None and self.label_separator is not None:
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
    says = {"name": name_of(path), **says}
    try:
        for key in ("train", "dev"):
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
    for key in ("train", "dev"):
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
    flags = {"text_columns": "--text-column", "labels": "--label", "name": "", "licence": "", "title": ""}
    words: list[str] = []
    for field, value in given.items():
        flag = flags.get(field, f"--{field.replace('_', '-')}")
        if value is True and flag:
            words.append(flag)
        elif value and flag:
            words += [word for each in (value if isinstance(value, tuple | list) else [value]) for word in (flag, each)]
    return words


def find_own(name: str, given: Mapping[str, Any]) -> OwnData | None:
    """The task of the user's own that a TOML file describes, or that a file of rows is; None of an official name.

    Args:
        given: fields of ``OwnData``, as ``own_data`` has them.

    Raises:
        BadInput, MissingResource: as ``own_data``.
    """
    if name in TASKS or name.endswith(".toml") or not Path(name).suffix:
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
    train_file = open_data(_place(own.train, data_dir))
    dev_file = None if own.dev is None else open_data(_place(own.dev, data_dir))
    columns = _columns(own, train_file)
    texts, label = columns
    kept, left_out = _records(own, train_file, (*texts, label))
    unused = unused_columns(train_file.columns, columns, [cells for _, cells in kept])
    spec = _spec(own, train_file, [cells for _, cells in kept], texts, label)
    train = _examples(own, spec, train_file, kept, left_out)
    _tell_left_out(tell, train_file, left_out)
    _check_answers(train, spec, train_file.name, 3 if dev_file is None else 2)
    spec = dataclasses.replace(spec, positive=_positive(own, spec, train, tell))
    if dev_file is None:
        train, dev = _hold_out(train, spec.kind, tell)
        source = f"{train_file.name}, a part held out"
    else:
        kept, left_out = _records(own, dev_file, (*texts, label))
        dev = _examples(own, spec, dev_file, kept, left_out)
        _tell_left_out(tell, dev_file, left_out)
        _tell_shared(train, dev, dev_file.name, tell)
        source = f"{train_file.name} and {dev_file.name}"
    if spec.kind == "question-answering":
        unanswerable = not all((*train.answers, *dev.answers))
        spec = dataclasses.replace(spec, unanswerable=unanswerable)
    data = TaskData(spec, train, dev, source, unused=unused)
    for line in understand(data).lines():
        tell(line)
    return data


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
    file.check((columns.label,), "--label-column")
    return columns


def _records(own: OwnData, file: DataFile, columns: Sequence[str]) -> tuple[list[RowRecord], list[str]]:
    """The records of a file, and the messages of those that could not be read."""
    left_out: list[str] = []
    if file.is_squad:
        return [], left_out
    return list(file.records(columns, left_out if own.skip_bad_rows else None)), left_out


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
    labels = own.labels or find_labels(kind, labelled, own.label_separator)
    if metric in OF_ONE_CLASS and len(labels) > 2:
        raise DataError(
            f"{file.name}: the metric {shown(metric)} is of two classes, and there are {len(labels)}; choose macro_f1"
        )
    return TaskSpec(
        name=own.name, title=own.title or f"rows of {file.name}", kind=kind, labels=labels, metric=metric, texts=texts,
        label=label, licence=own.licence, label_separator=own.label_separator, decimal_comma=own.decimal_comma,
    )  # fmt: skip


def _examples(own: OwnData, spec: TaskSpec, file: DataFile, kept: Sequence[RowRecord], left_out: list[str]) -> Examples:
    skip = left_out if own.skip_bad_rows else None
    if file.is_squad:
        assert isinstance(file.data, bytes), "SQuAD's JSON is text"
        return Examples(*parse_squad(file.data, file.name, skip))
    return Examples(*rows_of(_checked(own, spec, kept, skip), spec.task, file.name, skip))


def _checked(own: OwnData, spec: TaskSpec, records: Sequence[RowRecord], skip: list[str] | None) -> Iterator[RowRecord]:
    """The records of which the label looks as those of the others do."""
    first = next((cells[spec.label] for _, cells in records if cells.get(spec.label) is not None), None)
    for where, cells in records:
        problem = check_label(spec, cells[spec.label], own.labels is None, first) if spec.label in cells else ""
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
