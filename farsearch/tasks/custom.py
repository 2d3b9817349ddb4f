"""Load the rows of a task of the user's own data."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from farsearch.errors import DataError
from farsearch.far.display import shown
from farsearch.runtime.records import Record, RowProblem
from farsearch.runtime.rows import rows_of
from farsearch.runtime.squad import squad_rows
from farsearch.tasks.columns import Columns, find_columns, unused_columns
from farsearch.tasks.custom_checks import check_answers, with_consistent_labels
from farsearch.tasks.custom_files import DataFile, Form, open_data, open_lines
from farsearch.tasks.custom_spec import default_metric, infer_spec, positive_class
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec
from farsearch.tasks.description import OwnData
from farsearch.tasks.files import file_errors
from farsearch.tasks.folders import parts_of
from farsearch.tasks.split import split_examples
from farsearch.tasks.summary import understand

__all__ = ["load_own"]

_LABEL_COLUMNS = "labels"
"""Name of the answer when each label has a column of its own."""

_HELD_OUT_SEED = 0
"""Constant, so that the development rows do not depend on the seed of a study."""

_SHOWN = 3
"""Number of messages on left-out rows that are reported."""


def load_own(own: OwnData, report: Callable[[str], None], data_dir: Path | None = None) -> TaskData:
    """Load the rows of a task of the user's own data.

    Args:
        report: called with each line on inferred properties and omitted rows.
        data_dir: folder of the files, by their names, on a host with other paths.

    Raises:
        MissingResource: when a file can't be read.
        DataError: for invalid rows, and for data that make no task.
    """
    try:
        return _load(own, report, data_dir)
    except RowProblem as error:
        raise DataError(str(error)) from error


def _load(own: OwnData, report: Callable[[str], None], data_dir: Path | None) -> TaskData:
    train_file, dev_file = _files(own, report, data_dir)
    columns = _columns(own, train_file)
    texts, label = columns
    records, left_out = _records(own, train_file)
    used = Columns((*texts, *(own.label_columns or ())), label)
    cells = [cells for _, cells in records]
    unused = unused_columns(train_file.columns, used, cells)
    spec = infer_spec(own, train_file, cells, texts, label)
    train = _examples(own, spec, train_file, records, left_out)
    files = {"train": (train_file.name, train.digest)}
    _report_left_out(report, train_file, left_out)
    check_answers(train, spec, train_file.name, 3 if dev_file is None else 2)
    if own.metric is None:
        spec = dataclasses.replace(spec, metric=default_metric(spec.kind, train, report))
    spec = dataclasses.replace(spec, positive=positive_class(own, spec, train, report))
    if dev_file is None:
        train, dev = _hold_out(train, spec.kind, report)
        source = f"{train_file.name}, a part held out"
    else:
        records, left_out = _records(own, dev_file)
        dev = _examples(own, spec, dev_file, records, left_out)
        files["dev"] = (dev_file.name, dev.digest)
        _report_left_out(report, dev_file, left_out)
        _report_shared(train, dev, dev_file.name, report)
        source = f"{train_file.name} and {dev_file.name}"
    if spec.kind == "question-answering":
        unanswerable = not all((*train.answers, *dev.answers))
        spec = dataclasses.replace(spec, unanswerable=unanswerable)
    data = TaskData(spec, train, dev, source, unused=unused, files=files)
    for line in understand(data).lines():
        report(line)
    return data


def _files(own: OwnData, report: Callable[[str], None], data_dir: Path | None) -> tuple[DataFile, DataFile | None]:
    """The file of training rows, and that of development rows if there is one."""
    train, dev = _place(own.train, data_dir), None if own.dev is None else _place(own.dev, data_dir)
    with file_errors(train):
        parts = parts_of(train) if train.is_dir() else None
    if parts is not None:
        report(f"{train.name}: {parts.note if dev is None else f'{parts.train.name} is trained on'}")
        train, dev = parts.train, dev or parts.dev
    opened = []
    for path, labels in ((train, own.train_labels), (dev, own.dev_labels)):
        if path is not None:
            form = Form(own.separator, own.columns)
            opened.append(open_data(path, form) if labels is None else open_lines(path, _place(labels, data_dir)))
    for file in opened:
        if file.note:
            report(f"{file.name}: {file.note}")
    return opened[0], opened[1] if len(opened) > 1 else None


def _place(path: str, data_dir: Path | None) -> Path:
    return Path(path) if data_dir is None else data_dir.expanduser() / Path(path).name


def _columns(own: OwnData, file: DataFile) -> Columns:
    """The columns of texts and label: as the user names them, or those with a usual name."""
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
    """Raise for a table without a label column whose columns of 0 and 1 may be labels."""
    columns = file.set_columns()
    if len(columns) > 1:
        listed = ", ".join(columns[:10]) + ", …" * (len(columns) > 10)
        raise RowProblem(
            f"{file.name}: there is no column of labels, and {shown(listed)} have only 0 and 1; if each is a label, "
            f"name them: {shlex.join(word for column in columns for word in ('--label-column', column))}"
        )


def _records(own: OwnData, file: DataFile) -> tuple[list[Record], list[str]]:
    """The records of a file, and the messages of invalid rows."""
    left_out: list[str] = []
    if file.is_squad:
        return [], left_out
    return list(file.records(left_out if own.skip_bad_rows else None)), left_out


def _examples(own: OwnData, spec: TaskSpec, file: DataFile, records: Sequence[Record], left_out: list[str]) -> Examples:
    skip = left_out if own.skip_bad_rows else None
    if file.is_squad:
        return Examples(*squad_rows(file.source.squad, file.name, skip))
    return Examples(
        *rows_of(with_consistent_labels(records, spec, own.labels is None, skip), spec.task, file.name, skip)
    )


def _report_left_out(report: Callable[[str], None], file: DataFile, left_out: Sequence[str]) -> None:
    if left_out:
        report(f"{len(left_out)} row{'s' * (len(left_out) != 1)} of {file.name} left out (--skip-bad-rows), as:")
        for message in left_out[:_SHOWN]:
            report(f"  {message}")


def _hold_out(train: Examples, kind: Kind, report: Callable[[str], None]) -> tuple[Examples, Examples]:
    """Training and development rows, by the rule of the validation split, each in the order of the file."""
    split = split_examples(train, None, _HELD_OUT_SEED, kind=kind)
    neither = len(train) - len(split.train) - len(split.validation)
    more = f"; {neither} of neither, for they share texts with those" if neither else ""
    report(f"no --dev: {len(split.validation)} of {len(train)} rows are held out for development{more}")
    return train.take(sorted(split.train)), train.take(sorted(split.validation))


def _report_shared(train: Examples, dev: Examples, name: str, report: Callable[[str], None]) -> None:
    shared = len(set(dev.texts) & set(train.texts))
    if shared:
        report(f"{shared} text{'s' * (shared != 1)} of {name} {'are' if shared != 1 else 'is'} trained on too: its "
             "figures will be too good")  # fmt: skip
