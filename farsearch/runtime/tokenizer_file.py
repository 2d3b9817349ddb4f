"""Checks of a ``tokenizer.json`` without its library: how much it lengthens a text, and the sizes of its parts."""

import binascii
import struct
from typing import Any, Dict, Iterator, List, Optional

from ..far.display import shown

__all__ = ["tokenizer_problem"]

_MOST_GROWTH = 16.0
"""Maximum factor by which all replacements together may lengthen a text: each may multiply it again."""
_MOST_PARTS = 100
"""Maximum number of normalisers, pre-tokenisers and post-processors, nested ones included."""
_MOST_TEXT = 1000
"""Maximum characters of a pattern, a replacement, a prefix or a token of a template."""
_MOST_WORD = 1000
"""Maximum characters of a word that is split into pieces, in quadratic time."""

_STEPS = ("normalizer", "pre_tokenizer", "post_processor")
_CHARACTERS = "precompiled_charsmap"
"""SentencePiece's table of replacements, which is large and has a check of its own."""
_MOST_CHARACTER = 100
"""Maximum bytes that replace a character; Unicode's longest compatibility form has 33."""


def tokenizer_problem(values: Any) -> Optional[str]:
    """Return why a tokenizer must not be used, in one line, or None.

    Args:
        values: the parsed JSON of ``tokenizer.json``.
    """
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        return "it is not a tokenizer"
    parts = 0
    growth = 1.0
    for step in _STEPS:
        for part in _parts(values.get(step)):
            parts += 1
            growth *= _growth(part)
            problem = _long_text(part)
            if problem:
                return "its {} has {}".format(step, problem)
            if parts > _MOST_PARTS:
                return "it has more than {} steps".format(_MOST_PARTS)
            if growth > _MOST_GROWTH:
                return "its {} makes a text more than {:g} times as long".format(step, _MOST_GROWTH)
    return _model_problem(values["model"])


def _parts(step: Any) -> Iterator[Dict[str, Any]]:
    """The objects of a step that have a type, from the outside in."""
    left: List[Any] = [step]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "type" in value:
                yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _growth(part: Dict[str, Any]) -> float:
    """The maximum factor by which this step lengthens a text."""
    content = part.get("content")
    if part["type"] == "Replace" and isinstance(content, str):
        pattern = part.get("pattern")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        # a regular expression can match each character, or the empty text before it
        return max(1.0, len(content) / float(len(text)) if isinstance(text, str) and text else len(content) + 1.0)
    return 1.0


def _long_text(part: Dict[str, Any]) -> Optional[str]:
    if _CHARACTERS in part and not _short_characters(part[_CHARACTERS]):
        return "{} that replaces a character by more than {} bytes".format(_CHARACTERS, _MOST_CHARACTER)
    left: List[Any] = [value for key, value in part.items() if key != _CHARACTERS]
    count = 0
    while left:
        value = left.pop()
        count += 1
        if count > _MOST_TEXT:
            return "more than {} settings in one step".format(_MOST_TEXT)
        if isinstance(value, str) and len(value) > _MOST_TEXT:
            return "a text of {:,} characters, {}".format(len(value), shown(value))
        if isinstance(value, (dict, list)):
            left.extend(value.values() if isinstance(value, dict) else value)
    return None


def _short_characters(table: Any) -> bool:
    """Whether SentencePiece's table (size of a trie, trie, texts that end with NUL) has short texts only."""
    if table is None:
        return True
    try:
        data = binascii.a2b_base64(table)
        (size,) = struct.unpack("<I", data[:4])
    except (TypeError, ValueError, binascii.Error, struct.error):
        return False
    return all(len(text) <= _MOST_CHARACTER for text in data[4 + size :].split(b"\0"))


def _model_problem(model: Dict[str, Any]) -> Optional[str]:
    for key, value in model.items():
        if isinstance(value, str) and len(value) > _MOST_TEXT:
            return "{} of its model has {:,} characters".format(shown(key), len(value))
    word = model.get("max_input_chars_per_word", 100)
    if type(word) is not int or not 0 < word <= _MOST_WORD:
        return "max_input_chars_per_word is {}; it must be from 1 to {}".format(shown(word), _MOST_WORD)
    return None
