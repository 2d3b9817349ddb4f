"""Output on a terminal and in a pipe: plain text, never wrapped, coloured or read as markup, in any encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from farsearch.records import StudySnapshot

__all__ = ["estimates_for", "prepare_streams", "print_front", "print_rows", "print_verdicts", "waiting"]

_PLAIN = {
    "−": "-", "–": "-", "—": "-", "─": "-", "│": "|", "├": "|", "└": "|", "…": "...", "×": "x", "±": "+-", "·": "-",
    "→": "->", "←": "<-", "²": "^2",
}  # fmt: skip
"""Replacements of our characters that an encoding lacks; others become '?'."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


def prepare_streams() -> None:
    """Open closed standard streams to the null device, and replace characters that an encoding lacks.

    The next file that is opened, a database for example, would get the number of a closed stream, and the output of
    libraries with it.
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


def print_rows(rows: Sequence[dict[str, str]], title: str | None, empty: str) -> None:
    """Print a table on stdout; without rows, the text ``empty``."""
    from farsearch.api.console import make_console
    from farsearch.cli.table import print_table

    console = make_console()
    if rows:
        print_table(rows, console, title)
    else:
        console.print(empty)


def estimates_for(snapshot: StudySnapshot) -> str:
    """Return the part of a table's heading on its memory and time."""
    return f"memory and time estimated for {snapshot.settings.device}"


def print_front(snapshot: StudySnapshot) -> None:
    """Print the choices of the front and the baselines as a table."""
    from farsearch.comparison import full_fine_tuning_of
    from farsearch.formatting import COMPARED, ROWS_ERROR, baseline_rows, front_rows

    count = f"Pareto front of {len(snapshot.complete)} trained trials"
    parts = [count, estimates_for(snapshot), ROWS_ERROR, *([COMPARED] if full_fine_tuning_of(snapshot) else [])]
    print_rows(
        [*front_rows(snapshot), *baseline_rows(snapshot)], f"{snapshot.name}: {'; '.join(parts)}",
        f"no trial of {snapshot.name} is on the front yet",
    )  # fmt: skip


def print_verdicts(snapshot: StudySnapshot) -> None:
    """Print the verified points as a table, and how well the search ranked."""
    from farsearch.formatting import SEEDS_ERROR, constant_text
    from farsearch.significance import agreement_text, verdict_rows

    title = f"{snapshot.name}: verified with other seeds, {estimates_for(snapshot)}; {SEEDS_ERROR}"
    print_rows(verdict_rows(snapshot), title, f"nothing of {snapshot.name} is verified yet")
    for text in filter(None, [constant_text(snapshot), agreement_text(snapshot)]):
        click.echo(text)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Show the current activity on a terminal; print each note as a line in a pipe."""
    from farsearch.api.console import make_console

    console = make_console(stderr=True)
    with console.status(what) as status:
        yield status.update if console.is_terminal else console.print
