"""Records out of a file, read strictly: tables with tabs or commas, and JSON lines.

Only a line feed ends a line, with or without a carriage return before it: other characters that ``splitlines`` takes
for line ends occur within texts.
"""

import difflib
import json
import re
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..shown import shown, shown_text

__all__ = [
    "ENDINGS",
    "Record",
    "RowProblem",
    "check_characters",
    "json_reason",
    "missing_column",
    "records_of",
]

Record = Tuple[str, Dict[str, Any]]
"""Where it is, as ``train.tsv line 3``, and its cells by the names of their columns."""

ENDINGS = {"tsv": "tabs", "txt": "tabs", "csv": "commas", "jsonl": "JSON lines", "ndjson": "JSON lines"}
"""How a file is read, by its ending."""

_LISTED = 160
"""Characters of the names of columns that a message lists."""

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as ``surrogateescape`` keeps them."""

_QUOTED = re.compile('"([^"]*(?:""[^"]*)*)"(?!")')
_PLAIN = re.compile("[^,\n]*")

_Line = Tuple[int, Any, str, str]
"""Number of a row's first line, its cells, its text, and what is wrong with it."""


_LONGEST = 1000000
"""Characters of a text: what is longer is a quote that was never closed, or no text."""


class RowProblem(ValueError):
    """A row that breaks the format; one line that names file, line, rule and mend."""


def check_characters(text: str, what: str) -> None:
    """Refuse a text that is too long to be one, or holds what no text has; ``what`` is what messages call it."""
    if len(text) > _LONGEST:
        raise RowProblem(
            "{} has {:,} characters; a text has at most {:,}: cut it, or look for a quote that is not closed".format(
                what, len(text), _LONGEST
            )
        )
    if "\0" in text:
        raise RowProblem("{} holds a NUL character, which no text has: remove it".format(what))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem("{} holds half a character (a lone surrogate): remove it".format(what)) from error


def missing_column(column: str, columns: Iterable[Any]) -> str:
    """What a message says of a column that is not there."""
    there = [str(name) for name in columns]
    close = difflib.get_close_matches(column.lower(), [name.lower() for name in there], n=1)
    hint = (
        ""
        if not close
        else " (did you mean {}?)".format(shown(there[[name.lower() for name in there].index(close[0])]))
    )
    listed = ", ".join(there) or "none"
    return "there is no column {} among {}{}".format(shown(column), shown_text(listed, _LISTED), hint)


def records_of(
    data: bytes,
    name: str,
    columns: Optional[Sequence[str]] = None,
    skip: Optional[List[str]] = None,
    needed: Sequence[str] = (),
    fit: Optional[Callable[[List[str], Sequence[str]], Optional[List[str]]]] = None,
) -> Iterator[Record]:
    """The records of a file's content, in order.

    Tables (``.tsv``, ``.txt`` or no ending: tabs, and quotes are text; ``.csv``: commas, with quotes as RFC 4180 has
    them) have a header unless ``columns`` are given. Of JSON lines (``.jsonl``, ``.ndjson``) each is an object.

    Args:
        name: what messages call the file; its ending says how it is read.
        columns: of a table without a header; JSON lines name their own.
        skip: gets the messages of rows that are no records, which are left out; None: the first of them is raised.
        needed: columns that a table must have.
        fit: for files that are known to be ragged: gets the cells of a row that are more or fewer than the columns, and
            gives them in their places, none to leave the row out, or None where that breaks the format.

    Raises:
        RowProblem: as ``skip`` says; and for a file as a whole: its ending, its header.
    """
    text, how = _text_of(data, name), _how(name)
    lines = {"tabs": _tab_lines, "commas": _comma_lines, "JSON lines": _json_lines}[how](text)
    if how == "JSON lines":
        columns = None
    elif columns is None:
        columns = _header(next(lines, None), name, how, needed)
    for number, cells, line, problem in lines:
        unreadable = _unreadable(line)
        problem = unreadable or problem
        if columns is not None and not unreadable and len(cells) != len(columns):
            fitted = None if fit is None else fit(cells, columns)
            if fitted is not None and not fitted:
                continue
            problem = "" if fitted else problem or _wrong_size(line, cells, columns, how)
            cells = fitted or cells
        where = "{} line {}".format(name, number)
        if not problem:
            yield where, (cells if columns is None else dict(zip(columns, cells)))
        elif skip is None:
            raise RowProblem("{}: {}".format(where, problem))
        else:
            skip.append("{}: {}".format(where, problem))


def _how(name: str) -> str:
    ending = name.lower().rsplit(".", 1)[1] if "." in name else "tsv"
    if ending not in ENDINGS:
        known = ", ".join("." + known for known in ENDINGS)
        raise RowProblem("{}: the ending .{} is none of {}; save it as one of them".format(name, ending, known))
    return ENDINGS[ending]


