"""Texts as token ids, tokenised once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from farsearch.far.board.tokens import token_ids
from farsearch.tasks.spec import Examples

__all__ = ["Encoded", "default_max_length", "encode"]

_LONGEST = 128
_MULTIPLE = 8


@dataclass(frozen=True)
class Encoded:
    """Rows of token ids, special tokens included, cut and not padded, with their class ids."""

    input_ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each row."""
        return tuple(len(row) for row in self.input_ids)


def default_max_length(tokenizer: Any, texts: Sequence[str]) -> int:
    """Tokens of the longest text, special ones included, rounded up to a multiple of 8, at most 128.

    At most what the model takes, too.

    Args:
        tokenizer: a fast tokenizer of transformers.
        texts: those of the whole training file, so that no draw of a sample changes it.
    """
    limit = min(_LONGEST, int(tokenizer.model_max_length))
    longest = max((len(row) for row in token_ids(tokenizer, texts, limit)), default=_MULTIPLE)
    return min(limit, -(-longest // _MULTIPLE) * _MULTIPLE)


def encode(tokenizer: Any, examples: Examples, max_length: int) -> Encoded:
    """Token ids of each text, cut to ``max_length`` tokens with the special ones in place.

    Args:
        tokenizer: a fast tokenizer of transformers.
    """
    ids = token_ids(tokenizer, examples.texts, max_length)
    return Encoded(tuple(tuple(row) for row in ids), examples.labels)
