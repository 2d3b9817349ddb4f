"""Reconfigure a model for FAR, and put it back together.

``reconfigure`` and ``merge`` are exact inverses: the same state dict, bit by bit, for any selection. Frozen weights
that were held in fewer bits come back rounded. The state dict of a reconfigured model, read or written, is that of the
merged one, so that it is saved as an ordinary model at any time.
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
from .layout import FeedForwardLayout, LayerLayout, ModelLayout, get_module, set_module
from .norms import OutputLayerNorm, rebuilds_input

__all__ = ["apply_far", "execute", "freeze", "merge", "reconfigure", "trainable_count", "width_of"]

_MODULES = Execution()


def apply_far(
    model: nn.Module,
    layout: ModelLayout,
    learners: Sequence[Optional[Sequence[int]]],
    frozen_embeddings: bool = False,
    frozen_attention_layers: int = 0,
    frozen_bottom_layers: int = 0,
    execution: Execution = _MODULES,
) -> nn.Module:
    """Make ``model`` ready for the FAR phase, in place: ``reconfigure``, ``freeze`` and ``execute``.

    Args:
        learners: one entry a feed-forward block, as ``reconfigure`` takes them.
    """
    reconfigure(model, layout, learners, execution)
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
        execution: its ``feed_forward`` policy, with ``modules`` a block that trains all is left untouched.

    Raises:
        ValueError: where there is not one entry a block, an index is outside the block, or a policy is unknown or not
            for such blocks.
    """
    policy, rows = checked(execution).feed_forward, execution.chunk_rows
    if len(learners) != len(layout.blocks):
        raise ValueError("{} selections for {} feed-forward blocks".format(len(learners), len(layout.blocks)))
    for block, chosen in zip(layout.blocks, learners):
        if policy != "modules" and block.gated is not None:
            raise ValueError("{} is gated and knows the policy 'modules' alone, not {!r}".format(block.split, policy))
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


def _stand_in(model: nn.Module, block: FeedForwardLayout, before: nn.Module, stand_in: nn.Module) -> None:
    """Put a block where its second map was, and what led there hands x through; a gated one where all of it was."""
    if block.gated is None:
        set_module(model, block.up, before)
        set_module(model, block.activation, nn.Identity())
    set_module(model, block.split, stand_in.train(model.training))


def _pieces(model: nn.Module, layout: ModelLayout, execution: Execution) -> Dict[str, Callable[[Any], nn.Module]]:
    """What stands in for a module, by path."""
    found: Dict[str, Callable[[Any], nn.Module]] = {}
    if execution.dropout == "seed":
        found.update((path, SeededDropout) for path in _all(layout, "dropouts"))
    if execution.layer_norm == "output":
        norms = (path for path in _all(layout, "norms") if rebuilds_input(get_module(model, path)))
        found.update((path, OutputLayerNorm) for path in norms)
    for layer in layout.layers:
        attention = layer.self_attention
        if attention is not None and execution.attention == "recompute":
            found[attention.path] = partial(RecomputedAttention, layout=attention, rows=execution.chunk_rows)
    return found


def _all(layout: ModelLayout, kind: str) -> Iterator[str]:
    """The paths of one kind in the embeddings and in every layer."""
    for part in (layout,) + layout.layers:
        for path in getattr(part, kind):
            yield path


def execute(model: nn.Module, layout: ModelLayout, execution: Execution) -> nn.Module:
    """Let attention, dropout and LayerNorm be executed as ``execution`` says, in place; ``merge`` undoes it."""
    for path, stand_in in _pieces(model, layout, checked(execution)).items():
        set_module(model, path, stand_in(get_module(model, path)).train(model.training))
    for layer in layout.layers if execution.checkpointing else ():
        module = get_module(model, layer.path)
        # not by transformers' switch: it makes the embeddings' output need a gradient, and with it everything below
        # the lowest trained parameter
        module.forward = checkpointed(module.forward)
    return model


def merge(model: nn.Module, layout: ModelLayout) -> nn.Module:
    """Undo ``apply_far`` in place. All parameters have gradients again."""
    for block in layout.blocks:
        stand_in = get_module(model, block.split)
        if isinstance(stand_in, (SplitFeedForward, WholeFeedForward)):
            modules = stand_in.release()
            if isinstance(stand_in, SplitFeedForward) and block.gated is not None:
                set_module(model, block.gated, stand_in.stands_for[0])
            for path, module in zip((block.up, block.activation, block.down), modules):
                set_module(model, path, module)
    for path, module in list(model.named_modules()):
        if isinstance(module, (RecomputedAttention, SeededDropout, OutputLayerNorm)):
            set_module(model, path, module.release())
    for layer in layout.layers:
        get_module(model, layer.path).__dict__.pop("forward", None)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.train(model.training)  # what was put aside knows of no change of mode


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
    """Switch gradients off, in place, for parts that are not feed-forward neurons.

    Args:
        embeddings: the embedding tables, their LayerNorm and their projection, and tables of relative positions.
        attention_layers: the attention's linear maps in so many of the lowest layers; LayerNorms stay trained.
        bottom_layers: everything in so many of the lowest layers, and the embeddings, so that the backward pass ends
            above them.
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
    """Number of parameters that have a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def width_of(model: nn.Module, layer: LayerLayout) -> int:
    """Number of hidden neurons of a layer's feed-forward blocks, which are not split."""
    return int(get_module(model, layer.blocks[0].down).weight.shape[1])
