"""Where a model keeps its embeddings, attentions and feed-forward blocks, as module paths.

A layout is plain data, so that a bundle can carry it to a board that knows nothing of model families.
"""

from typing import Any, Dict, NamedTuple, Tuple

from torch import nn

__all__ = ["LayerLayout", "ModelLayout", "get_module", "set_module"]


class LayerLayout(NamedTuple):
    """Module paths of one transformer layer.

    ``down(activation(up(x)))`` is its feed-forward block. ``attention`` names the linear maps of its attention.
    """

    path: str
    attention: Tuple[str, ...]
    up: str
    activation: str
    down: str


class ModelLayout(NamedTuple):
    """Module paths of a model: its embeddings (with their LayerNorm), and its layers from the bottom."""

    embeddings: str
    layers: Tuple[LayerLayout, ...]

    def to_dict(self) -> Dict[str, Any]:
        """The layout as JSON types."""
        return {"embeddings": self.embeddings, "layers": [dict(layer._asdict()) for layer in self.layers]}

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "ModelLayout":
        """The layout that ``to_dict`` wrote. An unknown or missing key raises TypeError or KeyError."""
        layers = tuple(LayerLayout(**dict(row, attention=tuple(row["attention"]))) for row in data["layers"])
        return cls(**dict(data, layers=layers))


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
