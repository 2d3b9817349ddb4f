"""The proof that a tokenizer is the one of the workstation: sentences of the bundle with their token ids.

The libraries of many boards are too old to read a tokenizer's file, or read it differently.
"""

import os
from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator, List, Sequence, Tuple

from ..far.display import shown_text
from .bundle_files import BundleFiles, BundleProblem

__all__ = ["VOCABULARY", "proven_tokenizer", "token_ids", "tokenizer_panics"]

VOCABULARY = "vocab.txt"
"""File with one word piece per line, in the order of their ids; only word-piece tokenizers have it."""

_AT_ONCE = 4096
"""Texts tokenised at once: bounds the memory of the tokenizer's own records."""


def token_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> List[List[int]]:
    """Return the token ids of each text, truncated to ``max_length`` tokens, special ones included."""
    ids: List[List[int]] = []
    for start in range(0, len(texts), _AT_ONCE):
        batch = tokenizer(
            list(texts[start : start + _AT_ONCE]),
            add_special_tokens=True,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids += batch["input_ids"]
    return ids


def proven_tokenizer(bundle: BundleFiles, ways: Iterable[Tuple[str, Callable[[], Any]]], library: str) -> Any:
    """Return a tokenizer that gives each sentence of the bundle's proof its expected ids.

    Args:
        ways: names and functions of the ways to make it, the best first.
        library: name of the library that makes it, for the message.

    Raises:
        BundleProblem: when no way to make one does.
    """
    proof = bundle.phase["tokenizer"]["proof"]
    texts = [text for text, _ in proof]
    expected = [list(ids) for _, ids in proof]
    reasons = []
    for way, make in ways:
        try:
            with tokenizer_panics():
                tokenizer = make()
                same = token_ids(tokenizer, texts, bundle.phase["max_length"]) == expected
        except Exception as error:  # an old library fails in many ways on a newer file
            reason = str(error).strip().split("\n")[0]
            reasons.append("{}: {}".format(way, shown_text(reason, 80) or type(error).__name__))
            continue
        if same:
            return tokenizer
        reasons.append("{}: other token ids than the bundle's".format(way))
    raise BundleProblem(
        "{} has no tokenizer that this machine's {} can use ({}); install a newer {}".format(
            bundle.folder, library, "; ".join(reasons), library
        )
    )


@contextmanager
def tokenizer_panics() -> Iterator[None]:
    """Translate a panic of the tokenizers' Rust code into a ValueError, and discard its output on stderr.

    It panics when a regular expression takes too many steps on a text. The exception derives from BaseException.
    """
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("the tokenizer fails: {}".format(shown_text(str(error), 120))) from error
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
