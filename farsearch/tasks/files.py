"""Files of examples, read strictly: a row that breaks the format is named, never skipped.

The rows are parsed by the same code as on a board, ``far/board/rows.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farsearch.errors import DataError, MissingResource
from farsearch.far.board.rows import HEADER, RowProblem, Rows, parse_rows, read_rows
from farsearch.tasks.spec import Examples, Layout, TaskSpec

__all__ = ["columns_of", "parse_task", "read_bytes", "read_examples"]

_COLUMNS: dict[Layout, tuple[str, ...]] = {
    "sentence-label": HEADER,
    "cola": ("source", "label", "author's mark", "sentence"),
}


def columns_of(spec: TaskSpec) -> tuple[str, ...]:
    """The columns of a task's own files; those of the header where they have one."""
    return _COLUMNS[spec.layout]


@contextmanager
def _row_errors() -> Iterator[None]:
    try:
        yield
    except RowProblem as error:
        raise DataError(str(error)) from error


def parse_task(train: bytes, dev: bytes, spec: TaskSpec) -> tuple[Examples, Examples]:
    """The rows of a task out of the content of its ``train.tsv`` and ``dev.tsv``, in the task's own layout.

    Raises:
        DataError: for a malformed row, and for a training file without a row of each class.
    """
    with _row_errors():
        parts = tuple(
            _examples(parse_rows(data, name, spec.labels, spec.name, columns_of(spec)))
            for name, data in (("train.tsv", train), ("dev.tsv", dev))
        )
    missing = [label for i, label in enumerate(spec.labels) if i not in parts[0].labels]
    if missing:
        raise DataError(f"train.tsv has no row of class {missing[0]!r}; training needs every class: add rows of it")
    return parts[0], parts[1]


def _examples(rows: Rows) -> Examples:
    return Examples(rows.texts, rows.labels)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MissingResource(
            f"the file {str(path)!r} can't be read: {reason}; check the path and its permissions"
        ) from error


def read_bytes(path: Path) -> bytes:
    """The content of a file that the user named.

    Raises:
        MissingResource: when it can't be read.
    """
    with _file_errors(path):
        return path.read_bytes()


def read_examples(path: Path, spec: TaskSpec) -> Examples:
    """The rows of one file of the user's.

    It has the task's own layout, or a header ``sentence<TAB>label``. A label is a class id or the name of a class.

    Raises:
        MissingResource: when it can't be read.
        DataError: for the first line that breaks the layout or holds an unknown label.
    """
    with _file_errors(path), _row_errors():
        return _examples(read_rows(str(path), spec.labels, spec.name, columns_of(spec)))
