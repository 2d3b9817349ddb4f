"""Records out of a file, read strictly: tables, JSON lines and lists of objects, and tagged sentences.

What the form is, is found by the ending and by the content; what was found that the ending does not say is a line for
the user.
"""

from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .content import ending_of, text_of, unreadable
from .objects import json_lines, object_lines, read_document
from .problems import RowProblem, check_characters, json_reason, missing_column
from .sentences import COLUMNS, are_sentences, sentence_lines, sentence_note
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
"""Where it is, as ``train.tsv line 3``, and its cells by the names of their columns."""

_TABLES, _OBJECTS, _SENTENCES = ("tsv", "txt", "csv"), ("jsonl", "ndjson", "json"), ("conll", "iob", "iob2", "bio")
ENDINGS = (*_TABLES, *_OBJECTS, *_SENTENCES)
"""Endings of the files that are read; ``.gz`` may follow."""

TAB = next(separator for separator in SEPARATORS if separator.name == "tab")


class UnsureSeparator(RowProblem):
    """A table that several separators fit alike."""

    def __init__(self, message: str, fitting: List[Separator]) -> None:
        super().__init__(message)
        self.fitting = fitting


class Source(NamedTuple):
    """A file of rows, opened.

    ``lines`` gives its rows from the first on; ``columns`` are those of each, None where each row names its own;
    ``note`` is what was found in the content that the ending does not say, empty for nothing. Of SQuAD's JSON
    ``squad`` is the document, and there are no rows.
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
) -> Source:
    """Find how a file's content is read, and its columns.

    Args:
        name: what messages call the file; its ending says how it is read.
        columns: of a table without a header, which has one all the same where its first line names those ``needed``.
        needed: columns that a table must have.
        separator: of a table; None: it is found in the first rows.

    Raises:
        RowProblem: for the file as a whole: its ending, its encoding, its header, a separator that is not sure.
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
        found = "sentences, a word and its tag a line" if ending not in _SENTENCES else ""
        return Source(name, lambda: sentence_lines(text), COLUMNS, None, "; ".join(filter(None, (found, note))))
    return _table(text, name, columns, needed, separator)


def _objects(text: str, name: str, ending: str) -> Source:
    if ending != "json" and not text.lstrip().startswith("["):
        return Source(name, lambda: json_lines(text))
    document = read_document(text, name)
    if document is None:
        return Source(name, lambda: json_lines(text), note="an object a line")
    if document.rows is None:
        return Source(name, lambda: iter(()), squad=document.value)
    rows = document.rows
    note = document.note or "a list of objects" * (ending != "json")
    return Source(name, lambda: object_lines(rows), note=note)


def _table(
    text: str, name: str, columns: Optional[Sequence[str]], needed: Sequence[str], separator: Optional[Separator]
) -> Source:
    ending, note = ending_of(name), ""
    if separator is None:
        separator = _found_separator(text, name, columns, needed)
        note = _table_note(text, ending, separator)
    first = next(table_lines(text, separator, ending), None)
    headed = columns is None or (bool(needed) and first is not None and set(needed) <= set(first.cells))
    if headed:
        columns = header_of(first, name, separator, needed)
    between, skipped = separator, int(headed)
    return Source(name, lambda: islice(table_lines(text, between, ending), skipped, None), columns, separator, note)


def _found_separator(text: str, name: str, columns: Optional[Sequence[str]], needed: Sequence[str]) -> Separator:
    fitting = fitting_separators(text, ending_of(name), None if columns is None else len(columns), needed)
    if len(fitting) > 1:
        names = " and ".join(each.name + "s" for each in fitting)
        message = "{} line 1: {} divide its first rows into columns alike".format(name, names)
        raise UnsureSeparator(message + "; put texts that have one of them in quotes", fitting)
    return fitting[0]


def _table_note(text: str, ending: str, separator: Separator) -> str:
    if separator != own_separator(ending):
        return "{}s between its columns".format(separator.name)
    if separator == TAB and are_quoted(text):
        return "quotes around its cells are taken for text; name it .csv where they are none"
    return ""


def records_in(
    source: Source,
    skip: Optional[List[str]] = None,
    fit: Optional[Callable[[List[str], Sequence[str]], Optional[List[str]]]] = None,
) -> Iterator[Record]:
    """The records of a file, in order.

    Args:
        skip: gets the messages of rows that are no records, which are left out; None: the first of them is raised.
        fit: for files that are known to be ragged: gets the cells of a row that are more or fewer than the columns, and
            gives them in their places, none to leave the row out, or None where that breaks the format.

    Raises:
        RowProblem: as ``skip`` says.
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
    """The records of a file's content, in order: ``records_in`` of ``open_source``, with their arguments.

    Raises:
        RowProblem: as they have it.
    """
    yield from records_in(open_source(data, name, columns, needed, separator), skip, fit)
