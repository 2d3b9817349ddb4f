"""Module paths of a model's embeddings, attentions and feed-forward blocks.

A layout is plain data: a bundle contains it, so that a board needs no model families.
"""

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AttentionLayout", "FeedForwardLayout", "HeadMap", "LayerLayout", "ModelLayout", "get_module", "set_module"]

T = TypeVar("T")


class AttentionLayout(NamedTuple):
    """The module at ``path`` that computes ``softmax(q k') v``, and the names of its submodules.

    ``output`` is the map that follows, None if it is in another module. ``heads`` is their number.
    """

    path: str
    query: str
    key: str
    value: str
    output: Optional[str]
    dropout: str
    heads: int


class HeadMap(NamedTuple):
    """A linear map of an attention, and where it has the heads.

    ``dim`` is 0 if each head has rows of the weight, 1 if it has columns. ``times`` is 3 for a map that computes
    queries, keys and values, each of all heads, else 1.
    """

    path: str
    dim: int
    times: int


class FeedForwardLayout(NamedTuple):
    """A feed-forward block: ``down(activation(up(x)))``.

    A gated one is ``down(activation(a) b)`` with ``a, b`` the halves of ``up(x)``, so that neuron j of n has the rows
    j and n + j of ``up``. ``gated`` names the module that computes it, None for a block that is not gated, and
    ``dropout`` the module before its ``down``.
    """

    up: str
    activation: str
    down: str
    gated: Optional[str] = None
    dropout: Optional[str] = None

    @property
    def split(self) -> str:
        """The path of the block when it is split."""
        return self.gated or self.down

    @property
    def names(self) -> Tuple[str, str]:
        """The paths of ``up`` and ``down`` in the gated module; empty for a block that is not gated."""
        if self.gated is None:
            return "", ""
        start = len(self.gated) + 1
        return self.up[start:], self.down[start:]


class LayerLayout(NamedTuple):
    """Module paths of one transformer layer.

    ``attention`` names the linear maps of its attention, query, key, value and output first, or one of the first three
    and output. ``blocks`` are its feed-forward blocks in their order, all of a model's equally wide.
    ``self_attention``, ``dropouts`` and ``norms`` are the modules that execution.py can replace. ``kind``
    differs between layers that differ in more than their weights. ``own_heads`` is the number of heads of an attention
    without ``self_attention``, if each has its own rows (of the output's map: columns) of the maps in ``attention``, in
    the order of the heads, and nothing else is trained in it; else 0.
    """

    path: str
    attention: Tuple[str, ...]
    blocks: Tuple[FeedForwardLayout, ...]
    self_attention: Optional[AttentionLayout] = None
    dropouts: Tuple[str, ...] = ()
    norms: Tuple[str, ...] = ()
    kind: str = ""
    own_heads: int = 0

    @property
    def heads(self) -> int:
        """The number of heads that can be trained or frozen one by one; 0 if they can't."""
        return self.own_heads if self.self_attention is None else self.self_attention.heads

    @property
    def head_maps(self) -> List[HeadMap]:
        """The maps in ``attention`` with the places of their heads."""
        fused = len(self.attention) == 2
        output = 1 if fused else 3
        return [
            HeadMap(path, int(i == output), 3 if fused and i != output else 1) for i, path in enumerate(self.attention)
        ]


class ModelLayout(NamedTuple):
    """Module paths of a model: its embeddings (with their LayerNorm), and its layers from the bottom.

    ``dropouts`` and ``norms`` are those of the embeddings. ``below`` names other modules between them and the layers,
    ``shared`` tables that every layer reads, such as relative positions: both are frozen with the embeddings.
    """

    embeddings: str
    layers: Tuple[LayerLayout, ...]
    dropouts: Tuple[str, ...] = ()
    norms: Tuple[str, ...] = ()
    below: Tuple[str, ...] = ()
    shared: Tuple[str, ...] = ()

    @property
    def bottom(self) -> Tuple[str, ...]:
        """The modules that are frozen with the embeddings."""
        return (self.embeddings,) + self.below + self.shared

    @property
    def blocks(self) -> List[FeedForwardLayout]:
        """The feed-forward blocks of all layers, in the order in which selections name them."""
        return [block for layer in self.layers for block in layer.blocks]

    def by_block(self, values: Sequence[T]) -> List[T]:
        """Return one value per block from one value per layer."""
        return [value for layer, value in zip(self.layers, values) for _ in layer.blocks]

    @property
    def heads(self) -> int:
        """The number of heads of a layer that can be trained or frozen one by one; 0 if a layer's can't."""
        return min(layer.heads for layer in self.layers)

    @property
    def gated(self) -> bool:
        """Whether a block is gated: its only policy is ``modules``."""
        return any(block.gated is not None for block in self.blocks)

    @property
    def recomputes_attention(self) -> bool:
        """Whether the attention of every layer can be recomputed in the backward pass (attention.py)."""
        return all(layer.self_attention is not None for layer in self.layers)

    def to_dict(self) -> Dict[str, Any]:
        """Return the layout in JSON types."""
        return dict(self._asdict(), layers=[_layer_to_dict(layer) for layer in self.layers])

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "ModelLayout":
        """Return the layout that ``to_dict`` wrote. An unknown or missing key raises TypeError or KeyError."""
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
    """Lists as tuples: JSON has only lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def get_module(model: "nn.Module", path: str) -> Any:
    """Return the submodule at a dotted path, or a plain function if that is the model's activation."""
    module: Any = model
    for name in path.split("."):
        module = getattr(module, name)
    return module


def set_module(model: "nn.Module", path: str, module: Any) -> None:
    """Set the module, or plain function, at a dotted path."""
    from torch import nn

    path, _, name = path.rpartition(".")
    parent = get_module(model, path) if path else model
    if not isinstance(module, nn.Module) and name in parent._modules:
        delattr(parent, name)  # torch refuses to replace a module by anything else
    setattr(parent, name, module)
