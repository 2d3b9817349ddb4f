"""One small adapter a model family: where it keeps embeddings, attentions and feed-forward blocks.

To add a family, add a function that returns its ``ModelLayout`` and name it in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from farsearch.errors import BadInput
from farsearch.far.layout import AttentionLayout, LayerLayout, ModelLayout

__all__ = ["FAMILIES", "layout_of"]


def _bert(config: Any) -> ModelLayout:
    def layer(i: int) -> LayerLayout:
        path = f"bert.encoder.layer.{i}"
        attention = ("self.query", "self.key", "self.value", "output.dense")
        return LayerLayout(
            path=path,
            attention=tuple(f"{path}.attention.{name}" for name in attention),
            up=f"{path}.intermediate.dense",
            activation=f"{path}.intermediate.intermediate_act_fn",
            down=f"{path}.output.dense",
            self_attention=AttentionLayout(
                f"{path}.attention.self", "query", "key", "value", None, "dropout", config.num_attention_heads
            ),
            dropouts=(f"{path}.attention.output.dropout", f"{path}.output.dropout"),
            norms=(f"{path}.attention.output.LayerNorm", f"{path}.output.LayerNorm"),
        )

    return _model("bert.embeddings", tuple(layer(i) for i in range(config.num_hidden_layers)))


def _distilbert(config: Any) -> ModelLayout:
    def layer(i: int) -> LayerLayout:
        path = f"distilbert.transformer.layer.{i}"
        return LayerLayout(
            path=path,
            attention=tuple(f"{path}.attention.{name}" for name in ("q_lin", "k_lin", "v_lin", "out_lin")),
            up=f"{path}.ffn.lin1",
            activation=f"{path}.ffn.activation",
            down=f"{path}.ffn.lin2",
            self_attention=AttentionLayout(
                f"{path}.attention", "q_lin", "k_lin", "v_lin", "out_lin", "dropout", config.n_heads
            ),
            dropouts=(f"{path}.ffn.dropout",),
            norms=(f"{path}.sa_layer_norm", f"{path}.output_layer_norm"),
        )

    return _model("distilbert.embeddings", tuple(layer(i) for i in range(config.num_hidden_layers)))


def _model(embeddings: str, layers: tuple[LayerLayout, ...]) -> ModelLayout:
    return ModelLayout(embeddings, layers, (f"{embeddings}.dropout",), (f"{embeddings}.LayerNorm",))


FAMILIES: Mapping[str, Callable[[Any], ModelLayout]] = {"bert": _bert, "distilbert": _distilbert}
"""Layout by transformers' ``model_type``."""


def layout_of(config: Any) -> ModelLayout:
    """The layout of a model with this transformers configuration.

    Raises:
        BadInput: for a family that has no adapter.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise BadInput(
            f"model type {config.model_type!r} is not supported; known families are {', '.join(sorted(FAMILIES))}"
        )
    return family(config)
