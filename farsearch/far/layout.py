"""Where a model keeps its embeddings, attentions and feed-forward blocks, as module paths.

A layout is plain data, so that a bundle can carry it to a board that knows nothing of model families.
"""

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AttentionLayout", "FeedForwardLayout", "LayerLayout", "ModelLayout", "get_module", "set_module"]

T = TypeVar("T")


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


class FeedForwardLayout(NamedTuple):
    """A feed-forward block: ``down(activation(up(x)))``.

    A gated one is ``down(activation(a) b)`` with ``a, b`` the halves of ``up(x)``, so that neuron j of n has the rows
    j and n + j of ``up``. ``gated`` names the module that computes it, None for a block that is not gated, and
    ``dropout`` what comes before its ``down``.
    """

    up: str
    activation: str
    down: str
    gated: Optional[str] = None
    dropout: Optional[str] = None

    @property
    def split(self) -> str:
        """Where the block stands when it is split."""
        return self.gated or self.down

    @property
    def names(self) -> Tuple[str, str]:
        """``up`` and ``down`` in the gated module; empty for a block that is not gated."""
        if self.gated is None:
            return "", ""
        start = len(self.gated) + 1
        return self.up[start:], self.down[start:]


class LayerLayout(NamedTuple):
    """Module paths of one transformer layer.

    ``attention`` names the linear maps of its attention, query, key, value and output first, or one of the first three
    and output. ``blocks`` are its feed-forward blocks in their order, all of a model's equally wide.
    ``self_attention``, ``dropouts`` and ``norms`` are what may be executed in another way (execution.py). ``kind``
    tells layers apart that differ in more than their weights.
    """

    path: str
    attention: Tuple[str, ...]
    blocks: Tuple[FeedForwardLayout, ...]
    self_attention: Optional[AttentionLayout] = None
    dropouts: Tuple[str, ...] = ()
    norms: Tuple[str, ...] = ()
    kind: str = ""


class ModelLayout(NamedTuple):
    """Module paths of a model: its embeddings (with their LayerNorm), and its layers from the bottom.

    ``dropouts`` and ``norms`` are those of the embeddings. ``below`` names what else stands between them and the
    layers, ``shared`` tables that every layer reads, as of relative positions: both are frozen with the embeddings.
    """

    embeddings: str
    layers: Tuple[LayerLayout, ...]
    dropouts: Tuple[str, ...] = ()
    norms: Tuple[str, ...] = ()
    below: Tuple[str, ...] = ()
    shared: Tuple[str, ...] = ()

    @property
    def bottom(self) -> Tuple[str, ...]:
        """All that freezes with the embeddings."""
        return (self.embeddings,) + self.below + self.shared

    @property
    def blocks(self) -> List[FeedForwardLayout]:
        """The feed-forward blocks of all layers, in the order in which selections name them."""
        return [block for layer in self.layers for block in layer.blocks]

    def by_block(self, values: Sequence[T]) -> List[T]:
        """One value a layer, as one a block."""
        return [value for layer, value in zip(self.layers, values) for _ in layer.blocks]

    @property
    def gated(self) -> bool:
        """A block is gated: none of the policies but ``modules`` computes it."""
        return any(block.gated is not None for block in self.blocks)

    @property
    def recomputes_attention(self) -> bool:
        """The attention of every layer can be computed again in the backward pass (attention.py)."""
        return all(layer.self_attention is not None for layer in self.layers)

    def to_dict(self) -> Dict[str, Any]:
        """The layout as JSON types."""
        return dict(self._asdict(), layers=[_layer_to_dict(layer) for layer in self.layers])

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "ModelLayout":
        """The layout that ``to_dict`` wrote. An unknown or missing key raises TypeError or KeyError."""
        return cls(**_tuples(dict(data, layers=tuple(_layer_from_dict(row) for row in data["layers"]))))


def _layer_to_dict(layer: LayerLayout) -> Dict[str, Any]:
    attention = layer.self_attention
    return dict(
        layer._asdict(),
        blocks=[dict(block._asdict()) for block in layer.blocks],
        self_attention=None if attention is None else dict(attention._asdict()),
    )


def _layer_from_dict(row: Dict[str, Any]) -> LayerLayout:
    attention = row.get("self_attention")
    blocks = tuple(FeedForwardLayout(**block) for block in row["blocks"])
    return LayerLayout(**_tuples(dict(row, blocks=blocks, self_attention=attention and AttentionLayout(**attention))))


def _tuples(row: Dict[str, Any]) -> Dict[str, Any]:
    """JSON has lists only."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def get_module(model: "nn.Module", path: str) -> Any:
    """The submodule at a dotted path. It may be a plain function where a model keeps its activation as one."""
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name)
    return found


def set_module(model: "nn.Module", path: str, module: Any) -> None:
    """Put a module, or a plain function where the model had one, at a dotted path."""
    from torch import nn

    path, _, name = path.rpartition(".")
    parent = get_module(model, path) if path else model
    if not isinstance(module, nn.Module) and name in parent._modules:
        delattr(parent, name)  # torch refuses anything but a module in a module's place
    setattr(parent, name, module)
