"""A console that prints text literally, on a terminal, in a pipe and in a notebook."""

from __future__ import annotations

from rich.console import Console

__all__ = ["make_console"]

_WIDE = 10_000
"""Columns of a pipe, whose reader wraps lines."""


class _PipedConsole(Console):
    """A console whose reader may leave: Rich would end the program with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console(stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console without markup, highlighting or wrapping.

    A terminal wraps long lines itself, so that they can be copied. Rich honours ``NO_COLOR``.
    """
    console = _PipedConsole(stderr=stderr, quiet=quiet, soft_wrap=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console