def _text_of(data: bytes, name: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RowProblem("{} line 1: the file is UTF-16; save it as UTF-8".format(name))
    data = data[3:] if data.startswith(b"\xef\xbb\xbf") else data
    text = data.decode("utf-8", "surrogateescape")
    if "\r" in text and "\n" not in text:
        raise RowProblem("{} line 1: its lines end in CR alone; save it with LF or CRLF line ends".format(name))
    return text


def _unreadable(line: str) -> str:
    byte = _NOT_UTF8.search(line)
    if byte:
        return "byte {:#04x} is not UTF-8; save the file as UTF-8".format(ord(byte.group()) - 0xDC00)
    return "there is a NUL byte, which no text has: remove it" if "\0" in line else ""


def _header(first: Optional[_Line], name: str, how: str, needed: Sequence[str]) -> List[str]:
    """The columns that the first line names."""
    number, cells, line, problem = first or (1, [], "", "")
    columns = [str(cell) for cell in cells or ()]
    problem = _unreadable(line) or ("" if not line.strip() else problem)
    twice = [column for i, column in enumerate(columns) if column and column in columns[:i]]
    missing = [column for column in needed if column not in columns]
    if problem:
        raise RowProblem("{} line {}: the header can't be read: {}".format(name, number, problem))
    if twice:
        raise RowProblem("{} line 1: the header has {} twice; name each column once".format(name, shown(twice[0])))
    if not line.strip() or missing:
        found = "nothing" if not line.strip() else "{}: {}".format(shown(line), missing_column(missing[0], columns))
        names = (needed and (",", "<TAB>")[how == "tabs"].join(needed)) or "its columns"
        raise RowProblem("{} line 1: the header is {}; it must name {}: add that line".format(name, found, names))
    return columns


def _wrong_size(line: str, cells: Sequence[str], columns: Sequence[str], how: str) -> str:
    mend = "put a text with commas in quotes" if how == "commas" else "make tabs within the text spaces"
    return "{} has {} column{}; a row has {} ({}) with one {} between: add what is missing, or {}".format(
        shown(line), len(cells), "s" * (len(cells) != 1), len(columns), ", ".join(columns),
        "comma" if how == "commas" else "tab", mend,
    )  # fmt: skip


_EMPTY = "the line is empty; each line is a row: remove it"


def _lines(text: str) -> Iterator[Tuple[int, str]]:
    lines = text.split("\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        yield number, line[:-1] if line.endswith("\r") else line


def _tab_lines(text: str) -> Iterator[_Line]:
    for number, line in _lines(text):
        yield number, line.split("\t"), line, "" if line.strip() else _EMPTY


def _comma_lines(text: str) -> Iterator[_Line]:
    at, number = 0, 1
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at : end - 1 if text[end - 1 : end] == "\r" and end > at else end]
        after, problem = end + 1, "" if line.strip() else _EMPTY
        cells = line.split(",")
        if '"' in line:
            cells, ended, problem = _quoted_cells(text, at)
            if not problem:
                line, after = text[at:ended].rstrip("\r\n"), ended
        yield number, cells, line, problem
        # after a row that could not be read, the next line is taken for a new one
        number += text.count("\n", at, after)
        at = after


def _quoted_cells(text: str, at: int) -> Tuple[List[str], int, str]:
    """The cells of the row at ``at``, where the next one begins, and what is wrong with it."""
    cells: List[str] = []
    while True:
        quoted = text.startswith('"', at)
        found = (_QUOTED if quoted else _PLAIN).match(text, at)
        if found is None:
            return cells, at, "a quote is opened and not closed; close it, or double a quote within a text"
        at = found.end()
        cell = found.group(1).replace('""', '"') if quoted else found.group()
        if quoted and text[at : at + 1] == "\r" and text[at + 1 : at + 2] in ("\n", ""):
            at += 1
        after = text[at : at + 1]
        if (not quoted and '"' in cell) or after not in ("", ",", "\n"):
            return cells, at, "a quote is within a cell; put the whole cell in quotes and double those within"
        at += 1
        if after == ",":
            cells.append(cell)
            continue
        cells.append(cell if quoted or not cell.endswith("\r") else cell[:-1])
        return cells, at, ""


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError("the key {} is there twice".format(shown(next(n for n in names if names.count(n) > 1))))
    return found


def json_reason(error: Exception) -> str:
    """Return why a text could not be read as JSON, TOML or YAML."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return "{} at character {}".format(error.msg, error.pos + 1)
    return str(error).split("\n")[0].split("; use sys.")[0]


def _json_lines(text: str) -> Iterator[_Line]:
    for number, line in _lines(text):
        value, problem = None, "" if line.strip() else _EMPTY
        if not problem:
            try:
                value = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                reason = json_reason(error)
                problem = "{} is not JSON: {}; each line is one object, as {}".format(shown(line), reason, _OBJECT)
            else:
                if not isinstance(value, dict):
                    problem = "{} is no object; each line is one, as {}".format(shown(line), _OBJECT)
        yield number, value, line, problem


_OBJECT = '{"text": "fine", "label": "good"}'
