"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): gated blocks; most layers attend to neighbours only."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from farsearch.far.layout import FeedForwardLayout, LayerLayout, ModelLayout
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]


def _layer(path: str, kind: str, heads: int) -> LayerLayout:
    mlp = f"{path}.mlp"
    return LayerLayout(
        path=path,
        attention=(f"{path}.attn.Wqkv", f"{path}.attn.Wo"),
        blocks=(FeedForwardLayout(f"{mlp}.Wi", f"{mlp}.act", f"{mlp}.Wo", gated=mlp, dropout=f"{mlp}.drop"),),
        # no self_attention: positions are turned into queries and keys. No norms: they have no bias, and their input
        # is the residual stream, which others keep
        kind=kind,
        own_heads=heads,
    )


def _layout(config: Any) -> ModelLayout:
    layers = (
        _layer(f"model.layers.{i}", config.layer_types[i], config.num_attention_heads)
        for i in range(config.num_hidden_layers)
    )
    return ModelLayout("model.embeddings", tuple(layers), ("model.embeddings.drop",))


def _with_layers(config: Any, layers: Sequence[int]) -> Any:
    config = copy.deepcopy(config)
    config.layer_types = [config.layer_types[i] for i in layers]
    config.num_hidden_layers = len(layers)
    return config


FAMILY = Family(("modernbert",), _layout, with_layers=_with_layers)
