"""Read the true answer of a row from its cells: a class, labels, a number, tags, or answers in a context."""

import ast
import json
import re
import warnings
from decimal import Decimal, InvalidOperation
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..far.display import shown
from .records import RowProblem, missing_column
from .task import Task

__all__ = [
    "answer_reader",
    "cell_of",
    "id_finder",
    "is_set",
    "items_of",
    "label_name",
    "labels_of",
    "list_in",
    "number_named",
    "number_of",
    "tags_of",
]

_NAMED = 20
"""Maximum number of labels in a message."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_LARGEST = 3e38
"""About the largest 32-bit float, the type in which the loss is computed."""

_ITEM = r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|[+-]?[0-9][0-9.eE+-]*|True|False|None)"""
_PYTHON_ITEM = re.compile(_ITEM)
_PYTHON_LIST = re.compile(r"\[\s*(?:{0}(?:\s*,\s*{0})*\s*,?|{0}(?:\s+{0})*)?\s*\]".format(_ITEM.replace("(", "(?:", 1)))
"""A list as Python writes it, or separated by white space as numpy writes it."""
_SET = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""Spellings of 0 and 1 by programs."""

_START = "answer_start"
"""Optional column of the position of an answer in its context."""

_Cells = Dict[str, Any]
_Answer = Callable[[_Cells, Tuple[str, ...]], Any]


def cell_of(cells: _Cells, column: str) -> Any:
    """Return the cell of a column; raise RowProblem if the record lacks it."""
    if column not in cells:
        raise RowProblem("{}; add it".format(missing_column(column, cells)))
    return cells[column]


def items_of(value: Any, column: str) -> List[Any]:
    """Return the items of a list, of a list that is written in a cell, or of a text separated by white space.

    Raises:
        RowProblem: for another type, and for a text that begins like a list of quoted items but is invalid.
    """
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        raise RowProblem("the {} is {}; it must be a list, or a text with spaces between".format(column, shown(value)))
    items = list_in(value)
    if items is not None and all(isinstance(item, str) for item in items):
        return items
    if re.match(r"""\[\s*["']\S""", value) and (items is not None or value.rstrip().endswith("]")):
        raise RowProblem(
            'the {} {} is no list of texts; write it as ["a", "b"], or with spaces between'.format(column, shown(value))
        )
    return value.split()


def list_in(cell: Any) -> Optional[List[Any]]:
    """Return the list that a cell contains as JSON, Python or numpy write it, else None."""
    if not isinstance(cell, str) or not cell.startswith("["):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return _python_list(cell.strip())
    return value if isinstance(value, list) else None


def _python_list(cell: str) -> Optional[List[Any]]:
    if not _PYTHON_LIST.fullmatch(cell):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # for escapes that Python never writes
            return [ast.literal_eval(item) for item in _PYTHON_ITEM.findall(cell)]
    except (ValueError, SyntaxError, Warning):
        return None


def tags_of(cell: Any, column: str) -> List[Any]:
    """Return the tags of a row, which may be ids; separated as the words of ``items_of``."""
    tags = list_in(cell)
    return items_of(cell, column) if tags is None else tags


def answer_reader(task: Task) -> _Answer:
    """Return the function from the cells and the texts of a row to its answer."""
    kinds = {
        "classification": _class_reader,
        "multi-label": _labels_reader,
        "regression": _number_reader,
        "token-classification": _tags_reader,
        "question-answering": _answers_reader,
    }
    return kinds[task.kind](task)


def id_finder(labels: Sequence[str]) -> Callable[[Any], Optional[int]]:
    """Return the function from a cell to the id of its label, None for an unknown label.

    A cell is the label's name; or, for numeric names, an unambiguous other spelling (1.0 for 1); or its id, unless a
    label's name is a number.
    """
    known = {label: i for i, label in enumerate(labels)}
    numbers: Dict[Decimal, List[int]] = {}
    for label, i in known.items():
        number = number_named(label)
        if number is not None:
            numbers.setdefault(number, []).append(i)
    if not numbers:
        known.update((str(i), i) for i in range(len(labels)) if str(i) not in known)

    def find(cell: Any) -> Optional[int]:
        name = label_name(cell)
        if name in known:
            return known[name]
        number = number_named(str(cell) if name is None and isinstance(cell, float) else name)
        ids = [] if number is None else numbers.get(number, [])
        return ids[0] if len(ids) == 1 else None

    return find


def number_named(name: Optional[str]) -> Optional[Decimal]:
    """Return the number that a label's name spells, else None."""
    if name is None or not (_NUMBER.fullmatch(name) or name.isdecimal()):
        return None
    try:
        return Decimal(name)
    except InvalidOperation:
        return None


def _ids(task: Task) -> Callable[[Any], int]:
    """The function from a cell to the id of its label, which raises RowProblem for unknown labels."""
    find = id_finder(task.labels)

    def id_of(cell: Any) -> int:
        label_id = find(cell)
        if label_id is None:
            named = ["{} ({})".format(i, label) for i, label in enumerate(task.labels[:_NAMED])]
            more = ["\u2026"] * (len(task.labels) > _NAMED)
            raise RowProblem(
                "the label {} is unknown; labels of {} are {}".format(shown(cell), task.name, ", ".join(named + more))
            )
        return label_id

    return id_of


def label_name(cell: Any) -> Optional[str]:
    """Return a cell as the name of a label: a text, a whole number, true or false; None for anything else."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # pandas writes a column of integers with a missing one so
    return str(cell) if isinstance(cell, (str, int)) else None


def _class_reader(task: Task) -> _Answer:
    id_of = _ids(task)
    return lambda cells, texts: id_of(cell_of(cells, task.label))


def labels_of(cell: Any, separator: Optional[str] = None) -> List[Any]:
    """Return the labels of a multi-label row: a list, a list written in a cell, or separated names.

    Args:
        separator: between names; None for ``|``. An empty cell has no labels.

    Raises:
        RowProblem: for another type, and for a repeated label.
    """
    separator = separator or "|"
    if isinstance(cell, str):
        listed = list_in(cell)
        if listed is None and re.match(r"""\[\s*["']""", cell):
            raise RowProblem(
                'the labels {} are an invalid list; write them as ["a", "b"], or with {} between'.format(
                    shown(cell), separator
                )
            )
        labels = [part.strip() for part in cell.split(separator)] if listed is None else listed
        labels = [] if not cell.strip() else labels
    elif isinstance(cell, (list, tuple)):
        labels = list(cell)
    else:
        raise RowProblem(
            "the labels are {}; they must be a list, or names with {} between".format(shown(cell), separator)
        )
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise RowProblem("the label {} is repeated; name each once".format(shown(label)))
    return labels


def _labels_reader(task: Task) -> _Answer:
    if task.label_columns:
        return lambda cells, texts: tuple(
            i for i, label in enumerate(task.labels) if is_set(cell_of(cells, label), label)
        )
    id_of = _ids(task)

    def labels(cells: _Cells, texts: Tuple[str, ...]) -> Tuple[int, ...]:
        names = labels_of(cell_of(cells, task.label), task.label_separator)
        return tuple(sorted({id_of(name) for name in names}))

    return labels


def is_set(cell: Any, column: str) -> bool:
    """Return whether a cell of 0 and 1 is 1.

    Raises:
        RowProblem: if it is neither.
    """
    name = (label_name(cell) or "").strip().lower()
    if name not in _SET:
        raise RowProblem("the {} is {}; it must be 0 or 1".format(column, shown(cell)))
    return _SET[name]


def _number_reader(task: Task) -> _Answer:
    return lambda cells, texts: number_of(cell_of(cells, task.label), task.decimal_comma)


def number_of(cell: Any, decimal_comma: bool = False) -> float:
    """Return the number in a cell.

    Args:
        decimal_comma: numbers may be written as 0,5.

    Raises:
        RowProblem: for a cell that is no number, not finite, or beyond a 32-bit float.
    """
    if isinstance(cell, str):
        text = cell.replace(",", ".") if decimal_comma and _DECIMAL_COMMA.fullmatch(cell) else cell
        value = float(text) if _NUMBER.fullmatch(text) else float("nan")
    else:
        number = isinstance(cell, (int, float)) and not isinstance(cell, bool) and cell == cell
        value = float("nan") if not number else float(cell) if abs(cell) <= _LARGEST else float("inf")
    if value != value:
        raise RowProblem("the label {} is no finite number; write it as 3.5 or -2".format(shown(cell)))
    if abs(value) > _LARGEST:
        raise RowProblem("the label {} is not from -3e38 to 3e38; scale all of them".format(shown(cell)))
    return value


def _tags_reader(task: Task) -> _Answer:
    id_of = _ids(task)

    def tags(cells: _Cells, words: Tuple[str, ...]) -> Tuple[int, ...]:
        names = tags_of(cell_of(cells, task.label), task.label)
        if len(names) != len(words):
            raise RowProblem("{} tags for {} words; give each word one".format(len(names), len(words)))
        return tuple(id_of(name) for name in names)

    return tags


def _answers_reader(task: Task) -> _Answer:
    def answers(cells: _Cells, texts: Tuple[str, ...]) -> Tuple[Tuple[str, int], ...]:
        cell = cell_of(cells, task.label)
        start: Any = cells.get(_START)
        if isinstance(cell, dict):
            cell, start = cell_of(cell, "text"), cell.get(_START)
        true: List[Any] = list(cell) if isinstance(cell, (list, tuple)) else [] if cell in (None, "") else [cell]
        starts: Sequence[Any] = list(start) if isinstance(start, (list, tuple)) else [start] * len(true)
        if len(starts) != len(true):
            raise RowProblem("{} answers with {} starts; give each one".format(len(true), len(starts)))
        return tuple(dict.fromkeys(_answer(text, at, texts[1]) for text, at in zip(true, starts)))

    return answers


def _answer(text: Any, start: Any, context: str) -> Tuple[str, int]:
    """An answer and the position of its first character in the context."""
    if not isinstance(text, str) or not text.strip():
        raise RowProblem("the answer {} is no text; it must be a part of the context".format(shown(text)))
    if start is None or start == "":
        at = context.find(text)
        if at < 0:
            raise RowProblem("the answer {} is not in its context; it must be a part of it".format(shown(text)))
        return text, at
    digits = isinstance(start, str) and start.isdecimal()
    if not (digits or (isinstance(start, int) and not isinstance(start, bool) and start >= 0)):
        raise RowProblem("{} is {}; it must be a character of the context, from 0".format(_START, shown(start)))
    at = int(start)
    if context[at : at + len(text)] != text:
        raise RowProblem(
            "the context has {} at character {}, not the answer {}; correct {}".format(
                shown(context[at : at + len(text)]), at, shown(text), _START
            )
        )
    return text, at
