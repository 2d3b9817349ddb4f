"""Values in messages: a user's bounded in length and without control characters, seconds in a fitting unit."""

from typing import Any, List

__all__ = ["PATH", "shown", "shown_seconds", "shown_text"]

_MOST = 60
"""Characters of a quoted value."""

PATH = 400
"""Characters of a quoted path, whose end matters."""


def shown(value: Any, most: int = _MOST) -> str:
    """Return at most about ``most`` characters of a value's ``repr``, without computing the rest of it.

    A value nested by YAML's aliases can have more leaves than fit into memory.
    """
    parts: List[str] = []
    _write(value, parts, most, 0)
    text = "".join(parts)
    # a text that was cut already ends with an ellipsis and its quote
    return text if isinstance(value, str) or len(text) <= most else text[:most] + "\u2026"


def shown_text(text: str, most: int = _MOST) -> str:
    """Return a text without quotes, cut to ``most`` characters, with control characters escaped."""
    cut = text if len(text) <= most else text[:most] + "\u2026"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cut)


def shown_seconds(seconds: float) -> str:
    """Return ``41 ms``, ``9.9 s``, ``48.3 s`` or ``204 s``; only 0 is shown as 0."""
    size = abs(seconds)
    if 0.0 < size < 0.1:
        return "{:.{}f} ms".format(1000.0 * seconds, 0 if size >= 0.01 else 1 if size >= 0.001 else 2)
    return "{:.{}f} s".format(seconds, 1 if size < 100.0 else 0)


def _write(value: Any, parts: List[str], left: int, depth: int) -> int:
    """Append the ``repr`` of a value in at most ``left`` characters; return the number of characters left."""
    if left <= 0:
        return left
    if isinstance(value, dict) and depth < 8:
        return _write_items(value, parts, left, depth, "{", "}")
    if isinstance(value, (list, tuple)) and depth < 8:
        brackets = "[]" if isinstance(value, list) else "()"
        return _write_items(value, parts, left, depth, brackets[0], brackets[1])
    text = _plain(value, max(left, 1))
    parts.append(text)
    return left - len(text)


def _write_items(values: Any, parts: List[str], left: int, depth: int, opening: str, closing: str) -> int:
    parts.append(opening)
    left -= 1
    for i, key in enumerate(values):
        if left <= 0:
            parts.append("\u2026")
            break
        if i:
            parts.append(", ")
            left -= 2
        left = _write(key, parts, left, depth + 1)
        if isinstance(values, dict):
            parts.append(": ")
            left = _write(values[key], parts, left - 2, depth + 1)
    parts.append(closing)
    return left - 1


def _plain(value: Any, most: int) -> str:
    """The ``repr`` of a value that is no container."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else value[:most] + "\u2026")
    if isinstance(value, (bytes, bytearray)):
        return repr(bytes(value[:most]))
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of {} bits".format(value.bit_length())
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return "\u2026"
    return repr(value)
