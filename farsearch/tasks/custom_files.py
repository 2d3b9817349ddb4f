"""Open a user's own files and folders as records with named columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farsearch.errors import MissingResource
from farsearch.far.display import PATH, shown
from farsearch.runtime.decoding import check_is_data, ending_of, lines_of, text_of
from farsearch.runtime.records import (
    ENDINGS,
    SEPARATORS,
    Record,
    RowProblem,
    Source,
    UnsureSeparator,
    missing_column,
    open_source,
    records_in,
)
from farsearch.runtime.tables import Line, RepeatedColumn
from farsearch.runtime.targets import is_set
from farsearch.tasks.files import file_errors, read_bytes
from farsearch.tasks.folders import STATE, class_folder, is_class_folder
from farsearch.tasks.headless import is_row, suggested_names

__all__ = ["LINES", "DataFile", "Form", "open_data", "open_lines"]

LINES = ("text", "label")
"""Columns of separate files of texts and labels, and of a folder with texts of each class."""

_KNOWN = (*(f".{ending}" for ending in ENDINGS), ".parquet")

_SAMPLE = 100
"""Rows from which it is inferred whether the first line of a table is a row too."""


@dataclass(frozen=True)
class Form:
    """Explicit format of tables.

    Attributes:
        separator: name of the separator of columns; None detects it.
        columns: columns of a file without a header.
    """

    separator: str | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DataFile:
    """An opened file, whose rows are not read yet.

    Attributes:
        columns: header of a table, or keys of the first object; empty for SQuAD's JSON.
        classes: names of classes in the order of their ids, by column, if the file has them.
    """

    name: str
    columns: tuple[str, ...]
    source: Source
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_squad(self) -> bool:
        """Whether it is SQuAD's JSON."""
        return self.source.squad is not None

    @property
    def note(self) -> str:
        """Properties of the format that only the content shows; may be empty."""
        return self.source.note

    def check(self, columns: Sequence[str], option: str) -> None:
        """Raise for missing columns.

        Raises:
            RowProblem: with the available columns, or with how to name those of a table without a header.
        """
        missing = [column for column in columns if column not in self.columns]
        if not missing:
            return
        table = self.source.separator is not None
        rows = [line.cells for line in itertools.islice(self.source.lines(), _SAMPLE)] if table else []
        if table and len(self.columns) == 1:
            *first, last = (f"{separator.name}s" for separator in SEPARATORS)
            raise RowProblem(
                f"{self.name} line 1: {shown(self.columns[0])} is one column: there are no {', '.join(first)} or "
                f"{last} between texts and labels; write them there, or give the labels of these lines in a file with "
                "--train-labels"
            )
        if table and is_row(self.columns, rows):
            names = ",".join(suggested_names([list(self.columns), *rows]))
            raise RowProblem(
                f"{self.name} line 1: {shown(', '.join(self.columns))} is a row and no header, it seems; name the "
                f"columns with --columns {names}, or one that is a column's name with {option}"
            )
        line = " line 1" if table else ""
        raise RowProblem(
            f"{self.name}{line}: {missing_column(missing[0], self.columns)}; name one of them with {option}"
        )

    def set_columns(self) -> tuple[str, ...]:
        """Return the columns whose cells are all 0 or 1."""
        left = dict.fromkeys(self.columns)
        for _, cells in self.records([]):
            for column in [column for column in left if not _is_set(cells.get(column), column)]:
                del left[column]
            if not left:
                break
        return tuple(left)

    def records(self, skip: list[str] | None) -> Iterator[Record]:
        """Yield the rows, in order; ``skip`` as in ``records_in``."""
        return records_in(self.source, skip)


def _is_set(cell: object, column: str) -> bool:
    try:
        is_set(cell, column)
    except RowProblem:
        return False
    return True


def open_data(path: Path, form: Form) -> DataFile:
    """Open a file, or a folder with a part of a data set or with texts of each class.

    Raises:
        MissingResource: when it can't be read.
        RowProblem: for an unknown extension, and for an invalid header or file.
    """
    with file_errors(path):
        is_folder, exists = path.is_dir(), path.exists()
    if is_folder:
        return _open_folder(path)
    known = path.suffix.lower() in _KNOWN or f".{ending_of(path.name)}" in _KNOWN
    if not known and exists:
        ending = f"the ending {path.suffix}" if path.suffix else "a name without ending"
        raise RowProblem(f"{path.name}: {ending} is unknown; save it as one of {', '.join(_KNOWN)}")
    data = read_bytes(path)
    if not data.strip():
        wanted = "rows" if "json" in path.suffix.lower() else "a header and rows"
        raise RowProblem(f"{path.name} line 1: the file is empty; give it {wanted}")
    if path.suffix.lower() == ".parquet":
        check_is_data(data, path.name)
        return _open_arrow(path, path.name)
    return _open_rows(data, path.name, form)


def _open_rows(data: bytes, name: str, form: Form) -> DataFile:
    separator = next((known for known in SEPARATORS if known.name == form.separator), None)
    try:
        source = open_source(data, name, form.columns, form.columns or (), separator)
    except UnsureSeparator as error:
        names = " or ".join(f"--separator {separator.name}" for separator in error.fitting)
        raise RowProblem(f"{str(error).split(';')[0]}; choose with {names}") from error
    except RepeatedColumn as error:
        names = ",".join(suggested_names([error.cells]))
        raise RowProblem(f"{error}, or, where that line is a row, the columns with --columns {names}") from error
    for given, option in ((form.separator, "--separator"), (form.columns, "--columns")):
        if given is not None and source.separator is None:
            raise RowProblem(f"{name} is no table, and {option} is for tables; leave it out")
    return DataFile(name, _columns_of(source), source)


def _columns_of(source: Source) -> tuple[str, ...]:
    """The columns of the header or the first record."""
    if source.squad is not None:
        return ()
    for _, cells in records_in(source, skip=[]):
        return tuple(cells)
    list(records_in(source))  # raises for its invalid rows
    raise RowProblem(f"{source.name} has no rows; give it at least two")


def _open_folder(path: Path) -> DataFile:
    with file_errors(path):
        if (path / STATE).is_file():
            return _open_arrow(path, path.name)
        if is_class_folder(path):
            return DataFile(path.name, LINES, class_folder(path))
    raise MissingResource(
        f"{shown(str(path), PATH)} is a folder, and not of Dataset.save_to_disk or with a folder of .txt files for "
        "each class; name the file in it"
    )


def _open_arrow(path: Path, name: str) -> DataFile:
    # pyarrow comes with datasets, and takes half a second to import
    from farsearch.tasks.arrow import read_arrow

    source, classes = read_arrow(path, name)
    return DataFile(name, tuple(source.columns or ()), source._replace(columns=None), classes)


def open_lines(texts: Path, labels: Path) -> DataFile:
    """Open a file with a text per line, and one with the label of each line.

    Raises:
        MissingResource: when one can't be read.
        RowProblem: for different numbers of lines, or none.
    """
    parts = [list(lines_of(text_of(read_bytes(path), path.name))) for path in (texts, labels)]
    if len(parts[0]) != len(parts[1]):
        raise RowProblem(
            f"{texts.name} has {len(parts[0])} lines and {labels.name} {len(parts[1])}; each text needs its label in "
            "the same line"
        )
    if not parts[0]:
        raise RowProblem(f"{texts.name} has no rows; give it at least two")
    lines = [
        Line(f"line {number}", [text, label], f"{text} {label}", "")
        for (number, text), (_, label) in zip(*parts, strict=True)
    ]
    return DataFile(texts.name, LINES, Source(texts.name, lambda: iter(lines), LINES))
