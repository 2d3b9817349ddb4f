"""BERT (Devlin et al., NAACL 2019, arXiv 1810.04805), and the layers that many families have copied."""

from __future__ import annotations

from typing import Any

from farsearch.far.layout import AttentionLayout, FeedForwardLayout, LayerLayout, ModelLayout
from farsearch.models.families.family import Family

__all__ = ["FAMILY", "bert_feed_forward", "bert_layer", "bert_model"]


def bert_feed_forward(path: str) -> FeedForwardLayout:
    """BERT's feed-forward block in the module at ``path``."""
    return FeedForwardLayout(
        f"{path}.intermediate.dense", f"{path}.intermediate.intermediate_act_fn", f"{path}.output.dense"
    )


def bert_layer(path: str, heads: int) -> LayerLayout:
    """BERT's layer at ``path``."""
    maps = ("self.query", "self.key", "self.value", "output.dense")
    return LayerLayout(
        path=path,
        attention=tuple(f"{path}.attention.{name}" for name in maps),
        blocks=(bert_feed_forward(path),),
        self_attention=AttentionLayout(f"{path}.attention.self", "query", "key", "value", None, "dropout", heads),
        dropouts=(f"{path}.attention.output.dropout", f"{path}.output.dropout"),
        norms=(f"{path}.attention.output.LayerNorm", f"{path}.output.LayerNorm"),
    )


def bert_model(name: str, config: Any, **more: Any) -> ModelLayout:
    """A model of BERT's layers and embeddings, the encoder of which is called ``name``; ``more`` of its layout."""
    layers = (
        bert_layer(f"{name}.encoder.layer.{i}", config.num_attention_heads) for i in range(config.num_hidden_layers)
    )
    embeddings = f"{name}.embeddings"
    return ModelLayout(embeddings, tuple(layers), (f"{embeddings}.dropout",), (f"{embeddings}.LayerNorm",), **more)


FAMILY = Family(("bert",), lambda config: bert_model("bert", config))
