"""Files of examples, read strictly: a row that breaks the format is named, never skipped."""

from __future__ import annotations

import codecs
from pathlib import Path

from farsearch.errors import DataError, MissingResource
from farsearch.tasks.spec import Examples, Layout, TaskSpec

__all__ = ["parse_examples", "parse_task", "read_bytes", "read_examples"]

_HEADER = "sentence\tlabel"
_SHOWN = 60
"""Characters of a value that a message quotes."""


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")


def _lines(data: bytes, name: str) -> list[str]:
    """Lines of a UTF-8 file, without a byte order mark, their ends (LF or CRLF), or the last line where it is empty.

    Not ``splitlines``, which also ends lines at characters that occur within texts.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{name} line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _label(cell: str, spec: TaskSpec, where: str) -> int:
    if cell in spec.labels:
        return spec.labels.index(cell)
    if cell.isascii() and cell.isdigit() and int(cell) < len(spec.labels):
        return int(cell)
    known = ", ".join(f"{i} ({label})" for i, label in enumerate(spec.labels))
    raise DataError(f"{where}: the label {_shown(cell)} is unknown; labels of {spec.name} are {known}")


_COLUMNS: dict[Layout, tuple[str, ...]] = {
    "sentence-label": ("sentence", "label"),
    "cola": ("source", "label", "author's mark", "sentence"),
}


def _cells(line: str, layout: Layout, where: str) -> tuple[str, str]:
    """Text and label of a row. Quotes are text like any other character."""
    columns, cells = _COLUMNS[layout], line.split("\t")
    if not line.strip():
        raise DataError(f"{where}: the line is empty; each line is a row: remove it")
    if len(cells) != len(columns):
        raise DataError(
            f"{where}: {_shown(line)} has {len(cells)} column{'s' * (len(cells) != 1)}; a row has {len(columns)} "
            f"({', '.join(columns)}) with one tab between: add what is missing, or make tabs within the text spaces"
        )
    text, label = (cells[columns.index(name)] for name in ("sentence", "label"))
    if not text.strip():
        raise DataError(f"{where}: the sentence is empty; each row needs a text: add it, or remove the line")
    return text, label


def parse_examples(data: bytes, name: str, spec: TaskSpec, layout: Layout) -> Examples:
    """The rows of a file's content.

    Args:
        name: what messages call the file.

    Raises:
        DataError: for the first line that breaks the layout or holds an unknown label.
    """
    lines = _lines(data, name)
    first = 1
    if layout == "sentence-label":
        if not lines or lines[0] != _HEADER:
            found = _shown(lines[0]) if lines else "nothing"
            raise DataError(f"{name} line 1: the header is {found}; it must be 'sentence<TAB>label': add that line")
        lines, first = lines[1:], 2
    texts, labels = [], []
    for number, line in enumerate(lines, first):
        where = f"{name} line {number}"
        text, label = _cells(line, layout, where)
        texts.append(text)
        labels.append(_label(label, spec, where))
    if not texts:
        raise DataError(f"{name} has no rows; give it at least one of each class")
    return Examples(tuple(texts), tuple(labels))


def parse_task(train: bytes, dev: bytes, spec: TaskSpec) -> tuple[Examples, Examples]:
    """The rows of a task out of the content of its ``train.tsv`` and ``dev.tsv``, in the task's own layout.

    Raises:
        DataError: for a malformed row, and for a training file without a row of each class.
    """
    parts = (
        parse_examples(train, "train.tsv", spec, spec.layout),
        parse_examples(dev, "dev.tsv", spec, spec.layout),
    )
    missing = [label for i, label in enumerate(spec.labels) if i not in parts[0].labels]
    if missing:
        raise DataError(f"train.tsv has no row of class {missing[0]!r}; training needs every class: add rows of it")
    return parts


def read_bytes(path: Path) -> bytes:
    """The content of a file that the user named.

    Raises:
        MissingResource: when it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise MissingResource(
            f"the file {str(path)!r} can't be read: {reason}; check the path and its permissions"
        ) from error


def read_examples(path: Path, spec: TaskSpec) -> Examples:
    """The rows of one file of the user's.

    It has the task's own layout, or a header ``sentence<TAB>label``. A label is a class id or the name of a class.

    Raises:
        MissingResource: when it can't be read.
        DataError: for the first line that breaks the layout or holds an unknown label.
    """
    data = read_bytes(path)
    headed = data.removeprefix(codecs.BOM_UTF8).split(b"\n", 1)[0].rstrip(b"\r") == _HEADER.encode()
    return parse_examples(data, path.name, spec, "sentence-label" if headed else spec.layout)
