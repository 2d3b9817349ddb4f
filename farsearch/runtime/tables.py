"""Tables: rows of cells between separators, and detection of the separator."""

import re
from itertools import islice
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..far.display import shown
from .decoding import end_of, lines_of, unreadable
from .row_errors import RowProblem, missing_column

__all__ = [
    "EMPTY",
    "SEPARATORS",
    "Line",
    "RepeatedColumn",
    "Separator",
    "are_quoted",
    "fitting_separators",
    "header_of",
    "own_separator",
    "table_lines",
    "wrong_size",
]


class RepeatedColumn(RowProblem):
    """A first line with a repeated cell: a header with a repeated column, or no header."""

    def __init__(self, message: str, cells: List[str]) -> None:
        super().__init__(message)
        self.cells = cells


class Line(NamedTuple):
    """A row of a file.

    ``place`` is its position, as ``line 3``; ``cells`` are a list in the order of the columns, or a dict by their
    names; ``text`` is its text for messages; ``problem`` is an error message, empty if it is valid.
    """

    place: str
    cells: Any
    text: str
    problem: str


class Separator(NamedTuple):
    """A separator of cells: its name in messages and options, and the character."""

    name: str
    character: str


SEPARATORS = (Separator("comma", ","), Separator("tab", "\t"), Separator("semicolon", ";"), Separator("pipe", "|"))
_COMMA, _TAB = SEPARATORS[:2]

EMPTY = "the line is empty; each line is a row: remove it"

_SAMPLE = 20
"""Rows from which a separator is detected."""

_QUOTED = re.compile('"([^"]*(?:""[^"]*)*)"(?!")')
_QUOTED_IN_TABS = re.compile(r'(?:^|\t)"[^"\t\n]*""[^\t\n]*"(?=\t|\r?$)', re.MULTILINE)
_PLAIN = {separator.character: re.compile("[^{}\n]*".format(separator.character)) for separator in SEPARATORS}


def own_separator(ending: str) -> Separator:
    """Return the separator of a file's extension."""
    return _COMMA if ending == "csv" else _TAB


def fitting_separators(
    text: str, ending: str, width: Optional[int], needed: Sequence[str], expected: Optional[Separator] = None
) -> List[Separator]:
    """Return the separators that fit the first rows of a table; several if it is ambiguous.

    One whose first row has the ``needed`` columns is the only one. Otherwise a separator must occur in the first row,
    and if several do, all first rows must have equally many cells. If none fits it is the expected one.

    Args:
        width: number of columns, None if it is unknown.
        expected: separator of other files of the same task; None for that of the extension.
    """
    usual = expected or own_separator(ending)
    inside = []
    for separator in SEPARATORS:
        rows = list(islice(table_lines(text, separator, ending), _SAMPLE))
        cells = rows[0].cells if rows and not rows[0].problem else []
        if len(needed) > 1 and set(needed) <= set(cells):
            return [separator]
        if len(cells) > 1 and width in (None, len(cells)):
            alike = all(not row.problem and len(row.cells) == len(cells) for row in rows)
            inside.append((separator, alike))
    if len(inside) == 1:
        return [inside[0][0]]
    return [separator for separator, alike in inside if alike] or [usual]


def are_quoted(text: str) -> bool:
    """Return whether a table with tabs has a quoted cell with doubled quotes inside, as programs write it."""
    return bool(_QUOTED_IN_TABS.search(text))


def table_lines(text: str, separator: Separator, ending: str) -> Iterator[Line]:
    """Yield the rows of a table, from the first line.

    Quotes are those of RFC 4180, except between tabs in a file that is not ``.csv``, where they are text.
    """
    if separator == _TAB and ending != "csv":
        for number, line in lines_of(text):
            yield Line("line {}".format(number), line.split("\t"), line, "" if line.strip() else EMPTY)
        return
    at, number, last = 0, 1, end_of(text)
    while at < last:
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at : end - 1 if text[end - 1 : end] == "\r" and end > at else end]
        after, problem = end + 1, "" if line.strip() else EMPTY
        cells = line.split(separator.character)
        if '"' in line:
            cells, ended, problem = _quoted_cells(text, at, separator.character)
            if not problem:
                line, after = text[at:ended].rstrip("\r\n"), ended
        yield Line("line {}".format(number), cells, line, problem)
        # after an invalid row the next line begins a new one
        number += text.count("\n", at, after)
        at = after


def _quoted_cells(text: str, at: int, separator: str) -> Tuple[List[str], int, str]:
    """The cells of the row at ``at``, the position of the next one, and an error message, empty if it is valid."""
    cells: List[str] = []
    while True:
        quoted = text.startswith('"', at)
        match = (_QUOTED if quoted else _PLAIN[separator]).match(text, at)
        if match is None:
            return cells, at, "a quote is opened and not closed; close it, or double a quote within a text"
        at = match.end()
        cell = match.group(1).replace('""', '"') if quoted else match.group()
        if quoted and text[at : at + 1] == "\r" and text[at + 1 : at + 2] in ("\n", ""):
            at += 1
        after = text[at : at + 1]
        if (not quoted and '"' in cell) or after not in ("", separator, "\n"):
            return cells, at, "a quote is within a cell; put the whole cell in quotes and double those within"
        at += 1
        if after == separator:
            cells.append(cell)
            continue
        cells.append(cell if quoted or not cell.endswith("\r") else cell[:-1])
        return cells, at, ""


def header_of(first: Optional[Line], name: str, separator: Separator, needed: Sequence[str]) -> List[str]:
    """Return the columns of a header.

    Raises:
        RepeatedColumn: for a header with a repeated column.
        RowProblem: for a line that is no header, or lacks a ``needed`` column.
    """
    line = first or Line("line 1", [], "", "")
    columns = [str(cell) for cell in line.cells or ()]
    problem = unreadable(line.text, name) or ("" if not line.text.strip() else line.problem)
    twice = [column for i, column in enumerate(columns) if column and column in columns[:i]]
    missing = [column for column in needed if column not in columns]
    if problem:
        raise RowProblem("{} {}: the header can't be read: {}".format(name, line.place, problem))
    if twice:
        message = "{} line 1: the header has {} twice; name each column once".format(name, shown(twice[0]))
        raise RepeatedColumn(message, columns)
    if not line.text.strip() or missing:
        content = (
            "nothing"
            if not line.text.strip()
            else "{}: {}".format(shown(line.text), missing_column(missing[0], columns))
        )
        between = "<TAB>" if separator == _TAB else separator.character
        names = (needed and between.join(needed)) or "its columns"
        raise RowProblem(
            "{} line 1: the header is {}; it must name {}: rename its columns, or add that line if it has none".format(
                name, content, names
            )
        )
    return columns


def wrong_size(line: Line, columns: Sequence[str], separator: Separator) -> str:
    """Return the message for a row with more or fewer cells than columns."""
    fix = "make tabs within the text spaces"
    if separator != _TAB:
        fix = "put a text with {}s in quotes".format(separator.name)
    return "{} has {} column{}; a row has {} ({}) with one {} between: add what is missing, or {}".format(
        shown(line.text), len(line.cells), "s" * (len(line.cells) != 1), len(columns), ", ".join(columns),
        separator.name, fix,
    )  # fmt: skip
