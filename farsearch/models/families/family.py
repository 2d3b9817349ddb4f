"""What a model family says of itself."""

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
    """The adapter of one model family. What a transformers configuration says by itself is not said again.

    Attributes:
        model_types: transformers' names of it, the best known first.
        layout: module paths of a model with a configuration.
        max_length: tokens that such a model takes, special tokens among them.
        with_layers: a copy of a configuration, of a model of only those of its layers that are named by index, the
            lowest first; the cost model traces it.
    """

    model_types: Sequence[str]
    layout: Callable[[Any], ModelLayout]
    max_length: Callable[[Any], int] = _all_positions
    with_layers: Callable[[Any, Sequence[int]], Any] = _first_layers
