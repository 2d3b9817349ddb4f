"""MPNet (Song et al., NeurIPS 2020, arXiv 2004.09297): all layers read one table of relative positions."""

from __future__ import annotations

from typing import Any

from farsearch.far.layout import LayerLayout, ModelLayout
from farsearch.models.families.bert import bert_feed_forward
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]

_PADDING = 1
"""Position of the padding, a constant of the model's code: the first token has the next one."""


def _layer(path: str, heads: int) -> LayerLayout:
    return LayerLayout(
        path=path,
        attention=tuple(f"{path}.attention.attn.{name}" for name in "qkvo"),
        blocks=(bert_feed_forward(path),),
        dropouts=(f"{path}.attention.dropout", f"{path}.output.dropout"),
        norms=(f"{path}.attention.LayerNorm", f"{path}.output.LayerNorm"),
        own_heads=heads,
    )


def _layout(config: Any) -> ModelLayout:
    embeddings = "mpnet.embeddings"
    return ModelLayout(
        embeddings=embeddings,
        layers=tuple(
            _layer(f"mpnet.encoder.layer.{i}", config.num_attention_heads) for i in range(config.num_hidden_layers)
        ),
        dropouts=(f"{embeddings}.dropout",),
        norms=(f"{embeddings}.LayerNorm",),
        shared=("mpnet.encoder.relative_attention_bias",),
    )


FAMILY = Family(("mpnet",), _layout, lambda config: int(config.max_position_embeddings - _PADDING - 1))
