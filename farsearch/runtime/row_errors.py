"""Errors in a user's rows, each as one line with the value, the rule and a suggestion."""

import json
from typing import Any, Iterable

from ..far.display import shown, shown_text
from .near_names import did_you_mean

__all__ = ["RowProblem", "check_characters", "json_reason", "missing_column"]

_LISTED = 160
"""Characters of a list of columns in a message."""

_LONGEST = 1000000
"""Maximum characters of a text; longer ones are mostly an unclosed quote."""


class RowProblem(ValueError):
    """Invalid rows; the message is one line with file, line, rule and suggestion."""


def check_characters(text: str, what: str) -> None:
    """Raise for a text that is too long or has invalid characters.

    Args:
        what: name of the text in messages.

    Raises:
        RowProblem: for such a text.
    """
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
    """Return the message for a missing column, with the most similar one."""
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
