"""How large a model is, from its configuration alone."""

from __future__ import annotations

from typing import Any

import torch

from farsearch.models.heads import Head
from farsearch.models.load import build_model

__all__ = ["layer_parameters"]


def layer_parameters(config: Any) -> int:
    """Parameters of a model's layers; embeddings, head and what layers share are not counted.

    Exact, and quick for any model: on torch's device ``meta`` tensors have a shape and no memory.

    Raises:
        BadInput: for a family that is not supported.
    """
    with torch.device("meta"):
        model, layout = build_model(config, Head())
    layers = (model.get_submodule(layer.path) for layer in layout.layers)
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())
