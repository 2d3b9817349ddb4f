"""The rows of a task of the user's own, its kind and labels found in them."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from farsearch.errors import BadInput, DataError
from farsearch.far.display import shown
from farsearch.runtime.records import Record as RowRecord
from farsearch.runtime.records import RowProblem
from farsearch.runtime.rows import rows_of
from farsearch.runtime.scores import OF_ONE_CLASS
from farsearch.runtime.squad import squad_rows
from farsearch.runtime.targets import id_finder
from farsearch.tasks.columns import Columns, find_columns, unused_columns
from farsearch.tasks.custom_files import DataFile, Form, open_data, open_lines
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec
from farsearch.tasks.description import OwnData, check_fits
from farsearch.tasks.files import file_errors
from farsearch.tasks.folders import parts_of
from farsearch.tasks.schema import check_kind, check_label, find_kind, find_labels
from farsearch.tasks.split import split_examples
from farsearch.tasks.summary import understand

__all__ = ["load_own"]

METRIC_OF: Mapping[Kind, str] = {
    "classification": "accuracy",
    "multi-label": "micro_f1",
    "regression": "pearson_spearman",
    "token-classification": "entity_f1",
    "question-answering": "squad",
}
"""What is searched on where the user does not say."""

_LABEL_COLUMNS = "labels"
"""What is learned is called where each label is a column of its own."""

_HELD_OUT_SEED = 0
"""The development rows stay the same whatever the seed of a study."""

_SHOWN = 3
"""So many of the rows that were left out are shown."""


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
    check_fits(metric, kind)
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
