"""A file of labelled texts, read strictly: a row that breaks the format is named, never skipped."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

__all__ = ["HEADER", "RowProblem", "Rows", "parse_rows", "read_rows"]

HEADER = ("sentence", "label")
_SHOWN = 60
"""Characters of a value that a message quotes."""


class RowProblem(ValueError):
    """A row that breaks the format; one line that names file, line, rule and mend."""


class Rows(NamedTuple):
    """Texts with their class ids, in the order of their file."""

    texts: Tuple[str, ...]
    labels: Tuple[int, ...]


def read_rows(path: str, labels: Sequence[str], task: str, columns: Sequence[str]) -> Rows:
    """The rows of a file, with the header ``sentence<TAB>label`` or in the task's own columns without one.

    Raises:
        OSError: when it can't be read.
        RowProblem: for the first line that breaks the layout or holds an unknown label.
    """
    with open(path, "rb") as file:
        data = file.read()
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return parse_rows(data, name, labels, task, None if _headed(data) else columns)


def _headed(data: bytes) -> bool:
    first = data.split(b"\n", 1)[0]
    return (first[3:] if first.startswith(b"\xef\xbb\xbf") else first).rstrip(b"\r") == "\t".join(HEADER).encode()


def parse_rows(data: bytes, name: str, labels: Sequence[str], task: str, columns: Optional[Sequence[str]]) -> Rows:
    """The rows of a file's content.

    Args:
        name: what messages call the file.
        labels: names of the classes; a label is a class id or a name. task: whose they are, for messages.
        columns: of a file without a header, ``sentence`` and ``label`` among them; None where there is the header.

    Raises:
        RowProblem: for the first line that breaks the layout or holds an unknown label.
    """
    lines, first = _lines(data, name), 1
    if columns is None or tuple(columns) == HEADER:
        if not lines or lines[0] != "\t".join(HEADER):
            found = _shown(lines[0]) if lines else "nothing"
            raise RowProblem(
                "{} line 1: the header is {}; it must be 'sentence<TAB>label': add that line".format(name, found)
            )
        lines, first, columns = lines[1:], 2, HEADER
    texts: List[str] = []
    classes: List[int] = []
    for number, line in enumerate(lines, first):
        where = "{} line {}".format(name, number)
        text, label = _cells(line, columns, where)
        texts.append(text)
        classes.append(_class_of(label, labels, task, where))
    if not texts:
        raise RowProblem("{} has no rows; give it at least one of each class".format(name))
    return Rows(tuple(texts), tuple(classes))


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "\u2026")


def _lines(data: bytes, name: str) -> List[str]:
    """Lines of a UTF-8 file, without a byte order mark, their ends (LF or CRLF), or the last line where it is empty.

    Not ``splitlines``, which also ends lines at characters that occur within texts.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RowProblem(
            "{} line {}: byte {:#04x} is not UTF-8; save the file as UTF-8".format(name, line, data[error.start])
        ) from error
    lines = [line[:-1] if line.endswith("\r") else line for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _cells(line: str, columns: Sequence[str], where: str) -> Tuple[str, str]:
    """Text and label of a row. Quotes are text like any other character."""
    cells = line.split("\t")
    if not line.strip():
        raise RowProblem("{}: the line is empty; each line is a row: remove it".format(where))
    if len(cells) != len(columns):
        raise RowProblem(
            "{}: {} has {} column{}; a row has {} ({}) with one tab between: add what is missing, or make tabs within "
            "the text spaces".format(
                where, _shown(line), len(cells), "s" * (len(cells) != 1), len(columns), ", ".join(columns)
            )
        )
    text, label = (cells[list(columns).index(name)] for name in HEADER)
    if not text.strip():
        raise RowProblem("{}: the sentence is empty; each row needs a text: add it, or remove the line".format(where))
    return text, label


def _class_of(cell: str, labels: Sequence[str], task: str, where: str) -> int:
    if cell in labels:
        return list(labels).index(cell)
    if cell and all(digit in "0123456789" for digit in cell) and int(cell) < len(labels):
        return int(cell)
    known = ", ".join("{} ({})".format(i, label) for i, label in enumerate(labels))
    raise RowProblem("{}: the label {} is unknown; labels of {} are {}".format(where, _shown(cell), task, known))
