"""Load a model's tokenizer and check it against the model: a mismatch would train on noise without an error."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import transformers

from farsearch.errors import BadInput, MissingResource
from farsearch.models.config import load_config
from farsearch.models.reading import reading
from farsearch.models.source import ModelSource

__all__ = ["check_words", "load_tokenizer"]

_SAMPLE = 256
"""Texts that are inspected for unknown words."""


def load_tokenizer(source: ModelSource, kind: str = "classification") -> Any:
    """Return the fast tokenizer of a model for a kind of task.

    Raises:
        BadInput: when it does not fit the model.
        MissingResource: when it can't be read.
    """
    folder = source.folder("tokenizer")
    config = load_config(source)
    load = transformers.AutoTokenizer.from_pretrained
    options = {"local_files_only": True, "trust_remote_code": False, "config": config}
    with reading(source):
        tokenizer = load(folder, **options)
        if kind == "token-classification" and getattr(tokenizer, "add_prefix_space", None) is False:
            # tokens of such a tokenizer include the space before a word
            tokenizer = load(folder, add_prefix_space=True, **options)
    # without its files transformers makes a tokenizer with an empty vocabulary: every token would be [UNK]
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise MissingResource(
            f"the model {source.name!r} has no tokenizer; save it beside the model with the tokenizer's save_pretrained"
        )
    _check_pair(tokenizer, config, source.name)
    return tokenizer


def _check_pair(tokenizer: Any, config: Any, name: str) -> None:
    """Check that a tokenizer fits the model.

    Raises:
        BadInput: with the difference otherwise.
    """
    rows = int(config.vocab_size)
    if len(tokenizer) > rows:
        problem = f"has {len(tokenizer):,} tokens, the model embeddings for {rows:,}"
    elif tokenizer.pad_token_id is None:
        problem = "has no padding token"
    elif getattr(config, "pad_token_id", None) not in (None, tokenizer.pad_token_id):
        problem = f"pads with token {tokenizer.pad_token_id}, the model expects {config.pad_token_id}"
    elif tokenizer("a").input_ids[0] not in tokenizer.all_special_ids:
        problem = "puts no special token before a text"
    elif _loses_capitals(tokenizer):
        problem = "lower-cases texts, but its vocabulary has capital letters: do_lower_case is wrong or missing"
    else:
        return
    raise BadInput(
        f"the tokenizer of {name!r} {problem}; put the files of the model's own tokenizer beside it, or pass another "
        "model"
    )


def _loses_capitals(tokenizer: Any) -> bool:
    """Return whether a WordPiece vocabulary has words with capitals that the tokenizer never produces."""
    if type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
        return False
    special = set(tokenizer.all_special_tokens)
    vocabulary: Iterable[str] = tokenizer.get_vocab()
    capitals = (
        word for word in vocabulary if word.isascii() and word.istitle() and word.isalpha() and word not in special
    )
    sample = list(itertools.islice(capitals, 20))
    return bool(sample) and all(word not in tokenizer.tokenize(word) for word in sample)


def check_words(tokenizer: Any, texts: Sequence[Sequence[str]], name: str) -> None:
    """Check that at least half of the tokens of a task's first texts are in the vocabulary.

    Raises:
        BadInput: with the share of unknown tokens otherwise.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or not texts:
        return
    special = set(tokenizer.all_special_ids) - {unknown}
    parts = [part for row in texts[:_SAMPLE] for part in row]
    tokens = [token for token in itertools.chain.from_iterable(tokenizer(parts).input_ids) if token not in special]
    share = tokens.count(unknown) / len(tokens) if tokens else 0.0
    if share > 0.5:
        raise BadInput(
            f"the tokenizer of {name!r} does not know {share:.0%} of the tokens of the training texts; pass a model "
            "of the language and script of the texts"
        )
