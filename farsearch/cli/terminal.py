"""What is printed, on a terminal and in a pipe: plain text is never wrapped, coloured or read as markup by accident.

It is printed whatever the encoding of the output is, and if there is none.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from farsearch.records import StudySnapshot

__all__ = ["estimates_for", "make_console", "prepare_streams", "print_rows"]

_WIDE = 10_000
"""Columns of a pipe: its reader wraps where it likes."""


_PLAIN = {
    "−": "-", "–": "-", "—": "-", "─": "-", "│": "|", "├": "|", "└": "|", "…": "...", "×": "x", "±": "+-", "·": "-",
    "→": "->", "←": "<-", "²": "^2",
}  # fmt: skip
"""What stands for characters of ours that an encoding lacks; '?' stands for others."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable: closed ones lead nowhere, and no character is refused.

    The next file that is opened, a database for example, would get the number of a closed stream, and whatever a
    library prints there.
    """
    codecs.register_error("farsearch.plain", _plain)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "rb" if number == 0 else "wb", closefd=False)))
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="farsearch.plain")


def make_console(stderr: bool = False) -> Console:
    """A console that takes text literally. A terminal wraps long lines by itself, so that what it shows can be copied.

    ``NO_COLOR`` is honoured by rich.
    """
    from rich.console import Console

    class PipedConsole(Console):
        """A console whose reader may leave: Rich would end the program with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = PipedConsole(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def print_rows(rows: Sequence[dict[str, str]], title: str | None, empty: str) -> None:
    """A table on stdout; where there are no rows, the words ``empty``."""
    from farsearch.formatting import print_table

    console = make_console()
    if rows:
        print_table(rows, console, title)
    else:
        console.print(empty)


def estimates_for(snapshot: StudySnapshot) -> str:
    """What a table's heading says of its memory and time."""
    return f"memory and time estimated for {snapshot.settings.device}"
