"""MobileBERT (Sun et al., ACL 2020, arXiv 2004.02984): several feed-forward blocks a layer, in a bottleneck."""

from __future__ import annotations

from typing import Any

from farsearch.far.layout import LayerLayout, ModelLayout
from farsearch.models.families.bert import bert_feed_forward
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]


def _layer(path: str, config: Any) -> LayerLayout:
    stacked = [f"{path}.ffn.{i}" for i in range(config.num_feedforward_networks - 1)]
    outputs = [f"{path}.attention.output", *(f"{each}.output" for each in stacked), f"{path}.output"]
    if config.use_bottleneck:
        dropouts = [f"{path}.output.bottleneck"]
    else:
        dropouts = [f"{path}.attention.output", f"{path}.output"]
    return LayerLayout(
        path=path,
        attention=tuple(
            f"{path}.attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")
        ),
        blocks=tuple(bert_feed_forward(each) for each in (*stacked, path)),
        # no self_attention: queries, keys and values are made of inputs of their own
        dropouts=tuple(f"{each}.dropout" for each in dropouts),
        # rebuilt where the configuration has LayerNorm in place of NoNorm
        norms=tuple(f"{each}.LayerNorm" for each in outputs),
        own_heads=config.num_attention_heads,
    )


def _layout(config: Any) -> ModelLayout:
    embeddings = "mobilebert.embeddings"
    return ModelLayout(
        embeddings=embeddings,
        layers=tuple(_layer(f"mobilebert.encoder.layer.{i}", config) for i in range(config.num_hidden_layers)),
        dropouts=(f"{embeddings}.dropout",),
        norms=(f"{embeddings}.LayerNorm",),
    )


FAMILY = Family(("mobilebert",), _layout)
