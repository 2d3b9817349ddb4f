"""What is printed, on a terminal and in a pipe: plain text is never wrapped, coloured or read as markup by accident."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from farsearch.records import StudySnapshot

__all__ = ["estimates_for", "make_console", "print_rows"]

_WIDE = 10_000
"""Columns of a pipe: its reader wraps where it likes."""


def make_console(stderr: bool = False) -> Console:
    """A console that takes text literally. A terminal wraps long lines by itself, so that what it shows can be copied.

    ``NO_COLOR`` is honoured by rich.
    """
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def print_rows(rows: Sequence[dict[str, str]], title: str | None, empty: str) -> None:
    """A table on stdout; where there are no rows, the words ``empty``."""
    from farsearch.tables import print_table

    console = make_console()
    if rows:
        print_table(rows, console, title)
    else:
        console.print(empty)


def estimates_for(snapshot: StudySnapshot) -> str:
    """What a table's heading says of its memory and time."""
    return f"memory and time estimated for {snapshot.settings.device}"
