"""What is true of a row, out of its cells: a class, labels, a number, tags, or answers in a context."""

import json
import re
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..shown import shown
from .records import RowProblem, missing_column
from .task import Task

__all__ = ["answer_reader", "cell_of", "is_set", "items_of", "label_name", "labels_of", "number_of"]

_NAMED = 20
"""At most so many labels are named in a message."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST = 3e38
"""A 32-bit float, in which the loss is computed, holds no larger number."""

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
    """The items of a list, of a JSON list in a cell, or of a cell that separates them by white space."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        raise RowProblem("the {} is {}; it must be a list, or a text with spaces between".format(column, shown(value)))
    if value.startswith("["):
        found = _json_list(value)
        if found is not None and all(isinstance(item, str) for item in found):
            return found
    return value.split()


def _json_list(cell: str) -> Optional[List[Any]]:
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


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


def _ids(task: Task) -> Callable[[Any], int]:
    """The function from a cell to the id of its label.

    A label is named, or given by its id; by the id alone only where no label's name is a number itself.
    """
    known = {label: i for i, label in enumerate(task.labels)}
    if not any(label.isdigit() for label in task.labels):
        known.update((str(i), i) for i in range(len(task.labels)) if str(i) not in known)

    def id_of(cell: Any) -> int:
        name = label_name(cell)
        if name is None or name not in known:
            named = ["{} ({})".format(i, label) for i, label in enumerate(task.labels[:_NAMED])]
            more = ["\u2026"] * (len(task.labels) > _NAMED)
            raise RowProblem(
                "the label {} is unknown; labels of {} are {}".format(shown(cell), task.name, ", ".join(named + more))
            )
        return known[name]

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


def labels_of(cell: Any) -> List[Any]:
    """The labels of a multi-label row: a list, a JSON list in a cell, or names with ``|`` between; empty for none.

    Raises:
        RowProblem: for anything else, and for a label that is there twice.
    """
    if isinstance(cell, str):
        listed = _json_list(cell) if cell.startswith("[") else None
        labels = [part.strip() for part in cell.split("|")] if listed is None else listed
        labels = [] if not cell.strip() else labels
    elif isinstance(cell, (list, tuple)):
        labels = list(cell)
    else:
        raise RowProblem("the labels are {}; they must be a list, or names with | between".format(shown(cell)))
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
    return lambda cells, texts: tuple(sorted({id_of(label) for label in labels_of(cell_of(cells, task.label))}))


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
    return lambda cells, texts: number_of(cell_of(cells, task.label))


def number_of(cell: Any) -> float:
    """The number in a cell.

    Raises:
        RowProblem: when it is none, not finite, or larger than a 32-bit float holds.
    """
    if isinstance(cell, str):
        value = float(cell) if _NUMBER.fullmatch(cell) else float("nan")
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
        found = items_of(cell_of(cells, task.label), task.label)
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
