"""What is true of a row, out of its cells: a class, labels, a number, tags, or answers in a context."""

import ast
import json
import re
import warnings
from decimal import Decimal, InvalidOperation
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..display import shown
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
"""At most so many labels are named in a message."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_LARGEST = 3e38
"""A 32-bit float, in which the loss is computed, holds no larger number."""

_ITEM = r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|[+-]?[0-9][0-9.eE+-]*|True|False|None)"""
_PYTHON_ITEM = re.compile(_ITEM)
_PYTHON_LIST = re.compile(r"\[\s*(?:{0}(?:\s*,\s*{0})*\s*,?|{0}(?:\s+{0})*)?\s*\]".format(_ITEM.replace("(", "(?:", 1)))
"""A list as Python writes it, or with white space alone between the items, as numpy does."""
_SET = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""What a cell of 0 and 1 may be: as programs write them."""

_START = "answer_start"
"""Column of the first character of an answer in its context, where there is one."""

_Cells = Dict[str, Any]
_Answer = Callable[[_Cells, Tuple[str, ...]], Any]


def cell_of(cells: _Cells, column: str) -> Any:
    """The cell of a column, which a record must have."""
    if column not in cells:
        raise RowProblem("{}; add it".format(missing_column(column, cells)))
    return cells[column]


def items_of(value: Any, column: str) -> List[Any]:
    """The items of a list, of one that is written in a cell, or of a cell that separates them by white space.

    Raises:
        RowProblem: for anything else, and for a cell that begins a list of quoted items and is none.
    """
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        raise RowProblem("the {} is {}; it must be a list, or a text with spaces between".format(column, shown(value)))
    found = list_in(value)
    if found is not None and all(isinstance(item, str) for item in found):
        return found
    if re.match(r"""\[\s*["']\S""", value) and (found is not None or value.rstrip().endswith("]")):
        raise RowProblem(
            'the {} {} is no list of texts; write it as ["a", "b"], or with spaces between'.format(column, shown(value))
        )
    return value.split()


def list_in(cell: Any) -> Optional[List[Any]]:
    """The list that a cell holds as JSON, Python or numpy write it; None where it holds none."""
    if not isinstance(cell, str) or not cell.startswith("["):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return _python_list(cell.strip())
    return found if isinstance(found, list) else None


def _python_list(cell: str) -> Optional[List[Any]]:
    if not _PYTHON_LIST.fullmatch(cell):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an escape that Python does not write
            return [ast.literal_eval(item) for item in _PYTHON_ITEM.findall(cell)]
    except (ValueError, SyntaxError, Warning):
        return None


def tags_of(cell: Any, column: str) -> List[Any]:
    """The tags of a row, which may be ids, as ``items_of`` finds words."""
    found = list_in(cell)
    return items_of(cell, column) if found is None else found


def answer_reader(task: Task) -> _Answer:
    """The function that reads the answer of a row of this task out of its cells and its texts."""
    kinds = {
        "classification": _class_reader,
        "multi-label": _labels_reader,
        "regression": _number_reader,
        "token-classification": _tags_reader,
        "question-answering": _answers_reader,
    }
    return kinds[task.kind](task)


def id_finder(labels: Sequence[str]) -> Callable[[Any], Optional[int]]:
    """Return the function from a cell to the id of its label, None where it is none of them.

    A label is named; or, where it is a number, given in another spelling (1.0 for 1) that no second label has; or given
    by its id, but only where no label's name is a number.
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
    """The number that a label's name is, in any spelling; None where it is none."""
    if name is None or not (_NUMBER.fullmatch(name) or name.isdecimal()):
        return None
    try:
        return Decimal(name)
    except InvalidOperation:
        return None


def _ids(task: Task) -> Callable[[Any], int]:
    """The function from a cell to the id of its label, which raises RowProblem where it is none of the task's."""
    find = id_finder(task.labels)

    def id_of(cell: Any) -> int:
        found = find(cell)
        if found is None:
            named = ["{} ({})".format(i, label) for i, label in enumerate(task.labels[:_NAMED])]
            more = ["\u2026"] * (len(task.labels) > _NAMED)
            raise RowProblem(
                "the label {} is unknown; labels of {} are {}".format(shown(cell), task.name, ", ".join(named + more))
            )
        return found

    return id_of


def label_name(cell: Any) -> Optional[str]:
    """The name of a label as a cell has it: a text, a whole number, true or false; None for anything else."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # what a column of whole numbers becomes where one is missing
    return str(cell) if isinstance(cell, (str, int)) else None


def _class_reader(task: Task) -> _Answer:
    id_of = _ids(task)
    return lambda cells, texts: id_of(cell_of(cells, task.label))


def labels_of(cell: Any, separator: Optional[str] = None) -> List[Any]:
    """The labels of a multi-label row: a list, one written in a cell, or names with a separator between.

    Args:
        separator: between names; None for ``|``. An empty cell has no labels.

    Raises:
        RowProblem: for anything else, and for a label that is there twice.
    """
    separator = separator or "|"
    if isinstance(cell, str):
        listed = list_in(cell)
        if listed is None and re.match(r"""\[\s*["']""", cell):
            raise RowProblem(
                'the labels {} are no list; write them as ["a", "b"], or with {} between'.format(shown(cell), separator)
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
            raise RowProblem("the label {} is there twice; name each once".format(shown(label)))
    return labels


def _labels_reader(task: Task) -> _Answer:
    if task.label_columns:
        return lambda cells, texts: tuple(
            i for i, label in enumerate(task.labels) if is_set(cell_of(cells, label), label)
        )
    id_of = _ids(task)

    def labels(cells: _Cells, texts: Tuple[str, ...]) -> Tuple[int, ...]:
        found = labels_of(cell_of(cells, task.label), task.label_separator)
        return tuple(sorted({id_of(label) for label in found}))

    return labels


def is_set(cell: Any, column: str) -> bool:
    """Whether a cell of 0 and 1 is 1.

    Raises:
        RowProblem: where it is neither.
    """
    name = (label_name(cell) or "").strip().lower()
    if name not in _SET:
        raise RowProblem("the {} is {}; it must be 0 or 1".format(column, shown(cell)))
    return _SET[name]


def _number_reader(task: Task) -> _Answer:
    return lambda cells, texts: number_of(cell_of(cells, task.label), task.decimal_comma)


def number_of(cell: Any, decimal_comma: bool = False) -> float:
    """The number in a cell.

    Args:
        decimal_comma: it may be written as 0,5.

    Raises:
        RowProblem: when it is none, not finite, or larger than a 32-bit float holds.
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
        found = tags_of(cell_of(cells, task.label), task.label)
        if len(found) != len(words):
            raise RowProblem("{} tags for {} words; give each word one".format(len(found), len(words)))
        return tuple(id_of(tag) for tag in found)

    return tags


def _answers_reader(task: Task) -> _Answer:
    def answers(cells: _Cells, texts: Tuple[str, ...]) -> Tuple[Tuple[str, int], ...]:
        cell = cell_of(cells, task.label)
        start: Any = cells.get(_START)
        if isinstance(cell, dict):
            cell, start = cell_of(cell, "text"), cell.get(_START)
        found: List[Any] = list(cell) if isinstance(cell, (list, tuple)) else [] if cell in (None, "") else [cell]
        starts: Sequence[Any] = list(start) if isinstance(start, (list, tuple)) else [start] * len(found)
        if len(starts) != len(found):
            raise RowProblem("{} answers with {} starts; give each one".format(len(found), len(starts)))
        return tuple(dict.fromkeys(_answer(text, at, texts[1]) for text, at in zip(found, starts)))

    return answers


def _answer(text: Any, start: Any, context: str) -> Tuple[str, int]:
    """An answer and its first character in the context."""
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
