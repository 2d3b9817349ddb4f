"""Read files of examples strictly: an invalid row is an error, never skipped.

Rows are parsed by the runtime (``rows.py``, ``squad.py``). Only known broken rows of official files are left out, and
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farsearch.errors import DataError, MissingResource
from farsearch.far.display import PATH, shown
from farsearch.runtime.records import TAB
from farsearch.runtime.rows import Record, RowProblem, Rows, read_rows, records_of, rows_of
from farsearch.runtime.squad import parse_squad
from farsearch.runtime.task import Task
from farsearch.tasks.data import Examples, TaskSpec
from farsearch.tasks.layouts import Official, Table, Undivided
from farsearch.tasks.official import OFFICIAL

__all__ = [
    "check_classes",
    "check_records",
    "file_errors",
    "parse_official",
    "parse_undivided",
    "read_bytes",
    "read_examples",
]

_Fit = Callable[[list[str], Sequence[str]], "list[str] | None"]

_TABLES = (".tsv", ".txt", "")
"""Extensions of files with tabs."""


@contextmanager
def _row_errors() -> Iterator[None]:
    try:
        yield
    except RowProblem as error:
        raise DataError(str(error)) from error


def parse_official(data: bytes, name: str, official: Official) -> tuple[Examples, int]:
    """Return the rows of one of a task's official files, and the number of broken rows that were left out.

    Args:
        name: name of the file, for messages.

    Raises:
        DataError: for the first invalid row.
    """
    with _row_errors():
        if official.table is None:
            return _examples(parse_squad(data, name), official.spec, name), 0
        left_out: list[str] = []
        records = _records(data, name, official.table, left_out)
        return Examples(*rows_of(records, _renamed(official.spec, official.table), name)), len(left_out)


def parse_undivided(data: bytes, dev_ids: bytes, official: Official, undivided: Undivided) -> tuple[Examples, Examples]:
    """Return training and development rows of a file with both.

    Args:
        data: its content.
        dev_ids: content of the file with the ids of the development rows.

    Raises:
        DataError: for the first invalid row, and for ids without a row.
    """
    table = official.table
    assert table is not None, "only tables are undivided"
    with _row_errors():
        wanted = {
            tuple(cells[column] for column in undivided.columns): where
            for where, cells in records_of(dev_ids, undivided.dev_ids, undivided.columns, separator=TAB)
        }
        parts: dict[bool, list[Record]] = {False: [], True: []}
        seen = set()
        for where, cells in _records(data, undivided.name, table, []):
            ids = tuple(cells[column] for column in undivided.columns)
            parts[ids in wanted].append((where, cells))
            seen.add(ids)
        for ids, where in wanted.items():
            if ids not in seen:
                raise RowProblem(
                    f"{where}: no row of {undivided.name} has the ids {' and '.join(ids)}; take both files from one "
                    "download"
                )
        task = _renamed(official.spec, table)
        train, dev = (Examples(*rows_of(parts[is_dev], task, undivided.name)) for is_dev in (False, True))
        return train, dev


def _examples(rows: Rows, spec: TaskSpec, name: str) -> Examples:
    """The rows, if every question of a task without unanswerable questions has an answer."""
    if spec.kind == "question-answering" and not spec.unanswerable:
        for (question, _), answers in zip(rows.texts, rows.answers, strict=True):
            if not answers:
                raise RowProblem(
                    f"{name}: the question {shown(question)} has no answer, and each of task "
                    f"{shown(spec.name)} has one; "
                    "give it one, or choose a task whose questions may have none, as squad_v2"
                )
    return Examples(*rows)


def _renamed(spec: TaskSpec, table: Table) -> Task:
    """The task with the columns of its files, for messages."""
    return spec.task._replace(texts=table.texts, label=table.label)


def _records(data: bytes, name: str, table: Table, left_out: list[str]) -> Iterator[Record]:
    columns = None if table.header else table.columns
    needed = (*table.texts, table.label) if table.header else ()
    records = records_of(data, name, columns, None, needed, _fit(table, left_out), TAB)
    return check_records(records, table, left_out, table.texts, table.label)


def _fit(table: Table, left_out: list[str]) -> _Fit | None:
    """The function that fits a row of the wrong size to the columns; None if such rows are invalid."""

    def leave_out(cells: list[str], columns: Sequence[str]) -> list[str]:
        left_out.append("\t".join(cells))
        return []

    def label_last(cells: list[str], columns: Sequence[str]) -> list[str] | None:
        before = max(columns.index(column) for column in table.texts) + 1
        if not before < len(cells) < len(columns) or columns[-1] != table.label:
            return None
        return [*cells[:-1], *[""] * (len(columns) - len(cells)), cells[-1]]

    if table.broken:
        return leave_out
    return label_last if table.ragged else None


def check_records(
    records: Iterator[Record], table: Table, left_out: list[str], texts: Sequence[str], label: str
) -> Iterator[Record]:
    """Yield a table's records with valid scores, without known ones that lack a text.

    Args:
        left_out: collects the position of each record that is left out.
        texts: columns of the texts in these records.
        label: column of the label in these records.

    Raises:
        RowProblem: for a score that is not in the table's range.
    """
    for where, cells in records:
        if table.broken and any(isinstance(cells[column], str) and not cells[column].strip() for column in texts):
            left_out.append(where)
            continue
        if table.scores is not None:
            _check_score(cells[label], table.scores, where)
        yield where, cells


def _check_score(cell: Any, scores: tuple[float, float], where: str) -> None:
    low, high = scores
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return  # an error of the reader of rows
    if not low <= value <= high:
        raise RowProblem(f"{where}: the score {shown(cell)} is not from {low:g} to {high:g}; correct it")


def check_classes(train: Examples, spec: TaskSpec, name: str) -> None:
    """Check that a training file has rows of every class.

    Raises:
        DataError: with the first class without a row.
    """
    if spec.kind != "classification":
        return
    present = set(train.answers)
    missing = [label for i, label in enumerate(spec.labels) if i not in present]
    if missing:
        raise DataError(f"{name} has no row of class {shown(missing[0])}; training needs every class: add rows of it")


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Translate errors of reading a user's file into ``MissingResource``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MissingResource(
            f"the file {shown(str(path), PATH)} can't be read: {reason}; check the path and its permissions"
        ) from error


def read_bytes(path: Path) -> bytes:
    """Return the content of a user's file.

    Raises:
        MissingResource: when it can't be read.
    """
    with file_errors(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            # reading a pipe may block forever
            raise MissingResource(f"{shown(str(path), PATH)} is a pipe or a device; name a file")
        return path.read_bytes()


def read_examples(path: Path, spec: TaskSpec) -> Examples:
    """Read the rows of a user's file of an official task.

    It is one of the task's official files, or has a header with the task's columns. A label is a class id or name.

    Raises:
        MissingResource: when it can't be read.
        DataError: for the first invalid line or unknown label.
    """
    official = OFFICIAL.get(spec.name)
    with file_errors(path), _row_errors():
        if official is not None and official.table is not None and _is_official(path, official.table):
            return parse_official(path.read_bytes(), path.name, official)[0]
        return _examples(read_rows(str(path), spec.task), spec, path.name)


def _is_official(path: Path, table: Table) -> bool:
    """Whether the first line of a file has the columns of the official one."""
    if not table.header or path.suffix not in _TABLES:
        return False
    with path.open("rb") as file:
        first = file.readline()
    try:
        next(records_of(first, path.name, None, None, (*table.texts, table.label), separator=TAB), None)
    except RowProblem:
        return False
    return True
