"""Kinds of layers: the properties on which the sequence of a layer's allocations and operations depends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from farsearch.cost.segments import Indices
from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.far.selection import head_counts, learner_counts
from farsearch.far.surgery import apply_far
from farsearch.records import FarConfig

__all__ = ["LayerKind", "LayerKinds", "apply_kinds", "furthest"]


class LayerKind(NamedTuple):
    """The properties that determine the sequence of a layer's allocations.

    ``ffn``: ``full``, ``split``, ``none`` (all neurons frozen) or ``idle`` (nothing in the layer is trained).
    ``heads``: the number of heads that are trained; of a model whose heads can't be split 1 if its attention is
    trained. ``live``: its input has a gradient. ``own``: the kind in its layout. If all layers read a table,
    ``shared``: the table is trained, and ``top``: the layer's gradient of it is the first.
    """

    ffn: Literal["idle", "full", "split", "none"]
    heads: int
    live: bool
    own: str = ""
    shared: bool = False
    top: bool = False


_FFN: Sequence[Literal["idle", "full", "split", "none"]] = ("idle", "full", "split", "none")


def _reach(kind: LayerKind) -> int:
    """How far the backward pass goes in a layer.

    0: not into it; 1: into it; 2: into its attention too, which holds the attention mask until then.
    """
    return 2 if kind.heads or kind.live else int(kind.ffn != "idle")


def furthest(kinds: Sequence[LayerKind]) -> int:
    """Return the largest reach of the backward pass in these layers."""
    return max(_reach(kind) for kind in kinds)


class LayerKinds:
    """All kinds that the layers of a model can have, by code.

    Attributes:
        all: the kinds by code. Those of an ordinary layer come first, followed by as many for each group of layers that
            differ from it.
        heads: the heads of a layer; 1 if they can't be split.
    """

    def __init__(self, layout: ModelLayout, width: int) -> None:
        self._width, self._layers = width, len(layout.layers)
        self._layout, self.heads = layout, max(1, layout.heads)
        ordinary = [
            LayerKind(ffn, heads, live)
            for ffn in _FFN for heads in range(self.heads + 1) for live in (False, True)
        ]  # fmt: skip
        self._reach = np.array([_reach(kind) for kind in ordinary])
        shares, top = bool(layout.shared), self._layers - 1
        groups: dict[tuple[str, bool, bool], int] = {}
        variants = [
            [
                groups.setdefault((layer.kind, shares and trained, shares and trained and i == top), len(groups))
                for i, layer in enumerate(layout.layers)
            ]
            for trained in (False, True)
        ]
        self.all = [LayerKind(*kind[:3], *group) for group in groups for kind in ordinary]
        # the group of each layer: with the embeddings frozen, and with them trained
        self._variants = np.array(variants, dtype=np.int64)

    def codes(self, configs: Sequence[FarConfig]) -> tuple[Indices, Indices]:
        """Return the code and the number of learners per block of each layer: ``[configurations, layers]`` both.

        Raises:
            BadInput: for a configuration whose number of layers is not the model's, or with frozen heads of a model
                whose heads can't be split.
        """
        configs = [
            config.canonical() if config.frozen_bottom_layers or config.frozen_heads else config for config in configs
        ]
        for config in configs:
            if len(config.frozen_fractions) != self._layers:
                raise BadInput(
                    f"the configuration has {len(config.frozen_fractions)} frozen fractions; the model has "
                    f"{self._layers} layers, give one each"
                )
            if config.frozen_heads and not self._layout.heads:
                raise BadInput(
                    f"frozen_heads is {shown(config.frozen_heads)}, and the heads of {self._layout.layers[0].path} "
                    "can't be frozen one by one; leave it at 0, and freeze whole attentions by frozen_attention_layers"
                )
        counts = [learner_counts(self._width, c.frozen_fractions, c.frozen_bottom_layers) for c in configs]
        given = np.array([[-1 if k is None else k for k in row] for row in counts], dtype=np.int64)
        bottom, attention, embeddings = (
            np.array([getattr(config, name) for config in configs], dtype=np.int64)[:, None]
            for name in ("frozen_bottom_layers", "frozen_attention_layers", "frozen_embeddings")
        )
        layer = np.arange(self._layers)
        trained = [head_counts(self.heads, config.frozen_heads, self._layers) for config in configs]
        heads = np.array([[self.heads if k is None else k for k in row] for row in trained], dtype=np.int64)
        heads = np.where(layer >= attention, heads, 0)
        names = [_FFN.index(name) for name in ("idle", "full", "split", "none")]
        ffn = np.select([layer < bottom, given < 0, given > 0], names[:3], names[3])
        # below the lowest trained layer there are no gradients
        live = (embeddings == 0) | (layer > bottom)
        variant = self._variants[((embeddings == 0) & (bottom == 0)).astype(np.int64), layer]
        codes = variant * len(self._reach) + (ffn * (self.heads + 1) + heads) * 2 + live
        return codes, np.maximum(given, 0)

    def traced(self, codes: Indices) -> Indices:
        """Return the rows of codes to trace: each twice, with the fewest and with the most learner heads of a split."""
        heads = codes // 2 % (self.heads + 1)
        split = (heads > 0) & (heads < self.heads)
        ends = (np.where(split, codes + 2 * (number - heads), codes) for number in self._ends)
        return np.concatenate([*ends])

    def between(self, kind: LayerKind) -> tuple[LayerKind, LayerKind, float]:
        """Return the two traced kinds between which one of so many learner heads is, and its share of the way."""
        low, high = self._ends
        return kind._replace(heads=low), kind._replace(heads=high), (kind.heads - low) / max(1, high - low)

    @property
    def _ends(self) -> tuple[int, int]:
        """The fewest and the most learner heads beside frozen ones."""
        return 1, max(1, self.heads - 1)

    def reach(self, codes: Indices) -> Indices:
        """Return the reach of the backward pass in layers of these kinds, as ``furthest``."""
        return np.asarray(self._reach[codes % len(self._reach)])

    def has_frozen_neurons(self, codes: Indices) -> NDArray[np.bool_]:
        """Return whether layers of these kinds have frozen neurons beside, or instead of, trained ones."""
        return np.isin(codes % len(self._reach) // (2 * self.heads + 2), [_FFN.index("split"), _FFN.index("none")])


def apply_kinds(
    model: nn.Module, layout: ModelLayout, kinds: Sequence[LayerKind], k: int, execution: Execution
) -> None:
    """Freeze and reconfigure each layer of a model to its kind, ``split`` layers with ``k`` learners."""
    learners = {"full": None, "idle": None, "split": range(k), "none": range(0)}
    bottom = sum(kind.ffn == "idle" for kind in kinds)
    chosen = layout.by_block([learners[kind.ffn] for kind in kinds])
    heads = [None if kind.heads == max(1, layout.heads) else range(kind.heads) for kind in kinds]
    apply_far(model, layout, chosen, not kinds[0].live, 0, bottom, execution, heads)
