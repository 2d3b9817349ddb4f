"""Groups of adjacent layers that share a parameter, and the names of such parameters."""

from __future__ import annotations

import re

__all__ = ["kind_of", "last_layer_of", "layer_groups", "name_of"]

_OF_LAYERS = re.compile(r"_layer(?:_|s_\d+_to_)(\d+)$")


def layer_groups(layers: int, most: int | None) -> list[range]:
    """Divide the layers, from the bottom, into at most ``most`` groups of adjacent ones; None for one per layer.

    Group *i* of *g* ends before layer ⌊(i + 1) · layers / g⌋: sizes differ by one at most, and the larger groups are
    spread evenly.
    """
    count = layers if most is None else min(most, layers)
    return [range(i * layers // count, (i + 1) * layers // count) for i in range(count)]


def name_of(key: str, group: range) -> str:
    """Return the name of a parameter of these layers in studies: ``..._layer_3``, or ``..._layers_2_to_3``."""
    return f"{key}_layer_{group[0]}" if len(group) == 1 else f"{key}_layers_{group[0]}_to_{group[-1]}"


def kind_of(name: str) -> str:
    """Return the key of a space that ``name`` belongs to: the inverse of ``name_of``."""
    return _OF_LAYERS.sub("", name)


def last_layer_of(name: str) -> int | None:
    """Return the uppermost layer that has the parameter ``name``; None if it is of no layer of its own."""
    found = _OF_LAYERS.search(name)
    return int(found[1]) if found else None
