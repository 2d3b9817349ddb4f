"""Narrow versions of every known model under its hub name, with its kind of configuration, checkpoint and tokenizer."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers

from farsearch.models.source import known_models
from tests.hub import tokenizer_files as kinds
from tests.hub.repository import LEGACY

__all__ = ["PICKLED", "checkpoint", "hub_name", "model_files", "sharded"]

PICKLED = frozenset({"microsoft/deberta-v3-small", "microsoft/deberta-v3-large"})
"""Models whose repositories have ``pytorch_model.bin`` and no safetensors."""

_NARROW: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "dim", "pooler_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_attention_heads", "n_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), 48),
    "intra_bottleneck_size": 16,
}
_CASED = frozenset({"bert-base-cased", "distilbert-base-cased"})
_TOKENIZERS: Mapping[str, Callable[[], kinds.TokenizerFiles]] = {
    "roberta": kinds.byte_level,
    "modernbert": kinds.modernbert,
    "xlm-roberta": kinds.xlm_roberta,
    "camembert": kinds.camembert,
    "mpnet": kinds.mpnet,
    "deberta-v2": kinds.deberta,
}


def hub_name(known: str) -> str:
    """The name of a known model's repository."""
    return "sentence-transformers/all-MiniLM-L6-v2" if known == "minilm" else LEGACY["models"].get(known, known)


def _tokenizer(known: str, model_type: str) -> kinds.TokenizerFiles:
    if model_type in _TOKENIZERS:
        return _TOKENIZERS[model_type]()
    return kinds.word_piece(cased=known in _CASED, only_vocabulary=known.startswith("google/bert_uncased"))


def _configuration(known: str) -> dict[str, Any]:
    wide = dict(known_models()[known])
    tokenizer = _tokenizer(known, wide["model_type"])
    narrow = {key: _NARROW[key] for key in wide if key in _NARROW}
    if "embedding_size" in wide:
        narrow["embedding_size"] = 16 if wide["embedding_size"] < wide["hidden_size"] else 32
    if wide["model_type"] == "mobilebert":
        narrow["intermediate_size"] = 32
    ids = {key: value for key, value in tokenizer.ids.items() if key in wide}
    return {**wide, **narrow, **ids, "vocab_size": tokenizer.rows}


def _model(configuration: Mapping[str, Any]) -> Any:
    values = dict(configuration)
    (architecture,) = values.pop("architectures")
    if architecture == "BertForMaskedLM":
        architecture = "BertForPreTraining"  # the classes of the checkpoints, whatever their configurations name
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    return getattr(transformers, architecture)(config)


def _drawn(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """Redraw the weights of a checkpoint, so that no tensor equals its default initialisation."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = safetensors.torch.load_file(Path(folder, "model.safetensors"))
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, tensor in sorted(saved.items()):
        centre = 1.0 if re.search(r"norm\w*\.weight$", name, re.IGNORECASE) else 0.0
        drawn[name] = centre + 0.05 * torch.randn(tensor.shape, generator=generator)
    return drawn


def _renamed(known: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights, and add the buffers, as in the real checkpoint."""
    positions = torch.arange(512)[None]
    if known in ("bert-base-uncased", "bert-base-cased", "bert-large-uncased"):
        old = {"weight": "gamma", "bias": "beta"}
        return {re.sub(r"(?<=LayerNorm\.)\w+$", lambda end: old[end[0]], name): x for name, x in weights.items()}
    if known == "minilm":
        bare = {name.removeprefix("bert."): x for name, x in weights.items() if name.startswith("bert.")}
        return {**bare, "embeddings.position_ids": positions}
    if known.startswith("google/bert_uncased"):
        return {**weights, "bert.embeddings.position_ids": positions}
    if known.startswith("microsoft/deberta"):
        to = {"cls.predictions.transform.": "lm_predictions.lm_head.", "cls.predictions.": "lm_predictions.lm_head."}
        for old_name, new in to.items():
            weights = {name.replace(old_name, new): x for name, x in weights.items()}
        return {**weights, "mask_predictions.classifier.weight": torch.zeros(1, 32)}
    return weights


@cache
def checkpoint(known: str, seed: int = 0) -> Mapping[str, torch.Tensor]:
    """The weights of a known model as its repository has them."""
    torch.manual_seed(seed)
    return _renamed(known, _drawn(_model(_configuration(known)), seed))


def _saved(weights: Mapping[str, torch.Tensor], *, pickled: bool) -> dict[str, bytes]:
    if pickled:
        buffer = io.BytesIO()
        torch.save(dict(weights), buffer)
        return {"pytorch_model.bin": buffer.getvalue()}
    return {"model.safetensors": safetensors.torch.save(dict(weights), metadata={"format": "pt"})}


@cache
def model_files(known: str) -> Mapping[str, bytes]:
    """The repository of a known model."""
    configuration = _configuration(known)
    card = f"---\nlanguage: en\nlicense: apache-2.0\n---\n# {hub_name(known)}, narrow and random\n"
    return {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": card.encode(),
        "config.json": json.dumps(configuration, indent=2).encode(),
        **_tokenizer(known, configuration["model_type"]).files,
        **_saved(checkpoint(known), pickled=known in PICKLED),
    }


def sharded(known: str) -> dict[str, bytes | None]:
    """Return changes that split the weights of a known model's repository into two files."""
    names = sorted(checkpoint(known))
    parts = (names[::2], names[1::2])
    files = [f"model-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
    weights = checkpoint(known)
    index = {
        "metadata": {"total_size": sum(x.numel() * x.element_size() for x in weights.values())},
        "weight_map": {name: file for file, part in zip(files, parts, strict=True) for name in part},
    }
    return {
        "model.safetensors": None,
        "model.safetensors.index.json": json.dumps(index, indent=2, sort_keys=True).encode(),
        **{
            file: safetensors.torch.save({name: weights[name] for name in part}, metadata={"format": "pt"})
            for file, part in zip(files, parts, strict=True)
        },
    }
