"""Whether the first line of a table is a row like the others, and which names its columns could have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean

__all__ = ["is_row", "suggested_names"]

_NUMBER = re.compile(r"\s*[+-]?\d+([.,]\d+)?\s*")

_NAME_WORDS = 5
"""Words that the name of a column has at most."""

_TEXT_WORDS = 2.5
"""Words that a text has at least, on average."""


def is_row(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line has a number, a cell that is too long to be a name, or one that its column has again."""
    return any(
        _NUMBER.fullmatch(cell)
        or len(cell.split()) > _NAME_WORDS
        or (cell and any(len(row) > i and row[i] == cell for row in rows))
        for i, cell in enumerate(header)
    )


def suggested_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of rows: the label is where the fewest different cells are, texts where the words are.

    A column that is the same in all rows is no label.
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
