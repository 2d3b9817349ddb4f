"""Adjacent layers that share a parameter: which they are, and what the parameter is called."""

from __future__ import annotations

import re

__all__ = ["kind_of", "layer_groups", "name_of"]

_OF_LAYERS = re.compile(r"_layer(_\d+|s_\d+_to_\d+)$")


def layer_groups(layers: int, most: int | None) -> list[range]:
    """All layers from the bottom in at most ``most`` groups of adjacent ones; None for one a layer.

    Group *i* of *g* ends before layer ⌊(i + 1) · layers / g⌋: sizes differ by one at most, and the larger groups are
    spread evenly.
    """
    count = layers if most is None else min(most, layers)
    return [range(i * layers // count, (i + 1) * layers // count) for i in range(count)]


def name_of(key: str, group: range) -> str:
    """The name of a parameter of these layers, as studies keep it: ``..._layer_3``, or ``..._layers_2_to_3``."""
    return f"{key}_layer_{group[0]}" if len(group) == 1 else f"{key}_layers_{group[0]}_to_{group[-1]}"


def kind_of(name: str) -> str:
    """The parameter of a space that ``name`` is of: what ``name_of`` added is off again."""
    return _OF_LAYERS.sub("", name)
