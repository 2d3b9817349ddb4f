"""What a user's labels say of a task: its kind, and the names of its labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from farsearch.far.board.answers import items_of, label_name, labels_of, number_of
from farsearch.far.board.records import RowProblem
from farsearch.far.shown import shown
from farsearch.tasks.data import Kind, TaskSpec

__all__ = ["check_label", "find_kind", "find_labels", "name_problem"]

_MOST = 0.9
"""Labels are numbers, or tags, where so many of them are; the others are then bad rows."""

_NONE = {"", "nan", "null", "none", "na", "n/a", "nat", "-", "inf", "-inf"}
"""How programs write that there is no value."""

_TAG = re.compile(r"O|[BI]-\S+")
_QUESTION = ("question", "context")
_ANSWERS = ("answers", "answer")


def _is_list(cell: Any) -> bool:
    return isinstance(cell, list | tuple) or (isinstance(cell, str) and cell.startswith("[") and cell.endswith("]"))


def find_kind(cells: Sequence[Mapping[str, Any]], texts: Sequence[str], label: str) -> Kind:
    """The kind of a task, from the cells of its rows.

    Answers with their places, or text columns ``question`` and ``context`` with answers: question answering. Lists:
    tags where the text is a list too, or there are as many tags as words and all are IOB2's, otherwise several labels;
    so are names with ``|`` between. Numbers of which one has a fraction: regression. Otherwise classification.
    """
    labels = [row[label] for row in cells if row.get(label) is not None]
    dicts = sum(isinstance(cell, dict) for cell in labels)
    if (labels and dicts >= _MOST * len(labels)) or (tuple(texts) == _QUESTION and _are_answers(cells, label)):
        return "question-answering"
    if labels and len(texts) == 1 and sum(map(_tags, labels)) >= _MOST * len(labels):
        return "token-classification"
    if any(_is_list(cell) for cell in labels):
        listed = any(_is_list(row.get(texts[0])) for row in cells)
        return "token-classification" if listed and len(texts) == 1 else "multi-label"
    if any(isinstance(cell, str) and "|" in cell for cell in labels):
        return "multi-label"
    numbers = [number for number in map(_number, labels) if number is not None]
    if numbers and len(numbers) >= _MOST * len(labels) and any(not number.is_integer() for number in numbers):
        return "regression"
    return "classification"


def _are_answers(cells: Sequence[Mapping[str, Any]], label: str) -> bool:
    """Whether the labels of questions are answers: by the name of their column, or for they stand in the contexts."""
    if label in _ANSWERS:
        return True
    rows = [(row.get(label), row.get(_QUESTION[1])) for row in cells]
    texts = [(cell, context) for cell, context in rows if isinstance(cell, str) and isinstance(context, str) and cell]
    inside = sum(cell in context for cell, context in texts)
    return inside >= _MOST * len(texts) and len({cell for cell, _ in texts}) > len(texts) / 2


def _number(cell: Any) -> float | None:
    try:
        return number_of(cell)
    except RowProblem:
        return None


def _tags(cell: Any) -> bool:
    """Whether a cell is IOB2's tags of several words."""
    if not isinstance(cell, str | list | tuple):
        return False
    tags = items_of(cell, "label")
    return len(tags) > 1 and all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags)


def find_labels(kind: Kind, cells: Sequence[Any]) -> tuple[str, ...]:
    """The names of the labels in these cells: numbers in their order, names by the alphabet, of tags ``O`` first."""
    names: set[str] = set()
    for cell in cells:
        names.update(name for name in _names(kind, cell) if name is not None and name.strip())
    if kind == "token-classification":
        return tuple(sorted(names, key=lambda tag: ("", "") if tag == "O" else (tag[2:], tag[:2])))
    real = names if kind == "multi-label" else {name for name in names if name.lower() not in _NONE}
    if real and all(_number(name) is not None for name in real):
        return tuple(sorted(real, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _names(kind: Kind, cell: Any) -> list[str | None]:
    if kind in ("regression", "question-answering"):
        return []
    if kind == "classification":
        return [label_name(cell)]
    try:
        found = _labels_of(cell) if kind == "multi-label" else items_of(cell, "tags")
    except RowProblem:
        return []  # its row is named when it is read
    names = map(label_name, found)
    return [name for name in names if kind == "multi-label" or (name is not None and _TAG.fullmatch(name))]


def _labels_of(cell: Any) -> list[Any]:
    """The labels in a cell; none where it can't be read: its row is named when it is."""
    try:
        return labels_of(cell)
    except RowProblem:
        return []


def name_problem(name: str) -> str:
    """What makes the name of a label another one than what looks the same, or what breaks a line that shows it."""
    hidden = next((character for character in name if not character.isprintable()), None)
    if hidden is not None:
        return f"the label {shown(name)} holds a character that can't be seen (U+{ord(hidden):04X}); remove it"
    if name != name.strip():
        return f"the label {shown(name)} has spaces around it, and would be another than without; remove them"
    if unicodedata.normalize("NFC", name) != name:
        return f"the label {shown(name)} is not in Unicode's composed form, and would be another than in it; use NFC"
    return ""


def check_label(spec: TaskSpec, cell: Any, found: bool, first: Any) -> str:
    """What is wrong with a label, beside what the reader of rows sees.

    Args:
        found: whether the labels were found in the training data; then they are names, never ids.
        first: the first label of the file, which the others are like.
    """
    if spec.kind == "question-answering":
        return ""
    if cell is None:
        return "the label is missing; add it, or remove the row"
    if isinstance(cell, str) and not cell.strip() and spec.kind != "multi-label":
        return "the label is empty; add it, or remove the row"
    if spec.kind == "classification":
        if isinstance(cell, str) != isinstance(first, str):
            return f"the label {shown(cell)} is {_type(cell)}, and the first is {_type(first)}; write all the same way"
        return _check_class(spec, cell, found)
    if spec.kind == "token-classification" and isinstance(cell, str | list | tuple):
        return next((problem for tag in items_of(cell, "tags") if (problem := _check_tag(spec, tag, found))), "")
    if spec.kind == "multi-label":
        return next((problem for label in _labels_of(cell) if (problem := _check_name(label))), "")
    return ""


def _check_name(cell: Any) -> str:
    name = label_name(cell)
    if name is None:
        return f"the label {shown(cell)} is no name and no whole number; write it as one"
    return name_problem(name)


def _type(cell: Any) -> str:
    return "a text" if isinstance(cell, str) else "no text"


def _check_tag(spec: TaskSpec, tag: Any, found: bool) -> str:
    name = label_name(tag)
    if name is not None and (problem := name_problem(name)):
        return problem
    if name in spec.labels:
        return ""
    if name is not None and name.isdigit():
        # an id: the reader of rows says whether it is one of the labels'
        return f"the tag {shown(tag)} is an id; name the tags by id, with labels = [...] in a TOML file" * found
    rule = "no training row has it" if _TAG.fullmatch(str(tag)) else "tags are O, B-TYPE or I-TYPE (IOB2)"
    return f"the tag {shown(tag)} is unknown; {rule}"


def _check_class(spec: TaskSpec, cell: Any, found: bool) -> str:
    if problem := _check_name(cell):
        return problem
    name = str(label_name(cell))
    if not found or name in spec.labels:
        return ""
    if name.lower() in _NONE:
        return f"the label {shown(cell)} is no value; add the label, or remove the row"
    known = ", ".join(spec.labels[:20]) + ", …" * (len(spec.labels) > 20)
    return f"the label {shown(cell)} is unknown: no training row has it; it must be one of {known}"
