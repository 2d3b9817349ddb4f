"""DeBERTa v2 and v3 (He et al., arXiv 2006.03654 and 2111.09543): all layers read one table of relative positions."""

from __future__ import annotations

from typing import Any

from farsearch.errors import BadInput
from farsearch.far.layout import LayerLayout, ModelLayout
from farsearch.models.families.bert import bert_feed_forward
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]


def _layer(path: str, config: Any) -> LayerLayout:
    maps = ["self.query_proj", "self.key_proj", "self.value_proj", "output.dense"]
    # transformers reads these two, and norm_rel_ebd below, with defaults of its own, which no configuration class has
    if config.relative_attention and not getattr(config, "share_att_key", False):
        kinds = {"c2p": "self.pos_key_proj", "p2c": "self.pos_query_proj"}
        maps += [name for kind, name in kinds.items() if kind in (config.pos_att_type or ())]
    return LayerLayout(
        path=path,
        attention=tuple(f"{path}.attention.{name}" for name in maps),
        blocks=(bert_feed_forward(path),),
        dropouts=(f"{path}.attention.output.dropout", f"{path}.output.dropout"),
        norms=(f"{path}.attention.output.LayerNorm", f"{path}.output.LayerNorm"),
        own_heads=config.num_attention_heads,
    )


def _layout(config: Any) -> ModelLayout:
    if getattr(config, "conv_kernel_size", 0) > 0:
        raise BadInput(
            f"this deberta-v2 has a convolution of {config.conv_kernel_size} tokens behind its lowest layer, as the "
            "xlarge ones have, which no layer's cost counts; pass one without, as microsoft/deberta-v3-small"
        )
    encoder, embeddings = "deberta.encoder", "deberta.embeddings"
    shared: list[str] = []
    if config.relative_attention:
        shared.append(f"{encoder}.rel_embeddings")
        if "layer_norm" in str(getattr(config, "norm_rel_ebd", "none")).lower():
            shared.append(f"{encoder}.LayerNorm")
    return ModelLayout(
        embeddings=embeddings,
        layers=tuple(_layer(f"{encoder}.layer.{i}", config) for i in range(config.num_hidden_layers)),
        dropouts=(f"{embeddings}.dropout",),
        norms=(f"{embeddings}.LayerNorm",),
        shared=tuple(shared),
    )


FAMILY = Family(("deberta-v2",), _layout)
