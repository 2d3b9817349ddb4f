"""What is recorded of a traced model of few layers: its segments, its trained tensors, and its elements in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from farsearch.cost.recorder import Segment, SegmentKey
from farsearch.far.layout import ModelLayout, get_module

__all__ = ["Sample", "Trained", "elements_in_half", "held_by_neuron", "trained_tensors"]


class Trained(NamedTuple):
    """Elements and dimensions of the trained tensors in the model's order: below the layers, in each, and above."""

    below: list[tuple[int, int]]
    layers: list[list[tuple[int, int]]]
    above: list[tuple[int, int]]


class Sample(NamedTuple):
    """The trace of a step at one length and number of learners.

    ``half`` are the elements in 16 bits of each layer, without zero padding, and last those outside of the layers.
    """

    length: int
    learners: int
    segments: Mapping[SegmentKey, Segment]
    trained: Trained
    half: Sequence[int]

    def at(self, key: SegmentKey) -> Segment:
        """Return a segment, which is empty if it does not occur."""
        return self.segments.get(key, Segment())


def held_by_neuron(model: nn.Module, layout: ModelLayout) -> tuple[int, int]:
    """Return the elements per hidden neuron of all blocks of a layer together: in matrices, and in biases."""
    weights = biases = 0
    for block in layout.layers[0].blocks:
        up, down = get_module(model, block.up), get_module(model, block.down)
        rows = up.weight.shape[0] // down.weight.shape[1]
        weights += rows * up.weight.shape[1] + down.weight.shape[0]
        biases += rows * (up.bias is not None)
    return weights, biases


def elements_in_half(module: nn.Module) -> int:
    """Return the elements of a module's parameters that are stored in 16 bits."""
    return sum(p.numel() for p in module.parameters() if p.element_size() == 2)


def trained_tensors(model: nn.Module, layout: ModelLayout) -> Trained:
    """Return the tensors of a model that have a gradient."""
    trained = Trained([], [[] for _ in layout.layers], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = [i for i, layer in enumerate(layout.layers) if name.startswith(f"{layer.path}.")]
            is_below = name.startswith(tuple(f"{path}." for path in (layout.embeddings, *layout.below)))
            where = trained.layers[inside[0]] if inside else trained.below if is_below else trained.above
            where.append((parameter.numel(), parameter.dim()))
    return trained
