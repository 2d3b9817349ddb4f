"""Which columns of a user's file hold the texts and the label, and which ones are left over."""

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
"""Names of the two texts of a row, as GLUE's, SQuAD's and other common data sets have them."""

_TEXTS = ("text", "sentence", "tokens", "words")
_TAGS = ("tags", "ner_tags")
_LABELS = ("label", "labels", "score", *_TAGS, "answers", "answer", "gold_label", "is_duplicate", "Quality")
"""Columns that are taken where the user names none, in this order."""

_START = "answer_start"
"""Column of the first character of an answer, read beside the label's."""

_ROWS = 100
"""Rows that are looked at for texts in an unused column."""
_WORDS = 3.0
"""A column of texts has at least so many words in a row, in the mean."""


class Columns(NamedTuple):
    """The columns of the texts, one or two, and that of what is learned."""

    texts: tuple[str, ...]
    label: str


def find_columns(columns: Sequence[str], texts: tuple[str, ...] | None, label: str | None) -> Columns:
    """Return the columns that are read: as named, else those of a usual name, a known pair before one text.

    Args:
        columns: of the file.
        texts, label: as the user names them; None to find them. What is not found is ``text`` or ``label``, which the
            file then lacks.
    """
    if texts is not None:
        return Columns(texts, label or _label_beside(columns, texts) or "label")
    there = set(columns) - {label}
    if label in _TAGS or (label is None and _label_beside(columns, ()) in _TAGS):
        candidates: list[tuple[str, ...]] = [("tokens",), ("words",), *((name,) for name in _TEXTS)]
    else:
        candidates = [pair for pair in _PAIRS if label or pair[1] not in _LABELS or _label_beside(columns, pair)]
        candidates += ((name,) for name in _TEXTS)
    found = next((names for names in candidates if there.issuperset(names)), ("text",))
    return Columns(found, label or _label_beside(columns, found) or "label")


def _label_beside(columns: Sequence[str], texts: Sequence[str]) -> str | None:
    """The usual column of a label, which is none of the texts'; None where there is none."""
    return next((name for name in _LABELS if name in columns and name not in texts), None)


def unused_columns(columns: Iterable[str], used: Columns, cells: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the columns that nothing is read from, those with texts first and marked: ``title (text)``.

    Args:
        cells: of the rows, of which the first ones are looked at.
    """
    others = [column for column in columns if column and column not in (*used.texts, used.label, _START)]
    with_texts = [column for column in others if _has_texts(row.get(column) for row in islice(cells, _ROWS))]
    return (*(f"{column} (text)" for column in with_texts), *(each for each in others if each not in with_texts))


def _has_texts(cells: Iterable[Any]) -> bool:
    words = [len(cell.split()) for cell in cells if isinstance(cell, str) and cell.strip()]
    return bool(words) and sum(words) / len(words) >= _WORDS
