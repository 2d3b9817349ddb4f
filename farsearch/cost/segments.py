"""The parts of a step: segments whose sizes are polynomials of length and learners, and the tensors that it trains.

Products of tensor shapes are of degree 2 in the length and 1 in the learners, so three lengths and two numbers of
learners determine the sizes of a segment at any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.operations import CATEGORIES, FEATURES, OPERATION_KINDS
from farsearch.cost.recorder import Segment
from farsearch.far.ffn import padding

__all__ = [
    "EVENT_KINDS",
    "LENGTHS",
    "Array",
    "Composed",
    "DifferentEntries",
    "Indices",
    "Part",
    "Tensors",
    "evaluate",
    "fit_part",
    "fixed_tensors",
    "part_between",
]

EVENT_KINDS = ("temporary", "saved", "mask", "gradient", "added")

LENGTHS = (32, 64, 96)
"""Tokens at which steps are traced: three, for polynomials of degree 2; multiples of 32, to which a fused attention
kernel rounds."""
_DENOMINATOR = 1024
"""Of the polynomials' coefficients."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """Polynomials of one segment in length T and learners k, over the basis 1, T, T², k, kT.

    There is no k T²: k counts neurons, and a layer with another number of learner heads has another part.

    Attributes:
        events: bytes allocated (+) and freed (-), ``[events, 5]``; ``event_kinds`` indexes ``EVENT_KINDS``.
        operations: ``[operations, features, 5]``, features as in ``FEATURES``; ``operation_kinds`` indexes
            ``OPERATION_KINDS``, ``categories`` indexes ``CATEGORIES``.
        width: neurons of the layer where its learners can be any share of them, else 0.
    """

    events: Array
    event_kinds: Indices
    operations: Array
    operation_kinds: Indices
    categories: Indices
    width: int = 0

    def sizes(self, length: float | Array, learners: int | Indices) -> Array:
        """Return the bytes of each event, ``[events, ...]``; length and learners broadcast against each other."""
        return evaluate(self.events, length, learners, self.width)

    def work(self, length: float | Array, learners: int | Indices) -> Array:
        """Return the features of each operation: ``[operations, features, ...]``."""
        return evaluate(self.operations, length, learners, self.width)


def evaluate(coefficients: Array, length: float | Array, learners: int | Indices, width: int) -> Array:
    """Evaluate polynomials ``[..., 5]`` of a layer of ``width`` neurons, with zero padding (far.ffn.padding)."""
    k = np.asarray(learners)
    t = np.asarray(length, dtype=np.float64)
    t = t.reshape((1,) * (k.ndim - t.ndim) + t.shape)
    ones = np.ones_like(t)
    constant = np.tensordot(coefficients[..., :3], np.stack([ones, t, t * t]), 1)
    slope = np.tensordot(coefficients[..., 3:], np.stack([ones, t]), 1)
    plain = np.asarray(constant + slope * k)
    if not width:
        return plain
    # a size that shrinks with more learners is of the frozen neurons, which are padded
    padded = np.array([padding(width, one) for one in k.ravel().tolist()]).reshape(k.shape)
    return np.asarray(plain - np.where(slope * plain < 0, slope, 0.0) * padded)


@dataclass(frozen=True, eq=False)
class Tensors:
    """Trained tensors of a layer, or below or above the layers, in the model's order.

    Attributes:
        elements: ``[tensors, 2]``, a constant and the slope in learners.
        matrices: which of them have more than one dimension.
        width: as in ``Part``.
    """

    elements: Array
    matrices: NDArray[np.bool_]
    width: int = 0

    def sizes(self, learners: int | Indices) -> Array:
        """Return the elements of each tensor: ``[tensors, ...]``."""
        k = np.asarray(learners, dtype=np.float64)
        return np.asarray(np.tensordot(self.elements, np.stack([np.ones_like(k), k]), 1))


@dataclass(frozen=True)
class Composed:
    """Steps of many configurations, each a row of parts with its numbers of learners.

    Attributes:
        parts: those that occur. ``part_of`` indexes them in the order of the segments, ``learners`` are the part's:
            ``[segments, configurations]``.
        tensors: groups of trained tensors that occur. ``tensors_of`` indexes them in the model's order,
            ``tensor_learners`` are the group's: ``[groups, configurations]``.
        static_bytes: of parameters and buffers, ``[configurations]``.
    """

    parts: tuple[Part, ...]
    part_of: Indices
    learners: Indices
    tensors: tuple[Tensors, ...]
    tensors_of: Indices
    tensor_learners: Indices
    static_bytes: Array


def fit_part(samples: Sequence[tuple[float, float, Segment]], width: int = 0) -> Part:
    """Fit polynomials to the same segment at several (length, learners); ``width`` as in ``Part``."""
    first = samples[0][2]
    basis = np.array([[1.0, t, t * t, k, k * t] for t, k, _ in samples])
    scale = np.maximum(basis.max(axis=0), 1.0)

    def through(values: list[list[int]]) -> Array:
        shape = {len(row) for row in values}
        if len(shape) != 1:
            raise AssertionError(f"a segment has {sorted(shape)} entries at different sizes")
        if shape == {0}:
            return np.zeros((0, 5))
        solution = np.linalg.lstsq(basis / scale, np.asarray(values, dtype=np.float64), rcond=None)[0]
        return _rounded(solution.T / scale)

    return Part(
        events=through([[event.size for event in segment.events] for *_, segment in samples]),
        event_kinds=np.array([EVENT_KINDS.index(event.kind) for event in first.events], dtype=np.int64),
        operations=through(
            [[getattr(op, name) for op in segment.operations for name in FEATURES] for *_, segment in samples]
        ).reshape(len(first.operations), len(FEATURES), 5),
        operation_kinds=np.array([OPERATION_KINDS.index(op.kind) for op in first.operations], dtype=np.int64),
        categories=np.array([CATEGORIES.index(op.category) for op in first.operations], dtype=np.int64),
        width=width,
    )


class DifferentEntries(Exception):
    """Two parts do not have the same entries in the same order, so nothing follows for what lies between them."""


def part_between(low: Part, high: Part, share: float) -> Part:
    """Return the part at ``share`` of the way from one to the other, between which all sizes are linear.

    Raises:
        DifferentEntries: when they have not the same entries.
    """
    kinds = ("event_kinds", "operation_kinds", "categories")
    if any(not np.array_equal(getattr(low, name), getattr(high, name)) for name in kinds):
        raise DifferentEntries
    events, operations = (
        _rounded(getattr(low, name) + share * (getattr(high, name) - getattr(low, name)))
        for name in ("events", "operations")
    )
    return dataclasses.replace(low, events=events, operations=operations)


def _rounded(coefficients: Array) -> Array:
    """Products of shapes are simple fractions: the rest is rounding, by which equal operations would differ."""
    return np.asarray(np.rint(coefficients * _DENOMINATOR) / _DENOMINATOR + 0.0, dtype=np.float64)


def fixed_tensors(tensors: Sequence[tuple[int, int]]) -> Tensors:
    """Return tensors of these (elements, dimensions), independent of the learners."""
    elements = np.array([[size, 0] for size, _ in tensors], dtype=np.float64).reshape(-1, 2)
    return Tensors(elements, np.array([dimensions > 1 for _, dimensions in tensors], dtype=np.bool_))
