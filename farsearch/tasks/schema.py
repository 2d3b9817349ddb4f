"""Infer the kind and the labels of a task from a user's rows, and check labels."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farsearch.far.display import shown
from farsearch.runtime.records import RowProblem
from farsearch.runtime.targets import (
    id_finder,
    label_name,
    labels_of,
    list_in,
    number_named,
    number_of,
    tags_of,
)
from farsearch.tasks.data import Kind, TaskSpec

__all__ = ["check_kind", "check_label", "find_kind", "find_labels", "name_problem"]

_MOST = 0.9
"""Minimum share of numbers or tags among the labels for their kind; the other rows are then errors."""

_NONE = {"", "nan", "null", "none", "na", "n/a", "nat", "-", "--", "?", "inf", "-inf", "<na>"}
"""Spellings of a missing value by programs."""

_TAG = re.compile(r"O|[BI]-\S+")
_SEPARATORS = (";", ",", "/")
"""Separators of labels in a cell other than |."""
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+|[+-]?[0-9]+")
_QUESTION = ("question", "context")
_WORDS = (("tokens",), ("words",))
_TAGS = ("tags", "ner_tags")
_ANSWERS = ("answers", "answer")


def _is_list(cell: Any) -> bool:
    return isinstance(cell, list | tuple) or list_in(cell) is not None


def find_kind(cells: Sequence[Mapping[str, Any]], texts: Sequence[str], label: str) -> Kind:
    """Infer the kind of a task from the cells of its rows.

    - token classification: columns with usual names of words and tags, lists of IOB2 tags, or lists beside lists of
      words
    - question answering: answers with positions, or columns ``question`` and ``context`` with answers in the contexts
    - multi-label: other lists, and names separated by ``|``
    - regression: numbers, at least one with a fraction
    - classification: everything else
    """
    labels = [row[label] for row in cells if row.get(label) is not None]
    dicts = sum(isinstance(cell, dict) for cell in labels)
    if (labels and dicts >= _MOST * len(labels)) or (tuple(texts) == _QUESTION and _are_answers(cells, label)):
        return "question-answering"
    tags = list(map(_tag_count, labels)) if len(texts) == 1 else []
    if tuple(texts) in _WORDS and label in _TAGS:
        return "token-classification"
    if max(tags, default=0) > 1 and sum(map(bool, tags)) >= _MOST * len(labels):
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
    """Whether the labels are answers to questions: by the name of their column, or because contexts contain them."""
    if label in _ANSWERS:
        return True
    rows = [(row.get(label), row.get(_QUESTION[1])) for row in cells]
    texts = [(cell, context) for cell, context in rows if isinstance(cell, str) and isinstance(context, str) and cell]
    inside = sum(cell in context for cell, context in texts)
    return inside >= _MOST * len(texts) and len({cell for cell, _ in texts}) > len(texts) / 2


def check_kind(kind: Kind, cells: Sequence[Any], name: str) -> None:
    """Raise for inferred classes that look like numbers or several labels.

    Args:
        cells: cells of the labels.
        name: name of the file, for messages.

    Raises:
        RowProblem: with the options for each reading.
    """
    counts = Counter(cell.strip() for cell in cells if isinstance(cell, str) and cell.strip())
    if kind != "classification" or len(counts) < 2:
        return
    keep = "or --kind classification if each is a class of its own"
    numbers = sum(count for label, count in counts.items() if _DECIMAL_COMMA.fullmatch(label))
    with_comma = [label for label in counts if "," in label]
    if with_comma and numbers >= _MOST * counts.total():
        example = shown(with_comma[0])
        raise RowProblem(
            f"{name}: labels such as {example} are numbers with a decimal comma, or several labels: add --kind "
            f"regression --decimal-comma, or --kind multi-label --label-separator ',', {keep}"
        )
    for separator in _SEPARATORS:
        several = [label for label in counts if separator in label]
        if several and _parts_recur(counts, separator):
            raise RowProblem(
                f"{name}: labels such as {shown(several[0])} look like several with {shown(separator)} between: add "
                f"--kind multi-label --label-separator '{separator}', {keep}"
            )


def _parts_recur(labels: Mapping[str, int], separator: str) -> bool:
    """Whether labels look like combinations: most parts of those with a separator occur in other labels too."""
    parts = {label: {part.strip() for part in label.split(separator)} for label in labels}
    counts = Counter(part for of_label in parts.values() for part in of_label)
    combined = {part for label, of_label in parts.items() if separator in label for part in of_label}
    return all(combined) and sum(counts[part] > 1 for part in combined) > len(combined) / 2


def _number(cell: Any) -> float | None:
    try:
        return number_of(cell)
    except RowProblem:
        return None


def _tag_count(cell: Any) -> int:
    """Number of tags in a cell; 0 if they are not all IOB2 tags."""
    if not isinstance(cell, str | list | tuple):
        return 0
    tags = _tags_of(cell)
    return len(tags) if all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags) else 0


def _tags_of(cell: Any) -> list[Any]:
    """The tags in a cell; none if it is invalid, which is an error when its row is read."""
    try:
        return tags_of(cell, "tags")
    except RowProblem:
        return []


def find_labels(kind: Kind, cells: Sequence[Any], separator: str | None = None) -> tuple[str, ...]:
    """Return the names of the labels in these cells: numbers in order, names alphabetically, of tags ``O`` first.

    Missing values are no labels.

    Args:
        separator: between the labels of a cell.

    Raises:
        RowProblem: for two spellings of one number.
    """
    names: set[str] = set()
    for cell in cells:
        names.update(name for name in _names(kind, cell, separator) if name is not None and name.strip())
    if kind == "token-classification":
        return tuple(sorted(names, key=lambda tag: ("", "") if tag == "O" else (tag[2:], tag[:2])))
    real = {name for name in names if not _no_value(name)}
    if _has_unlabelled(real):
        real = {name for name in real if number_named(name) != -1}
    _check_spellings(real)
    if real and all(number_named(name) is not None for name in real):
        return tuple(sorted(real, key=lambda name: (float(name), name)))
    return tuple(sorted(real))


def _no_value(name: str) -> bool:
    return name.strip().lower() in _NONE


def _has_unlabelled(names: set[str]) -> bool:
    """Whether -1 is a missing label, as in GLUE's test sets: beside names, or beside ids from 0."""
    numbers = [number_named(name) for name in names]
    values = {number for number in numbers if number is not None}
    return -1 in values and (None in numbers or (0 in values and all(number >= -1 for number in values)))


