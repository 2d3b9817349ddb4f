"""Read records strictly from tables, JSON and CoNLL files.

The format is detected from the file's extension and content; what only the content shows is reported to the user.
"""

from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .conll import COLUMNS, are_sentences, sentence_lines, sentence_note
from .decoding import ending_of, text_of, unreadable
from .json_rows import json_lines, object_lines, read_document
from .row_errors import RowProblem, check_characters, json_reason, missing_column
from .tables import (
    SEPARATORS,
    Line,
    Separator,
    are_quoted,
    fitting_separators,
    header_of,
    own_separator,
    table_lines,
    wrong_size,
)

__all__ = [
    "ENDINGS",
    "SEPARATORS",
    "TAB",
    "Record",
    "RowProblem",
    "Source",
    "UnsureSeparator",
    "check_characters",
    "json_reason",
    "missing_column",
    "open_source",
    "records_in",
    "records_of",
]

Record = Tuple[str, Dict[str, Any]]
"""Position, as ``train.tsv line 3``, and cells by column."""

_TABLES, _OBJECTS, _SENTENCES = ("tsv", "txt", "csv"), ("jsonl", "ndjson", "json"), ("conll", "iob", "iob2", "bio")
ENDINGS = (*_TABLES, *_OBJECTS, *_SENTENCES)
"""Extensions of supported files; ``.gz`` may follow."""

TAB = next(separator for separator in SEPARATORS if separator.name == "tab")


class UnsureSeparator(RowProblem):
    """Several separators fit a table equally well."""

    def __init__(self, message: str, fitting: List[Separator]) -> None:
        super().__init__(message)
        self.fitting = fitting


class Source(NamedTuple):
    """An opened file of rows.

    ``lines`` iterates over its rows from the first; ``columns`` are None if each row names its own; ``note`` reports
    what only the content shows of the format, or is empty. ``squad`` is the document of SQuAD's JSON, which has no
    rows.
    """

    name: str
    lines: Callable[[], Iterator[Line]]
    columns: Optional[Sequence[str]] = None
    separator: Optional[Separator] = None
    note: str = ""
    squad: Any = None


def open_source(
    data: bytes,
    name: str,
    columns: Optional[Sequence[str]] = None,
    needed: Sequence[str] = (),
    separator: Optional[Separator] = None,
    expected: Optional[Separator] = None,
) -> Source:
    """Detect the format and the columns of a file's content.

    Args:
        name: name of the file, for messages; its extension selects the format.
        columns: columns of a table without a header; a first line with all ``needed`` ones is a header nevertheless.
        needed: columns that a table must have.
        separator: separator of a table; None detects it from the first rows.
        expected: separator of other files of the same task, which is taken where several fit; a note reports another.

    Raises:
        RowProblem: for an unknown extension or encoding, an invalid header, or an ambiguous separator.
    """
    ending = ending_of(name)
    if ending and ending not in ENDINGS:
        known = ", ".join("." + known for known in ENDINGS)
        raise RowProblem("{}: the ending .{} is none of {}; save it as one of them".format(name, ending, known))
    text = text_of(data, name)
    if ending in _OBJECTS:
        return _objects(text, name, ending)
    if ending in _SENTENCES or (separator is None and ending != "csv" and are_sentences(text)):
        note = sentence_note(text)
        note_of_format = "sentences, a word and its tag per line" if ending not in _SENTENCES else ""
        return Source(
            name, lambda: sentence_lines(text), COLUMNS, None, "; ".join(filter(None, (note_of_format, note)))
        )
    return _table(text, name, columns, needed, separator, expected)


def _objects(text: str, name: str, ending: str) -> Source:
    if ending != "json" and not text.lstrip().startswith("["):
        return Source(name, lambda: json_lines(text))
    document = read_document(text, name)
    if document is None:
        return Source(name, lambda: json_lines(text), note="an object per line")
    if document.rows is None:
        return Source(name, lambda: iter(()), squad=document.value)
    rows = document.rows
    note = document.note or "a list of objects" * (ending != "json")
    return Source(name, lambda: object_lines(rows), note=note)


def _table(
    text: str, name: str, columns: Optional[Sequence[str]], needed: Sequence[str], separator: Optional[Separator],
    expected: Optional[Separator],
) -> Source:  # fmt: skip
    ending, note = ending_of(name), ""
    if separator is None:
        separator = _detect_separator(text, name, columns, needed, expected)
        note = _table_note(text, ending, separator, expected)
    first = next(table_lines(text, separator, ending), None)
    headed = columns is None or (bool(needed) and first is not None and set(needed) <= set(first.cells))
    if headed:
        columns = header_of(first, name, separator, needed)
    between, skipped = separator, int(headed)
    return Source(name, lambda: islice(table_lines(text, between, ending), skipped, None), columns, separator, note)


def _detect_separator(
    text: str, name: str, columns: Optional[Sequence[str]], needed: Sequence[str], expected: Optional[Separator]
) -> Separator:
    fitting = fitting_separators(text, ending_of(name), None if columns is None else len(columns), needed, expected)
    if expected in fitting:
        return expected
    if len(fitting) > 1:
        names = " and ".join(separator.name + "s" for separator in fitting)
        message = "{} line 1: {} divide its first rows into columns equally well".format(name, names)
        raise UnsureSeparator(message + "; put texts that have one of them in quotes", fitting)
    return fitting[0]


def _table_note(text: str, ending: str, separator: Separator, expected: Optional[Separator]) -> str:
    if expected is not None and separator != expected:
        return "{}s between its columns, where the study's rows had {}s".format(separator.name, expected.name)
    if separator != own_separator(ending):
        return "{}s between its columns".format(separator.name)
    if separator == TAB and are_quoted(text):
        return "quotes around its cells are read as text; name it .csv if they are not"
    return ""


def records_in(
    source: Source,
    skip: Optional[List[str]] = None,
    fit: Optional[Callable[[List[str], Sequence[str]], Optional[List[str]]]] = None,
) -> Iterator[Record]:
    """Yield the records of a file, in order.

    Args:
        skip: collects the messages of invalid rows, which are left out; None raises the first.
        fit: for known ragged files: maps the cells of a row of the wrong size, and the columns, to cells of the right
            size; an empty list leaves the row out, None makes it invalid.

    Raises:
        RowProblem: for the first invalid row, without ``skip``.
    """
    columns, separator = source.columns, source.separator
    for line in source.lines():
        bad = unreadable(line.text, source.name)
        problem, cells = bad or line.problem, line.cells
        if separator is not None and columns is not None and not bad and len(cells) != len(columns):
            fitted = None if fit is None else fit(cells, columns)
            if fitted is not None and not fitted:
                continue
            problem = "" if fitted else problem or wrong_size(line, columns, separator)
            cells = fitted or cells
        where = "{} {}".format(source.name, line.place)
        if not problem:
            yield where, (cells if columns is None else dict(zip(columns, cells)))
        elif skip is None:
            raise RowProblem("{}: {}".format(where, problem))
        else:
            skip.append("{}: {}".format(where, problem))


def records_of(
    data: bytes,
    name: str,
    columns: Optional[Sequence[str]] = None,
    skip: Optional[List[str]] = None,
    needed: Sequence[str] = (),
    fit: Optional[Callable[[List[str], Sequence[str]], Optional[List[str]]]] = None,
    separator: Optional[Separator] = None,
) -> Iterator[Record]:
    """Yield the records of a file's content, in order: ``records_in`` of ``open_source``, with their arguments.

    Raises:
        RowProblem: as these.
    """
    yield from records_in(open_source(data, name, columns, needed, separator), skip, fit)
