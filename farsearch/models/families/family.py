"""The adapter of a model family."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from farsearch.far.layout import ModelLayout

__all__ = ["Family"]


def _all_positions(config: Any) -> int:
    return int(config.max_position_embeddings)


def _first_layers(config: Any, layers: Sequence[int]) -> Any:
    config = copy.deepcopy(config)
    config.num_hidden_layers = len(layers)
    return config


@dataclass(frozen=True)
class Family:
    """The adapter of one model family, with properties that a transformers configuration does not specify.

    Attributes:
        model_types: transformers' names of it, the best known first.
        layout: module paths of a model with a configuration.
        max_length: maximum tokens of a text, special tokens included.
        with_layers: copies a configuration with only the layers of these indices, the lowest first, for the cost model.
    """

    model_types: Sequence[str]
    layout: Callable[[Any], ModelLayout]
    max_length: Callable[[Any], int] = _all_positions
    with_layers: Callable[[Any, Sequence[int]], Any] = _first_layers
