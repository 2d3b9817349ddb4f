"""Reconfigure a model for FAR, and put it back together.

``reconfigure`` and ``merge`` are exact inverses: the same state dict, bit by bit, for any selection.
"""

from typing import Iterator, Optional, Sequence

from torch import nn

from .ffn import SplitFeedForward
from .layout import LayerLayout, ModelLayout, get_module, set_module

__all__ = ["apply_far", "freeze", "merge", "reconfigure", "trainable_count", "width_of"]


def apply_far(
    model: nn.Module,
    layout: ModelLayout,
    learners: Sequence[Optional[Sequence[int]]],
    frozen_embeddings: bool = False,
    frozen_attention_layers: int = 0,
    frozen_bottom_layers: int = 0,
) -> nn.Module:
    """Make ``model`` ready for the FAR phase, in place: ``reconfigure`` and ``freeze``."""
    reconfigure(model, layout, learners)
    return freeze(model, layout, frozen_embeddings, frozen_attention_layers, frozen_bottom_layers)


def reconfigure(model: nn.Module, layout: ModelLayout, learners: Sequence[Optional[Sequence[int]]]) -> nn.Module:
    """Split the feed-forward blocks of ``model``, in place.

    Args:
        learners: for each layer the indices of its learners, or None to leave it untouched.

    Raises:
        ValueError: where there is not one entry a layer, or an index is outside the block.
    """
    if len(learners) != len(layout.layers):
        raise ValueError("{} selections for {} layers".format(len(learners), len(layout.layers)))
    for layer, chosen in zip(layout.layers, learners):
        if chosen is None:
            continue
        up, activation, down = (get_module(model, path) for path in (layer.up, layer.activation, layer.down))
        width = up.weight.shape[0]
        if len(chosen) and not 0 <= min(chosen) <= max(chosen) < width:
            raise ValueError("learners of {} are outside 0 to {}".format(layer.path, width - 1))
        block = SplitFeedForward(up, activation, down, chosen)
        block.train(model.training)
        # the whole block stands where its second map was; what led there hands x through
        set_module(model, layer.up, nn.Identity())
        set_module(model, layer.activation, nn.Identity())
        set_module(model, layer.down, block)
    return model


def merge(model: nn.Module, layout: ModelLayout) -> nn.Module:
    """Undo ``reconfigure`` in place. All parameters have gradients again."""
    for layer in layout.layers:
        block = get_module(model, layer.down)
        if isinstance(block, SplitFeedForward):
            up, activation, down = block.release()
            set_module(model, layer.up, up)
            set_module(model, layer.activation, activation)
            set_module(model, layer.down, down)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


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
        embeddings: the embedding tables and their LayerNorm.
        attention_layers: the attention's linear maps in so many of the lowest layers; LayerNorms stay trained.
        bottom_layers: everything in so many of the lowest layers, and the embeddings, so that the backward pass ends
            above them.
    """
    paths = []
    if embeddings or bottom_layers:
        paths.append(layout.embeddings)
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
    """Number of hidden neurons of a layer's feed-forward block that is not split."""
    return int(get_module(model, layer.up).weight.shape[0])
