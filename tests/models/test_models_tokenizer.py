"""A tokenizer that does not fit its model, or the texts, is refused before any training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import BertWordPieceTokenizer

from farsearch.errors import BadInput, MissingResource
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import check_words, load_tokenizer
from tests.tiny import make_vocabulary


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A tiny BERT that a test may change."""
    return shutil.copytree(tiny_bert, tmp_path / "model")


def _settings(folder: Path, **values: object) -> None:
    path = folder / "tokenizer_config.json"
    kept = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in kept.items() if value is not None}))


def _vocabulary(folder: Path, words: tuple[str, ...], lowercase: bool = True) -> None:
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase).save(str(folder / "tokenizer.json"))


def _cased(lowercase: bool) -> Callable[[Path], None]:
    words = tuple(word.title() if i % 2 else word for i, word in enumerate(make_vocabulary()[90:]))
    return lambda folder: _vocabulary(folder, (*make_vocabulary()[:90], *words), lowercase)


def _no_special_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (
            lambda folder: _vocabulary(folder, (*make_vocabulary(), "qqq")),
            "tokens, the model embeddings for",
        ),
        (lambda folder: _settings(folder, pad_token="[MASK]"), "pads with token 4, the model expects 0"),
        (lambda folder: _settings(folder, pad_token=None), "has no padding token"),
        (_no_special_tokens, "puts no special token before a text"),
        (_cased(lowercase=True), "lower-cases texts, but its vocabulary has capital letters"),
    ],
    ids=["more tokens than rows", "another padding", "no padding", "no special tokens", "cased but lower-cased"],
)
def test_a_tokenizer_of_another_model_is_refused(folder: Path, damage: Callable[[Path], None], rule: str) -> None:
    """It would silently index beyond the table, or train on tokens that the model does not know."""
    damage(folder)
    with pytest.raises(BadInput, match=rule):
        load_tokenizer(resolve_model(str(folder)))


def test_a_cased_tokenizer_is_not_changed(folder: Path) -> None:
    """Capital letters are in the vocabulary, and preserved."""
    _cased(lowercase=False)(folder)
    load_tokenizer(resolve_model(str(folder)))


@pytest.mark.parametrize("word", ["да", "明", "👍"])
def test_texts_of_unknown_tokens_are_refused(folder: Path, word: str) -> None:
    """For instance texts in a script that the model was not trained on."""
    tokenizer = load_tokenizer(resolve_model(str(folder)))
    check_words(tokenizer, [("good film",), (word,)], "model")
    with pytest.raises(BadInput, match="does not know 100% of the tokens"):
        check_words(tokenizer, [(f"{word} {word}",), (word,)], "model")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"model": {"type": "WordPiece", "vocab": []}}',
        json.dumps(
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+"}, "behavior": "Isolated", "invert": False}}
        ),
    ],
)
def test_a_damaged_tokenizer_gives_one_line(folder: Path, text: str) -> None:
    """For any exception of the tokenizers library."""
    path = folder / "tokenizer.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), **json.loads(text)}) if text.startswith('{"p') else text
    )
    with pytest.raises(MissingResource) as caught:
        load_tokenizer(resolve_model(str(folder)))
    assert "\n" not in str(caught.value)
