"""Token ids: special tokens, cutting, and the default length."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from farsearch.tasks import Examples
from farsearch.tasks.encode import default_max_length, encode


@pytest.fixture(scope="module", params=[512, 64])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that puts [CLS] and [SEP] around a text."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4, "bad": 5}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=request.param,
    )


@pytest.mark.parametrize(("words", "expected"), [(1, 8), (6, 8), (7, 16), (14, 16), (15, 24), (126, 128), (500, 128)])
def test_default_length(tokenizer: PreTrainedTokenizerFast, words: int, expected: int) -> None:
    """The longest text with its two special tokens, up to a multiple of 8, at most 128 and what the model takes."""
    length = default_max_length(tokenizer, ["bad", " ".join(["good"] * words), "good bad"])
    assert length == min(expected, tokenizer.model_max_length)


def test_default_length_looks_at_every_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """The longest text counts wherever it stands in a file of many."""
    texts = ["bad"] * 9000
    texts[8999] = "good " * 20
    assert default_max_length(tokenizer, texts) == 24


def test_encode_cuts_and_does_not_pad(tokenizer: PreTrainedTokenizerFast) -> None:
    """Rows keep their own lengths, a long one is cut with its last special token in place, and order is kept."""
    encoded = encode(tokenizer, Examples(("good bad", "bad " * 30, "what"), (1, 0, 1)), 8)
    assert encoded.input_ids == ((2, 4, 5, 3), (2, 5, 5, 5, 5, 5, 5, 3), (2, 1, 3))
    assert encoded.lengths == (4, 8, 3)
    assert encoded.labels == (1, 0, 1)
    assert len(encoded) == 3
