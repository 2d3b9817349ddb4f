"""Infer the columns of texts and label of a user's file, and list its unused columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

__all__ = ["Columns", "find_columns", "unused_columns"]

_PAIRS = (
    ("question", "context"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("question", "passage"), ("question", "answer"), ("query", "passage"),
    ("query", "document"), ("query", "text"), ("claim", "evidence"), ("text1", "text2"), ("text_a", "text_b"),
    ("sentence_A", "sentence_B"), ("#1 String", "#2 String"), ("title", "text"), ("title", "body"),
    ("title", "content"), ("title", "abstract"), ("title", "description"), ("subject", "body"),
)  # fmt: skip
"""Column names of text pairs in GLUE, SQuAD and other common data sets."""

_TEXTS = ("text", "sentence", "tokens", "words")
_TAGS = ("tags", "ner_tags")
_LABELS = ("label", "labels", "score", *_TAGS, "answers", "answer", "gold_label", "is_duplicate", "Quality")
"""Default names of the label's column, in order of preference."""

_START = "answer_start"
"""Column of the position of an answer, read beside the label's."""

_ROWS = 100
"""Rows in which unused columns are searched for texts."""
_WORDS = 3.0
"""Minimum mean number of words of a column of texts."""


class Columns(NamedTuple):
    """The columns of the texts, one or two, and that of the label."""

    texts: tuple[str, ...]
    label: str


def find_columns(columns: Sequence[str], texts: tuple[str, ...] | None, label: str | None) -> Columns:
    """Return the columns to read: as named, else those of a usual name, a known pair before one text.

    Args:
        columns: columns of the file.
        texts, label: names by the user; None infers them. If no column has a usual name the result is ``text`` or
            ``label``, which the file then lacks.
    """
    if texts is not None:
        return Columns(texts, label or _label_beside(columns, texts) or "label")
    available = set(columns) - {label}
    if label in _TAGS or (label is None and _label_beside(columns, ()) in _TAGS):
        candidates: list[tuple[str, ...]] = [("tokens",), ("words",), *((name,) for name in _TEXTS)]
    else:
        candidates = [pair for pair in _PAIRS if label or pair[1] not in _LABELS or _label_beside(columns, pair)]
        candidates += ((name,) for name in _TEXTS)
    inferred = next((names for names in candidates if available.issuperset(names)), ("text",))
    return Columns(inferred, label or _label_beside(columns, inferred) or "label")


def _label_beside(columns: Sequence[str], texts: Sequence[str]) -> str | None:
    """The first column with a usual name of a label that is no text column, else None."""
    return next((name for name in _LABELS if name in columns and name not in texts), None)


def unused_columns(columns: Iterable[str], used: Columns, cells: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the columns that are not read, those with texts first and marked: ``title (text)``.

    Args:
        cells: cells of the rows, of which the first 100 are inspected.
    """
    others = [column for column in columns if column and column not in (*used.texts, used.label, _START)]
    with_texts = [column for column in others if _has_texts(row.get(column) for row in islice(cells, _ROWS))]
    return (*(f"{column} (text)" for column in with_texts), *(column for column in others if column not in with_texts))


def _has_texts(cells: Iterable[Any]) -> bool:
    words = [len(cell.split()) for cell in cells if isinstance(cell, str) and cell.strip()]
    return bool(words) and sum(words) / len(words) >= _WORDS
