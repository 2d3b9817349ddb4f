"""Tables for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from farsearch.formatting import Row, heads_of

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_table"]

_WORDS = (
    "model", "family", "device", "point", "also frozen", "note", "state", "what", "value", "figure", "basis", "source",
    "advantage",
)  # fmt: skip
"""Columns of text, aligned to the left."""
_LONG = ("value", "source")
"""Columns that may take several lines."""


def print_table(rows: Sequence[Row], console: Console, title: str | None = None) -> None:
    """Print ``rows`` to ``console`` as aligned columns with a rule under the heads.

    Cells of ``value`` and ``source`` are wrapped to the terminal, or to 120 columns; all others are printed in full.
    Not rich's ``Table``, which takes 3.5 times as long for a study of 5,000 trials (docs/log.md).
    """
    heads = heads_of(rows)
    widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    room = min(console.width, _WIDEST) - sum(width + 2 for head, width in widths.items() if head not in _LONG)
    for head in widths.keys() & {*_LONG}:
        widths[head] = min(widths[head], max(room - 2, _NARROW))
    if title is not None:
        console.print(title, style="bold")
    console.print(_line({head: head for head in heads}, widths), style="bold")
    console.print(f" {'─' * (sum(widths.values()) + 2 * len(widths) - 1)}")
    # one call per line would be slow for large tables
    for bold, group in groupby(rows, key=lambda row: row.get("state") == "front"):
        console.print("\n".join(_lines(row, widths) for row in group), style="bold" if bold else None)


_WIDEST = 120
"""Columns of a table with wrapped cells, as in a pipe."""

_NARROW = 20
"""Minimum width of a wrapped cell, in characters."""


def _lines(row: Row, widths: Mapping[str, int]) -> str:
    """Return a row of a table, in as many lines as its longest cell."""
    parts = {head: _wrapped(row[head], width) if head in _LONG else [row[head]] for head, width in widths.items()}
    count = max(map(len, parts.values()))
    return "\n".join(
        _line({head: part[i] if i < len(part) else "" for head, part in parts.items()}, widths) for i in range(count)
    )


def _line(cells: Row, widths: Mapping[str, int]) -> str:
    """Return one line of a table, text to the left, figures to the right."""
    padded = [cells[head].ljust(size) if head in _WORDS else cells[head].rjust(size) for head, size in widths.items()]
    return f" {'  '.join(padded)}".rstrip()


def _wrapped(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width) or [""]
