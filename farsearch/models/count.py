"""Size of a model, from its configuration.

The model is built on torch's device ``meta``, where tensors take no memory.
"""

from __future__ import annotations

from typing import Any

import torch

from farsearch.models.heads import Head
from farsearch.models.load import build_model

__all__ = ["layer_parameters", "model_parameters"]


def layer_parameters(config: Any) -> int:
    """Return the number of parameters of a model's layers, without embeddings, head and shared tables.

    Raises:
        BadInput: for a family that is not supported.
    """
    with torch.device("meta"):
        model, layout = build_model(config, Head())
    layers = (model.get_submodule(layer.path) for layer in layout.layers)
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())


def model_parameters(config: Any) -> int:
    """Return the number of parameters of a model with a head of two classes.

    Raises:
        BadInput: for a family that is not supported.
    """
    with torch.device("meta"):
        model, _ = build_model(config, Head())
    return sum(parameter.numel() for parameter in model.parameters())
