"""The tokenizer of a bundle, and the proof that it is the one of the workstation.

A tokenizer's file is younger than the libraries of many boards, which then can't read it, or read it otherwise. So the
bundle carries sentences with the token ids that they must have, and the plain vocabulary for the older way.
"""

import os
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from ..display import shown_text
from .opened import BundleProblem, Opened

__all__ = ["VOCABULARY", "load_tokenizer", "token_ids", "tokenizer_panics"]

VOCABULARY = "vocab.txt"
"""One word piece a line, in the order of their ids; only word-piece tokenizers have it."""

_AT_ONCE = 4096
"""Texts tokenised at once: bounds the memory that the tokenizer's own records take."""


def token_ids(tokenizer: Any, texts: Sequence[str], max_length: int) -> List[List[int]]:
    """Token ids of each text, cut to ``max_length`` tokens with the special ones in place."""
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


def load_tokenizer(bundle: Opened) -> Any:
    """The tokenizer that gives each of the bundle's sentences the ids that the workstation gave it.

    Raises:
        BundleProblem: when none of the ways to make one does.
    """
    says = bundle.phase["tokenizer"]
    texts = [text for text, _ in says["proof"]]
    expected = [list(ids) for _, ids in says["proof"]]
    found = []
    for way, make in _ways(bundle, says):
        try:
            with tokenizer_panics():
                tokenizer = make()
                same = token_ids(tokenizer, texts, bundle.phase["max_length"]) == expected
        except Exception as error:  # an old library fails in many ways on a younger file
            reason = str(error).strip().split("\n")[0]
            found.append("{}: {}".format(way, shown_text(reason, 80) or type(error).__name__))
            continue
        if same:
            return tokenizer
        found.append("{}: other token ids than the bundle's".format(way))
    raise BundleProblem(
        "{} has no tokenizer that this machine's transformers can use ({}); install a newer transformers".format(
            bundle.folder, "; ".join(found)
        )
    )


@contextmanager
def tokenizer_panics() -> Iterator[None]:
    """Turn a panic of the tokenizers' Rust code into a ValueError, and drop what it writes to stderr.

    It panics where a regular expression takes too many steps on a text. The exception derives from BaseException.
    """
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("the tokenizer fails: {}".format(shown_text(str(error), 120))) from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _ways(bundle: Opened, says: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Any]]]:
    """How the tokenizer may be made, the best way first."""
    import transformers

    special = dict(says["special"])
    yield (
        "tokenizer.json",
        lambda: transformers.PreTrainedTokenizerFast(tokenizer_file=bundle.path("model/tokenizer.json"), **special),
    )
    vocabulary = bundle.path("model/" + VOCABULARY)
    if os.path.isfile(vocabulary):
        words = dict(special, do_lower_case=says["lower_case"])
        for name in ("BertTokenizerFast", "BertTokenizer"):
            if hasattr(transformers, name):
                yield name, partial(getattr(transformers, name), vocabulary, **words)
