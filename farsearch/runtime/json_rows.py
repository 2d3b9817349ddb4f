"""Rows as JSON objects: one per line, in a list, in a list under a key, or as a list per column."""

import json
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..far.display import shown, shown_text
from .decoding import lines_of, unreadable
from .row_errors import RowProblem, json_reason
from .tables import EMPTY, Line

__all__ = ["Document", "is_squad", "json_lines", "object_lines", "read_document"]

_OBJECT = '{"text": "fine", "label": "good"}'
_ROWS = ("data", "rows", "examples")
"""Usual keys of the list of rows, in order of preference."""


class Document(NamedTuple):
    """A JSON document: its rows, None for SQuAD's format; ``note`` is where they are, if it is no list."""

    value: Any
    rows: Optional[List[Any]]
    note: str


def json_lines(text: str) -> Iterator[Line]:
    """Yield the objects of JSON lines."""
    for number, line in lines_of(text):
        value, problem = None, "" if line.strip() else EMPTY
        if not problem:
            try:
                value = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                reason = json_reason(error)
                problem = "{} is not JSON: {}; each line is one object, as {}".format(shown(line), reason, _OBJECT)
            else:
                if not isinstance(value, dict):
                    problem = "{} is no object; each line is one, as {}".format(shown(line), _OBJECT)
        yield Line("line {}".format(number), value, line, problem)


def object_lines(rows: List[Any]) -> Iterator[Line]:
    """Yield the objects of a list."""
    for number, row in enumerate(rows, 1):
        problem = "" if isinstance(row, dict) else "{} is no object; each row is one, as {}".format(shown(row), _OBJECT)
        yield Line("row {}".format(number), row, "", problem)


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError("the key {} is repeated".format(shown(next(n for n in names if names.count(n) > 1))))
    return table


def read_document(text: str, name: str) -> Optional[Document]:
    """Parse a text as one JSON document; return None if it is JSON lines.

    Raises:
        RowProblem: for a text that is no JSON, or has no rows.
    """
    for number, line in lines_of(text) if unreadable(text, name) else ():
        problem = unreadable(line, name)
        if problem:
            raise RowProblem("{} line {}: {}".format(name, number, problem))
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[: error.pos].strip().count("\n") == 0:
            return None
        raise RowProblem(
            "{} line {}: it is not JSON: {} at column {}; correct it there".format(
                name, error.lineno, error.msg, error.colno
            )
        ) from error
    except (ValueError, RecursionError) as error:
        # a number of too many digits, a repeated key, or nesting that is too deep
        raise RowProblem("{} line 1: it is no JSON of rows: {}; correct it".format(name, json_reason(error))) from error
    if is_squad(value):
        return Document(value, None, "")
    if isinstance(value, list):
        return Document(value, value, "")
    rows, note = _rows_in(value, name)
    return Document(value, rows, note)


def is_squad(value: Any) -> bool:
    """Return whether a document has the articles and paragraphs of SQuAD's format."""
    articles = value.get("data") if isinstance(value, dict) else None
    return isinstance(articles, list) and any(
        isinstance(article, dict) and "paragraphs" in article for article in articles
    )


def _rows_in(value: Any, name: str) -> Tuple[List[Any], str]:
    """The rows of a document that is no list, and a note on where they are."""
    if not isinstance(value, dict) or not value:
        raise RowProblem("{} line 1: {} has no rows; a file of rows is a list of them, as [{}]".format(
            name, shown(value), _OBJECT
        ))  # fmt: skip
    columns = _columns_in(value)
    if columns is not None:
        return columns, "a list for each column"
    lists = [key for key, rows in value.items() if isinstance(rows, list) and all(isinstance(r, dict) for r in rows)]
    lists = [key for key in lists if value[key]] or lists
    usual = [key for key in _ROWS if key in lists]
    if len(lists) != 1 and not usual:
        cause = "rows are under none of its keys" if not lists else "rows are under several of its keys"
        raise RowProblem("{} line 1: {}, {}; save one list of rows, as [{}]".format(
            name, cause, shown_text(", ".join(lists or value), 80), _OBJECT
        ))  # fmt: skip
    key = usual[0] if usual else lists[0]
    return value[key], "rows under {}".format(shown(key))


def _columns_in(value: Dict[str, Any]) -> Optional[List[Any]]:
    """Rows of a table by columns, each a list, or an object with the same keys as pandas writes it; else None."""
    columns = list(value.values())
    if len(columns) < 2:
        return None
    if all(isinstance(column, dict) for column in columns):
        keys = list(columns[0])
        if not keys or not all(key.isdigit() for key in keys) or any(list(column) != keys for column in columns):
            return None
        columns = [list(column.values()) for column in columns]
    elif not all(isinstance(column, list) for column in columns):
        return None
    sizes = {len(column) for column in columns}
    if len(sizes) > 1 or any(isinstance(cell, dict) for column in columns for cell in column):
        return None
    return [dict(zip(value, cells)) for cells in zip(*columns)]
