"""Models for the comparison: shapes of well-known checkpoints with random weights, and two step plans."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from farsearch.far.layout import ModelLayout
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import resolve_model
from farsearch.records import StepPlan

__all__ = ["MODELS", "MODULES", "STORE", "built", "layers_of"]

MODELS = ("bert-base-uncased", "distilbert-base-uncased", "minilm")

MODULES = StepPlan()
STORE = StepPlan(
    feed_forward="store", attention="recompute", dropout="seed", layer_norm="output", optimizer_kernel="fused",
    optimizer_step="backward",
)  # fmt: skip


@cache
def built(name: str) -> tuple[Any, nn.Module, ModelLayout]:
    """Configuration of transformers, a model of two classes, and its layout."""
    config = load_config(resolve_model(name), with_known=True)
    torch.manual_seed(0)
    return config, *build_model(config, Head())


def layers_of(name: str) -> int:
    """Layers of a model."""
    return len(built(name)[2].layers)
