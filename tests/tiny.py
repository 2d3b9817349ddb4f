"""Tiny models made on the spot, so that tests need no download: whole models in the format of ``save_pretrained``."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import torch
import transformers
from tokenizers import BertWordPieceTokenizer

__all__ = ["make_bert", "make_distilbert", "make_vocabulary"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = ".,!?'-"
_WORDS = 240
"""Whole words in the vocabulary; any other word is spelt out in letters."""

_POSITIONS = 128


def make_vocabulary() -> list[str]:
    """Special tokens, marks, letters (whole and as the middle of a word), and the reviews' most frequent words."""
    text = resources.files("farsearch.tasks").joinpath("reviews", "train.tsv").read_text(encoding="utf-8")
    counted = Counter(re.findall(r"[a-z]{2,}", text.lower()))
    words = sorted(counted, key=lambda word: (-counted[word], word))[:_WORDS]
    return [*_SPECIAL, *_MARKS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *sorted(words)]


def _save(model: transformers.PreTrainedModel, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    vocabulary = make_vocabulary()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True).save(str(folder / "tokenizer.json"))
    names = ("pad", "unk", "cls", "sep", "mask")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _POSITIONS,
        **{f"{name}_token": token for name, token in zip(names, _SPECIAL, strict=True)},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def make_bert(folder: Path, seed: int = 0) -> Path:
    """A BERT of 2 layers, hidden size 32, 64 neurons a layer, with random weights and a fast tokenizer."""
    config = transformers.BertConfig(
        vocab_size=len(make_vocabulary()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        max_position_embeddings=_POSITIONS,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return _save(transformers.BertModel(config), folder)


def make_distilbert(folder: Path, seed: int = 0) -> Path:
    """A DistilBERT of 2 layers, hidden size 32, 64 neurons a layer, with random weights and a fast tokenizer."""
    config = transformers.DistilBertConfig(
        vocab_size=len(make_vocabulary()),
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        dropout=0.1,
        attention_dropout=0.1,
        seq_classif_dropout=0.1,
        max_position_embeddings=_POSITIONS,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return _save(transformers.DistilBertModel(config), folder)
