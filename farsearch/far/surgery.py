"""Reconfigure a model for FAR, and merge it again.

``reconfigure`` and ``merge`` are exact inverses: the same state dict, bit by bit, for any selection. Frozen weights
stored in fewer bits are returned rounded. The state dict of a reconfigured model, read or written, is that of the
merged one, so it can be saved as an ordinary model at any time.
"""

from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import torch
from torch import nn

from .attention import RecomputedAttention
from .checkpoint import checkpointed
from .dropout import SeededDropout
from .execution import Execution, checked
from .ffn import SplitFeedForward, WholeFeedForward
from .half import HalfEmbedding, HalfLinear, lower_layers, raise_layers
from .layout import FeedForwardLayout, LayerLayout, ModelLayout, get_module, set_module
from .norms import HalfLayerNorm, OutputLayerNorm, rebuilds_input
from .split_linear import SplitLinear

__all__ = ["apply_far", "execute", "freeze", "merge", "reconfigure", "split_heads", "trainable_count", "width_of"]

_MODULES = Execution()
_STAND_INS = (RecomputedAttention, SeededDropout, OutputLayerNorm, HalfLayerNorm, HalfLinear, HalfEmbedding)
"""Modules of an execution, which return the ones that they replace."""


def apply_far(
    model: nn.Module,
    layout: ModelLayout,
    learners: Sequence[Optional[Sequence[int]]],
    frozen_embeddings: bool = False,
    frozen_attention_layers: int = 0,
    frozen_bottom_layers: int = 0,
    execution: Execution = _MODULES,
    heads: Optional[Sequence[Optional[Sequence[int]]]] = None,
) -> nn.Module:
    """Prepare ``model`` for the FAR phase, in place: ``reconfigure``, ``freeze`` and ``execute``.

    Args:
        learners: one entry per feed-forward block, as in ``reconfigure``.
        heads: one entry per layer, as in ``split_heads``; None splits no attention.
    """
    reconfigure(model, layout, learners, execution)
    if heads is not None:
        split_heads(model, layout, heads)
    freeze(model, layout, frozen_embeddings, frozen_attention_layers, frozen_bottom_layers)
    return execute(model, layout, execution)


def reconfigure(
    model: nn.Module,
    layout: ModelLayout,
    learners: Sequence[Optional[Sequence[int]]],
    execution: Execution = _MODULES,
) -> nn.Module:
    """Split the feed-forward blocks of ``model``, in place.

    Args:
        learners: for each block the indices of its learners, or None to train all of it.
        execution: with the ``feed_forward`` policy ``modules`` wholly trained blocks are not changed.

    Raises:
        ValueError: for a wrong number of entries, an index outside its block, or a policy that is unknown or not
            supported by the block.
    """
    policy, rows = checked(execution).feed_forward, execution.chunk_rows
    if len(learners) != len(layout.blocks):
        raise ValueError("{} selections for {} feed-forward blocks".format(len(learners), len(layout.blocks)))
    for block, chosen in zip(layout.blocks, learners):
        if policy != "modules" and block.gated is not None:
            raise ValueError("{} is gated and supports only the policy 'modules', not {!r}".format(block.split, policy))
        up, activation, down = (get_module(model, path) for path in (block.up, block.activation, block.down))
        if chosen is None:
            if policy != "modules":
                whole = WholeFeedForward(up, activation, down, policy, rows)
                _stand_in(model, block, whole.held, whole)
            continue
        width = down.weight.shape[1]
        if len(chosen) and not 0 <= min(chosen) <= max(chosen) < width:
            raise ValueError("learners of {} are outside 0 to {}".format(block.split, width - 1))
        gated, dropout = (None if path is None else get_module(model, path) for path in (block.gated, block.dropout))
        dtype = getattr(torch, execution.frozen_dtype)
        split = SplitFeedForward(up, activation, down, chosen, policy, dtype, rows, gated, dropout, block.names)
        _stand_in(model, block, split.front, split)
    return model


def split_heads(model: nn.Module, layout: ModelLayout, heads: Sequence[Optional[Sequence[int]]]) -> nn.Module:
    """Split the attentions of ``model``, in place.

    Args:
        heads: for each layer the indices of its trained heads; none freezes all of its attention's maps, None leaves
            them as they are.

    Raises:
        ValueError: for a wrong number of entries, an index outside a layer's heads, or a layer whose heads can't be
            split.
    """
    if len(heads) != len(layout.layers):
        raise ValueError("{} selections of heads for {} layers".format(len(heads), len(layout.layers)))
    for layer, chosen in zip(layout.layers, heads):
        if chosen is None:
            continue
        if len(chosen) and not layer.heads:
            raise ValueError("the heads of {} can't be split".format(layer.path))
        if len(chosen) and not 0 <= min(chosen) <= max(chosen) < layer.heads:
            raise ValueError("trained heads of {} are outside 0 to {}".format(layer.path, layer.heads - 1))
        for each in layer.head_maps:
            linear = get_module(model, each.path)
            if len(chosen):
                split = SplitLinear(linear, layer.heads, chosen, each)
                set_module(model, each.path, split.train(model.training))
            else:
                linear.requires_grad_(False)
    return model


