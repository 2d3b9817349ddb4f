"""Where a model keeps its embeddings, attentions and feed-forward blocks, as module paths.

A layout is plain data, so that a bundle can carry it to a board that knows nothing of model families.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from torch import nn

__all__ = ["AttentionLayout", "LayerLayout", "ModelLayout", "get_module", "set_module"]


class AttentionLayout(NamedTuple):
    """The module at ``path`` that computes ``softmax(q k') v``, and the names of its submodules.

    ``output`` is the map that follows, None where it is in another module. ``heads`` is their number.
    """

    path: str
    query: str
    key: str
    value: str
    output: Optional[str]
    dropout: str
    heads: int


class LayerLayout(NamedTuple):
    """Module paths of one transformer layer.

    ``down(activation(up(x)))`` is its feed-forward block. ``attention`` names the linear maps of its attention;
    ``self_attention``, ``dropouts`` and ``norms`` are what may be executed in another way (execution.py).
    """

    path: str
    attention: Tuple[str, ...]
    up: str
    activation: str
    down: str
    self_attention: Optional[AttentionLayout] = None
    dropouts: Tuple[str, ...] = ()
    norms: Tuple[str, ...] = ()


class ModelLayout(NamedTuple):
    """Module paths of a model: its embeddings (with their LayerNorm), and its layers from the bottom.

    ``dropouts`` and ``norms`` are those of the embeddings.
    """

    embeddings: str
    layers: Tuple[LayerLayout, ...]
    dropouts: Tuple[str, ...] = ()
    norms: Tuple[str, ...] = ()

    def to_dict(self) -> Dict[str, Any]:
        """The layout as JSON types."""
        return dict(self._asdict(), layers=[_layer_to_dict(layer) for layer in self.layers])

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "ModelLayout":
        """The layout that ``to_dict`` wrote. An unknown or missing key raises TypeError or KeyError."""
        return cls(**_tuples(dict(data, layers=tuple(_layer_from_dict(row) for row in data["layers"]))))


def _layer_to_dict(layer: LayerLayout) -> Dict[str, Any]:
    attention = layer.self_attention
    return dict(layer._asdict(), self_attention=None if attention is None else dict(attention._asdict()))


def _layer_from_dict(row: Dict[str, Any]) -> LayerLayout:
    attention = row.get("self_attention")
    return LayerLayout(**_tuples(dict(row, self_attention=attention and AttentionLayout(**attention))))


def _tuples(row: Dict[str, Any]) -> Dict[str, Any]:
    """JSON has lists only."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def get_module(model: nn.Module, path: str) -> Any:
    """The submodule at a dotted path. It may be a plain function where a model keeps its activation as one."""
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name)
    return found


def set_module(model: nn.Module, path: str, module: Any) -> None:
    """Put a module, or a plain function where the model had one, at a dotted path."""
    path, _, name = path.rpartition(".")
    parent = get_module(model, path) if path else model
    if not isinstance(module, nn.Module) and name in parent._modules:
        delattr(parent, name)  # torch refuses anything but a module in a module's place
    setattr(parent, name, module)
