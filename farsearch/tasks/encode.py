"""Encode the rows of a task as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from farsearch.runtime.encoding import Encoded, encode
from farsearch.runtime.task import Rows, Task
from farsearch.tasks.spec import Examples

__all__ = ["Encoded", "default_max_length", "encode_examples"]

_LONGEST: Mapping[str, int] = MappingProxyType({"question-answering": 384})
"""Default maximum of tokens: for question answering that of a window in the BERT paper's code, else 128."""
_OTHERS = 128
_MULTIPLE = 8


def default_max_length(tokenizer: Any, examples: Examples, task: Task, limit: int) -> int:
    """Return the number of tokens of the longest row, special ones included, rounded up to a multiple of 8.

    It is at most 128, or 384 for question answering, and at most ``limit``.

    Args:
        tokenizer: a fast tokenizer of transformers.
        examples: the whole training file, so that the result does not depend on the sample.
        limit: maximum tokens of the model.
    """
    most = min(limit, int(tokenizer.model_max_length), _LONGEST.get(task.kind, _OTHERS))
    longest = max(encode_examples(tokenizer, examples, task, most).lengths, default=_MULTIPLE)
    return min(most, -(-longest // _MULTIPLE) * _MULTIPLE)


def encode_examples(tokenizer: Any, examples: Examples, task: Task, max_length: int, segments: bool = False) -> Encoded:
    """Encode rows as features of at most ``max_length`` tokens, special ones included; see ``runtime.encoding``.

    Args:
        tokenizer: a fast tokenizer of transformers.
        segments: whether the model has segment ids.
    """
    return encode(tokenizer, Rows(examples.texts, examples.answers), task, max_length, segments)
