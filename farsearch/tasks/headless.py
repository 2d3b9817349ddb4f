"""Detect tables without a header, and suggest names for their columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean

__all__ = ["is_row", "suggested_names"]

_NUMBER = re.compile(r"\s*[+-]?\d+([.,]\d+)?\s*")

_NAME_WORDS = 5
"""Maximum words of a column's name."""

_TEXT_WORDS = 2.5
"""Minimum mean number of words of a text."""


def is_row(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a first line has a number, a cell too long for a name, or one that its column repeats."""
    return any(
        _NUMBER.fullmatch(cell)
        or len(cell.split()) > _NAME_WORDS
        or (cell and any(len(row) > i and row[i] == cell for row in rows))
        for i, cell in enumerate(header)
    )


def suggested_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """Suggest names for the columns of rows: label for the fewest distinct cells, texts for the most words.

    A constant column is no label.
    """
    columns = list(zip(*(row for row in rows if len(row) == len(rows[0])), strict=True))
    different = [len(set(column)) for column in columns]
    places = sorted(
        range(len(columns)),
        key=lambda i: (different[i] == 1 and max(different) > 1, different[i], mean(map(len, columns[i]))),
    )
    words = {i: mean(len(cell.split()) for cell in columns[i]) for i in places[1:]}
    texts = sorted(i for i, number in words.items() if number >= _TEXT_WORDS)[:2]
    texts = texts or sorted(places[1:], key=lambda i: -words[i])[:1]
    names = [f"column{i + 1}" for i in range(len(columns))]
    for place, name in zip(texts, ("text",) if len(texts) == 1 else ("text1", "text2"), strict=False):
        names[place] = name
    if places:
        names[places[0]] = "label"
    return names