def _check_spellings(names: set[str]) -> None:
    spellings: dict[Any, str] = {}
    for name in sorted(names):
        number = number_named(name)
        if number is not None and spellings.setdefault(number, name) != name:
            raise RowProblem(
                f"the labels {shown(spellings[number])} and {shown(name)} are the same number; write both the same way"
            )


def _names(kind: Kind, cell: Any, separator: str | None) -> list[str | None]:
    if kind in ("regression", "question-answering"):
        return []
    if kind == "classification":
        return [label_name(cell)]
    if kind == "multi-label":
        return [label_name(label) for label in _labels_of(cell, separator)]
    return [name for name in map(label_name, _tags_of(cell)) if name is not None and _TAG.fullmatch(name)]


def _labels_of(cell: Any, separator: str | None) -> list[Any]:
    """The labels in a cell; none if it is invalid, which is an error when its row is read."""
    try:
        return labels_of(cell, separator)
    except RowProblem:
        return []


def name_problem(name: str) -> str:
    """Return an error message for a label whose name is easily confused or not printable; empty for others."""
    hidden = next((character for character in name if not character.isprintable()), None)
    if hidden is not None:
        return f"the label {shown(name)} holds a character that can't be seen (U+{ord(hidden):04X}); remove it"
    if name != name.strip():
        return f"the label {shown(name)} has spaces around it, and would be another than without; remove them"
    if unicodedata.normalize("NFC", name) != name:
        return f"the label {shown(name)} is not in Unicode's composed form, and would be another than in it; use NFC"
    return ""


