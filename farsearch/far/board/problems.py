"""What can be wrong with a user's rows, as one line that names the value, the rule and the fix."""

import json
from typing import Any, Iterable

from ..display import shown, shown_text
from .near_names import did_you_mean

__all__ = ["RowProblem", "check_characters", "json_reason", "missing_column"]

_LISTED = 160
"""Characters of the names of columns that a message lists."""

_LONGEST = 1000000
"""Characters of a text: what is longer is a quote that was never closed, or no text."""


class RowProblem(ValueError):
    """A row that breaks the format; one line that names file, line, rule and fix."""


def check_characters(text: str, what: str) -> None:
    """Refuse a text that is too long to be one, or holds what no text has; ``what`` is what messages call it."""
    if len(text) > _LONGEST:
        raise RowProblem(
            "{} has {:,} characters; a text has at most {:,}: cut it, or look for a quote that is not closed".format(
                what, len(text), _LONGEST
            )
        )
    if "\0" in text:
        raise RowProblem("{} holds a NUL character, which no text has: remove it".format(what))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem("{} holds half a character (a lone surrogate): remove it".format(what)) from error


def missing_column(column: str, columns: Iterable[Any]) -> str:
    """What a message says of a column that is not there."""
    there = [str(name) for name in columns]
    hint = did_you_mean(column, there)
    listed = ", ".join(there) or "none"
    return "there is no column {} among {}{}".format(
        shown(column), shown_text(listed, _LISTED), " ({})".format(hint) if hint else ""
    )


def json_reason(error: Exception) -> str:
    """Return why a text could not be read as JSON, TOML or YAML."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return "{} at character {}".format(error.msg, error.pos + 1)
    return str(error).split("\n")[0].split("; use sys.")[0]
