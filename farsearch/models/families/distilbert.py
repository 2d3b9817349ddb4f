"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

from typing import Any

from farsearch.far.layout import AttentionLayout, FeedForwardLayout, LayerLayout, ModelLayout
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]


def _layer(path: str, heads: int) -> LayerLayout:
    return LayerLayout(
        path=path,
        attention=tuple(f"{path}.attention.{name}" for name in ("q_lin", "k_lin", "v_lin", "out_lin")),
        blocks=(FeedForwardLayout(f"{path}.ffn.lin1", f"{path}.ffn.activation", f"{path}.ffn.lin2"),),
        self_attention=AttentionLayout(f"{path}.attention", "q_lin", "k_lin", "v_lin", "out_lin", "dropout", heads),
        dropouts=(f"{path}.ffn.dropout",),
        norms=(f"{path}.sa_layer_norm", f"{path}.output_layer_norm"),
    )


def _layout(config: Any) -> ModelLayout:
    layers = (_layer(f"distilbert.transformer.layer.{i}", config.n_heads) for i in range(config.num_hidden_layers))
    embeddings = "distilbert.embeddings"
    return ModelLayout(embeddings, tuple(layers), (f"{embeddings}.dropout",), (f"{embeddings}.LayerNorm",))


FAMILY = Family(("distilbert",), _layout)