def _stand_in(model: nn.Module, block: FeedForwardLayout, before: nn.Module, stand_in: nn.Module) -> None:
    """Replace the second map by the block and the modules before by identities; a gated block is replaced whole."""
    if block.gated is None:
        set_module(model, block.up, before)
        set_module(model, block.activation, nn.Identity())
    set_module(model, block.split, stand_in.train(model.training))


def _pieces(model: nn.Module, layout: ModelLayout, execution: Execution) -> Dict[str, Callable[[Any], nn.Module]]:
    """Return the replacements of modules by path."""
    replacements: Dict[str, Callable[[Any], nn.Module]] = {}
    if execution.dropout == "seed":
        replacements.update((path, SeededDropout) for path in _all(layout, "dropouts"))
    if execution.layer_norm == "output":
        norms = (path for path in _all(layout, "norms") if rebuilds_input(get_module(model, path)))
        replacements.update((path, OutputLayerNorm) for path in norms)
    for layer in layout.layers:
        if execution.precision != "float32":
            replacements.update((path, partial(HalfLayerNorm, rows=execution.chunk_rows)) for path in layer.norms)
        attention = layer.self_attention
        if attention is not None and execution.attention == "recompute":
            replacements[attention.path] = partial(RecomputedAttention, layout=attention, rows=execution.chunk_rows)
    return replacements


def _all(layout: ModelLayout, kind: str) -> Iterator[str]:
    """The paths of one kind in the embeddings and in every layer."""
    for part in (layout,) + layout.layers:
        for path in getattr(part, kind):
            yield path


def execute(model: nn.Module, layout: ModelLayout, execution: Execution) -> nn.Module:
    """Replace attention, dropout and LayerNorm by those of ``execution``, in place; ``merge`` reverts it.

    Parameters must have gradients, or not, as in the training: the frozen ones are stored in the execution's precision.

    Raises:
        ValueError: as ``checked``, and for a precision that a model does not support.
    """
    if execution.precision != "float32" and not layout.recomputes_attention:
        raise ValueError("precision is {!r}; this model supports only 'float32'".format(execution.precision))
    for path, stand_in in _pieces(model, layout, checked(execution)).items():
        set_module(model, path, stand_in(get_module(model, path)).train(model.training))
    for layer in layout.layers if execution.checkpointing else ():
        module = get_module(model, layer.path)
        # not by transformers' switch: it gives the embeddings' output a gradient, and so everything below the lowest
        # trained parameter
        module.forward = checkpointed(module.forward)
    if execution.precision != "float32":
        lower_layers(model, layout, getattr(torch, execution.precision))
    return model


def merge(model: nn.Module, layout: ModelLayout) -> nn.Module:
    """Revert ``apply_far`` in place. All parameters have gradients again."""
    raise_layers(model, layout)
    for block in layout.blocks:
        stand_in = get_module(model, block.split)
        if isinstance(stand_in, (SplitFeedForward, WholeFeedForward)):
            modules = stand_in.release()
            if isinstance(stand_in, SplitFeedForward) and block.gated is not None:
                set_module(model, block.gated, stand_in.stands_for[0])
            for path, module in zip((block.up, block.activation, block.down), modules):
                set_module(model, path, module)
    for path, module in list(model.named_modules()):
        if isinstance(module, _STAND_INS):
            set_module(model, path, module.release())
    for layer in layout.layers:
        get_module(model, layer.path).__dict__.pop("forward", None)
        for linear_path in layer.attention:
            linear = get_module(model, linear_path)
            if isinstance(linear, SplitLinear):
                set_module(model, linear_path, linear.release())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.train(model.training)  # restored modules may be in another mode


def _parameters(model: nn.Module, paths: Sequence[str]) -> Iterator[nn.Parameter]:
    for path in paths:
        for parameter in get_module(model, path).parameters():
            yield parameter


def freeze(
    model: nn.Module,
    layout: ModelLayout,
    embeddings: bool = False,
    attention_layers: int = 0,
    bottom_layers: int = 0,
) -> nn.Module:
    """Disable gradients, in place, of parts other than feed-forward neurons.

    Args:
        embeddings: the embedding tables, their LayerNorm and their projection, and tables of relative positions.
        attention_layers: the number of lowest layers whose attention's linear maps are frozen; LayerNorms stay trained.
        bottom_layers: the number of lowest layers that are frozen completely, with the embeddings, so that the backward
            pass ends above them.
    """
    paths: List[str] = []
    if embeddings or bottom_layers:
        paths.extend(layout.bottom)
    for layer in layout.layers[:attention_layers]:
        paths.extend(layer.attention)
    paths.extend(layer.path for layer in layout.layers[:bottom_layers])
    for parameter in _parameters(model, paths):
        parameter.requires_grad_(False)
    return model


def trainable_count(model: nn.Module) -> int:
    """Return the number of parameters that have a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def width_of(model: nn.Module, layer: LayerLayout) -> int:
    """Return the number of hidden neurons of a layer's feed-forward blocks, which must not be split."""
    return int(get_module(model, layer.blocks[0].down).weight.shape[1])
