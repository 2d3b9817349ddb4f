"""The tokenizer of a bundle by the tokenizers package alone, called as encoding.py calls a fast one of transformers."""

import os
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import tokenizers

from ..bundle_files import BundleFiles
from ..tokenizer_proof import VOCABULARY, proven_tokenizer

__all__ = ["FastTokenizer", "load_tokenizer"]

_STRATEGIES = {True: "longest_first", "only_second": "only_second"}
"""Names of transformers' ways to truncate in tokenizers."""


class TokenBatch(Dict[str, List[Any]]):
    """Encoded texts: lists by name, and the words and texts that tokens belong to."""

    def __init__(self, encodings: Sequence[Any], of: Sequence[int]) -> None:
        super().__init__()
        self._encodings = encodings
        self["input_ids"] = [encoding.ids for encoding in encodings]
        self["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        self["offset_mapping"] = [encoding.offsets for encoding in encodings]
        self["overflow_to_sample_mapping"] = list(of)

    def word_ids(self, i: int) -> List[Optional[int]]:
        """Return for each token of text ``i`` the index of its word, None for special tokens."""
        return list(self._encodings[i].word_ids)

    def sequence_ids(self, i: int) -> List[Optional[int]]:
        """Return for each token of text ``i`` 0 or 1, which of a pair it belongs to, None for special tokens."""
        return list(self._encodings[i].sequence_ids)


class FastTokenizer:
    """Calls a tokenizer of the tokenizers package with the arguments of transformers.

    Args:
        backend: a ``tokenizers.Tokenizer``.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        backend.no_padding()

    def __call__(
        self,
        texts: Sequence[Any],
        pairs: Optional[Sequence[str]] = None,
        *,
        truncation: Any,
        max_length: int,
        stride: int = 0,
        is_split_into_words: bool = False,
        add_special_tokens: bool = True,
        return_overflowing_tokens: bool = False,
        **_returned: bool,
    ) -> TokenBatch:
        """Encode texts, or pairs of texts, in at most ``max_length`` tokens each.

        Args:
            truncation: True to shorten the longer of a pair, or ``only_second``.
            stride: tokens that an overflowing part repeats.
            return_overflowing_tokens: also return the rest of long texts, as texts of their own.
        """
        self._backend.enable_truncation(max_length, stride=stride, strategy=_STRATEGIES[truncation])
        rows = list(texts) if pairs is None else list(zip(texts, pairs))
        found = self._backend.encode_batch(
            rows, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
        )
        encodings: List[Any] = []
        of: List[int] = []
        for i, encoding in enumerate(found):
            parts = [encoding] + (list(encoding.overflowing) if return_overflowing_tokens else [])
            encodings += parts
            of += [i] * len(parts)
        return TokenBatch(encodings, of)


def load_tokenizer(bundle: BundleFiles) -> FastTokenizer:
    """Return a tokenizer that gives each sentence of the bundle's proof its expected ids.

    Raises:
        BundleProblem: when no way to make one does.
    """
    tokenizer: FastTokenizer = proven_tokenizer(bundle, _ways(bundle), "tokenizers")
    return tokenizer


def _ways(bundle: BundleFiles) -> Iterator[Tuple[str, Callable[[], FastTokenizer]]]:
    """Names and functions of the ways to make the tokenizer, the best first."""
    path = bundle.path("model/tokenizer.json")
    yield "tokenizer.json", lambda: FastTokenizer(tokenizers.Tokenizer.from_file(path))
    vocabulary = bundle.path("model/" + VOCABULARY)
    if os.path.isfile(vocabulary):
        yield "BertWordPieceTokenizer", partial(_word_pieces, vocabulary, bundle.phase["tokenizer"])


def _word_pieces(vocabulary: str, settings: Dict[str, Any]) -> FastTokenizer:
    names = ("unk_token", "sep_token", "cls_token", "pad_token", "mask_token")
    special = {name: settings["special"][name] for name in names if name in settings["special"]}
    return FastTokenizer(tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=settings["lower_case"], **special))
