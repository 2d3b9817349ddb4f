"""Tiny random models, so that tests need no download: in memory, or as folders of ``save_pretrained``."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import BertWordPieceTokenizer
from torch import nn

from farsearch.far.layout import ModelLayout
from farsearch.models.heads import Head
from farsearch.models.load import build_model

__all__ = ["FAMILIES", "make_bert", "make_config", "make_distilbert", "make_model", "make_vocabulary"]

FAMILIES = ("bert", "distilbert")

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = ".,!?'-"
_WORDS = 240
"""Number of whole words in the vocabulary; other words are split into letters."""


@cache
def make_vocabulary() -> tuple[str, ...]:
    """Return special tokens, punctuation, letters (first and inner ones), and the most frequent words of reviews."""
    text = (resources.files("farsearch.tasks") / "reviews" / "train.tsv").read_text(encoding="utf-8")
    counted = Counter(re.findall(r"[a-z]{2,}", text.lower()))
    words = sorted(counted, key=lambda word: (-counted[word], word))[:_WORDS]
    return (*_SPECIAL, *_MARKS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *sorted(words))


def make_config(
    family: str,
    *,
    layers: int = 2,
    hidden: int = 32,
    neurons: int = 64,
    heads: int = 2,
    vocabulary: int | None = None,
    positions: int = 128,
    dropout: float = 0.1,
) -> Any:
    """Return the transformers configuration of a small model of either family."""
    size = len(make_vocabulary()) if vocabulary is None else vocabulary
    if family == "bert":
        return transformers.BertConfig(
            vocab_size=size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=neurons,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=positions,
            pad_token_id=0,
        )
    return transformers.DistilBertConfig(
        vocab_size=size,
        dim=hidden,
        n_layers=layers,
        n_heads=heads,
        hidden_dim=neurons,
        dropout=dropout,
        attention_dropout=dropout,
        seq_classif_dropout=dropout,
        max_position_embeddings=positions,
        pad_token_id=0,
    )


def make_model(family: str, seed: int = 0, **settings: Any) -> tuple[nn.Module, ModelLayout]:
    """Return a small two-class model with random weights in memory, and its layout."""
    torch.manual_seed(seed)
    return build_model(make_config(family, **settings), Head())


def _save(model: transformers.PreTrainedModel, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(make_vocabulary()) + "\n", encoding="utf-8")
    BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True).save(str(folder / "tokenizer.json"))
    names = ("pad", "unk", "cls", "sep", "mask")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.max_position_embeddings,
        **{f"{name}_token": token for name, token in zip(names, _SPECIAL, strict=True)},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def make_bert(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Save a BERT of 2 layers, hidden size 32, 64 neurons a layer, with random weights and a fast tokenizer."""
    torch.manual_seed(seed)
    return _save(transformers.BertModel(make_config("bert", **settings)), folder)


def make_distilbert(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Save a DistilBERT of 2 layers, hidden size 32, 64 neurons a layer, with random weights and a fast tokenizer."""
    torch.manual_seed(seed)
    return _save(transformers.DistilBertModel(make_config("distilbert", **settings)), folder)
