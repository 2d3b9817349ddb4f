"""Rows of a task as token ids, tokenised once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from farsearch.runtime.encoding import Encoded, encode
from farsearch.runtime.task import Rows, Task
from farsearch.tasks.spec import Examples

__all__ = ["Encoded", "default_max_length", "encode_examples"]

_LONGEST: Mapping[str, int] = MappingProxyType({"question-answering": 384})
"""Tokens at most, unless a user asks for more: of a window of a context as the BERT paper's code has it, else 128."""
_OTHERS = 128
_MULTIPLE = 8


def default_max_length(tokenizer: Any, examples: Examples, task: Task, limit: int) -> int:
    """Tokens of the longest row, special ones included, rounded up to a multiple of 8.

    At most 128, or 384 where contexts are searched for answers, and at most ``limit``.

    Args:
        tokenizer: a fast tokenizer of transformers.
        examples: those of the whole training file, so that no draw of a sample changes it.
        limit: tokens that the model takes.
    """
    most = min(limit, int(tokenizer.model_max_length), _LONGEST.get(task.kind, _OTHERS))
    longest = max(encode_examples(tokenizer, examples, task, most).lengths, default=_MULTIPLE)
    return min(most, -(-longest // _MULTIPLE) * _MULTIPLE)


def encode_examples(tokenizer: Any, examples: Examples, task: Task, max_length: int, segments: bool = False) -> Encoded:
    """Rows as features of at most ``max_length`` tokens, special ones among them; see ``runtime.encoding``.

    Args:
        tokenizer: a fast tokenizer of transformers.
        segments: whether the model is told which text of a pair a token is of.
    """
    return encode(tokenizer, Rows(examples.texts, examples.answers), task, max_length, segments)