def check_label(spec: TaskSpec, cell: Any, inferred: bool, first: Any) -> str:
    """Return an error message for an inconsistent label that the reader of rows accepts; empty for others.

    Args:
        inferred: whether the labels were inferred from the training data; then they are names, never ids.
        first: the first label of the file, whose type the others must have.
    """
    if spec.kind == "question-answering":
        return ""
    if cell is None or cell != cell:
        return "the label is missing; add it, or remove the row"
    if isinstance(cell, str) and not cell.strip() and spec.kind != "multi-label":
        return "the label is empty; add it, or remove the row"
    if spec.kind == "classification":
        if isinstance(cell, str) != isinstance(first, str):
            return f"the label {shown(cell)} is {_type(cell)}, and the first is {_type(first)}; write all the same way"
        return _check_class(spec, cell, inferred)
    if spec.kind == "token-classification" and isinstance(cell, str | list | tuple):
        return next((problem for tag in _tags_of(cell) if (problem := _check_tag(spec, tag, inferred))), "")
    if spec.kind == "multi-label":
        labels = _labels_of(cell, spec.label_separator)
        return next((problem for label in labels if (problem := _check_class(spec, label, inferred))), "")
    if isinstance(cell, str) and not spec.decimal_comma and "," in cell and _DECIMAL_COMMA.fullmatch(cell):
        return f"the label {shown(cell)} has a decimal comma; write a point, or add --decimal-comma"
    return ""


def _check_name(cell: Any) -> str:
    name = label_name(cell)
    if name is None:
        return f"the label {shown(cell)} is neither a name nor a whole number; write it as one"
    return name_problem(name)


def _type(cell: Any) -> str:
    return "a text" if isinstance(cell, str) else "no text"


def _check_tag(spec: TaskSpec, tag: Any, inferred: bool) -> str:
    name = label_name(tag)
    if name is not None and (problem := name_problem(name)):
        return problem
    if name in spec.labels:
        return ""
    if name is not None and name.isdigit():
        # the reader of rows checks the range of ids
        return f"the tag {shown(tag)} is an id; name all tags by id, with --label for each" * inferred
    rule = "no training row has it" if _TAG.fullmatch(str(tag)) else "tags are O, B-TYPE or I-TYPE (IOB2)"
    return f"the tag {shown(tag)} is unknown; {rule}"


@functools.lru_cache
def _finder(labels: tuple[str, ...]) -> Callable[[Any], int | None] | None:
    """``id_finder`` of labels with a numeric name, which accepts no ids; None for other labels."""
    return id_finder(labels) if any(number_named(label) is not None for label in labels) else None


def _is_number_of(name: str, labels: tuple[str, ...]) -> bool:
    finder = _finder(labels)
    return finder is not None and finder(name) is not None


def _check_class(spec: TaskSpec, cell: Any, inferred: bool) -> str:
    if problem := _check_name(cell):
        return problem
    name = str(label_name(cell))
    if name in spec.labels or (number_named(name) is not None and _is_number_of(name, spec.labels)):
        return ""
    if _no_value(name) or (number_named(name) == -1 and _has_unlabelled({name, *spec.labels})):
        keep = "" if not inferred else "; if it is one, name all labels with --label"
        return f"the label {shown(cell)} is no value; add the label, or remove the row (--skip-bad-rows){keep}"
    if not inferred:
        return ""
    known = ", ".join(spec.labels[:20]) + ", …" * (len(spec.labels) > 20)
    return f"the label {shown(cell)} is unknown: no training row has it; it must be one of {known}"
