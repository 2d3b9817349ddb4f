"""Look-up tables of one model and batch size, from which any configuration's step is composed.

A step is the same sequence of allocations and operations wherever a layer is of the same kind. So each kind is traced
once, as the middle layer of a model of three, at three lengths and two learner counts; sizes are then polynomials of
length and learners (products of tensor shapes are of degree 2 in the length and 1 in the learners), and a
configuration is priced by adding up what its layers are. A test compares composed with traced on random settings.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from farsearch.cost.operations import CATEGORIES, FEATURES, OPERATION_KINDS
from farsearch.cost.plans import execution_of
from farsearch.cost.trace import Segment, backward_optimizer, meta_tensors, trace_step
from farsearch.far.execution import Execution
from farsearch.far.ffn import padding
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.selection import learner_counts
from farsearch.far.surgery import apply_far, width_of
from farsearch.models.load import build_model
from farsearch.records import FarConfig, StepPlan

__all__ = [
    "EVENT_KINDS",
    "LENGTHS",
    "Composed",
    "LayerKind",
    "Neurons",
    "Part",
    "StepTable",
    "fit_part",
]

EVENT_KINDS = ("temporary", "saved", "mask", "gradient")

LENGTHS = (16, 32, 64)
"""Tokens at which steps are traced: three, for polynomials of degree 2."""
_SHARES = (0.25, 0.5)
"""Shares of learners at which a split layer is traced."""

_MODULES = StepPlan()

Array = NDArray[np.float64]


class LayerKind(NamedTuple):
    """What decides the sequence of a layer's allocations.

    ``ffn``: ``full``, ``split``, ``none`` (all neurons frozen) or ``idle`` (nothing in the layer is trained).
    ``attention``: its linear maps are trained. ``live``: its input has a gradient.
    """

    ffn: Literal["full", "split", "none", "idle"]
    attention: bool
    live: bool


class Neurons(NamedTuple):
    """Learners of a split layer, and neurons of nothing that pad its frozen ones (far.ffn.padding); else 0 and 0."""

    learners: int = 0
    padding: int = 0


@dataclass(frozen=True)
class Part:
    """Polynomials of one segment in length T and learners k, over the basis 1, T, T², k, kT.

    There is no k T²: attention has no learners.

    Attributes:
        events: bytes that come (+) and go (-), ``[events, 5]``; ``event_kinds`` indexes ``EVENT_KINDS``.
        operations: ``[operations, features, 5]``, features as in ``FEATURES``; ``operation_kinds`` indexes
            ``OPERATION_KINDS``, ``categories`` indexes ``CATEGORIES``.
    """

    events: Array
    event_kinds: NDArray[np.int64]
    operations: Array
    operation_kinds: NDArray[np.int64]
    categories: NDArray[np.int64]

    def sizes(self, length: float | Array, neurons: Neurons) -> Array:
        """Bytes of each event at one length, or an array of lengths: ``[events]`` or ``[events, lengths]``."""
        return _evaluate(self.events, length, neurons)

    def work(self, length: float | Array, neurons: Neurons) -> Array:
        """Features of each operation: ``[operations, features]`` or ``[operations, features, lengths]``."""
        flat = _evaluate(self.operations.reshape(-1, 5), length, neurons)
        return flat.reshape(*self.operations.shape[:2], *flat.shape[1:])


def _evaluate(coefficients: Array, length: float | Array, neurons: Neurons) -> Array:
    t = np.asarray(length, dtype=np.float64)
    ones = np.ones_like(t)
    constant = coefficients[:, :3] @ np.stack([ones, t, t * t])
    slope = coefficients[:, 3:] @ np.stack([ones, t])
    plain = constant + slope * neurons.learners
    # what shrinks when there are more learners is of the frozen neurons, and those of nothing are among them
    frozen = slope * plain < 0
    return np.asarray(plain - np.where(frozen, slope, 0.0) * neurons.padding)


@dataclass(frozen=True)
class _Layer:
    """A layer of one kind: its two segments, and its trained tensors' sizes as ``[tensors, 2]`` (1 and k)."""

    forward: Part
    backward: Part
    trained: Array
    matrices: NDArray[np.bool_]


@dataclass(frozen=True)
class _Ends:
    """What stands around the layers above the lowest: embeddings, the lowest layer, the head.

    ``below`` and ``above`` are elements and dimensions of the trained tensors outside the layers.
    """

    start: Part
    lowest: _Layer
    head: Part
    backward_head: Part
    backward_embeddings: Part
    below: list[tuple[int, int]]
    above: list[tuple[int, int]]


@dataclass(frozen=True)
class Composed:
    """A step of one configuration: segments in order, each with its learners, and the trained tensors.

    Attributes:
        trained: their sizes in the model's order; ``matrices`` says which of them have more than one dimension.
    """

    parts: tuple[tuple[str, Part, Neurons], ...]
    trained: Array
    matrices: NDArray[np.bool_]


def fit_part(samples: Sequence[tuple[float, float, Segment]]) -> Part:
    """Polynomials through the same segment at several (length, learners)."""
    first = samples[0][2]
    basis = np.array([[1.0, t, t * t, k, k * t] for t, k, _ in samples])
    if len({learners for _, learners, _ in samples}) == 1:
        basis[:, 3:] = 0.0

    def through(values: list[list[int]]) -> Array:
        shape = {len(row) for row in values}
        if len(shape) != 1:
            raise AssertionError(f"a segment has {sorted(shape)} entries at different sizes")
        if shape == {0}:
            return np.zeros((0, 5))
        solution = np.linalg.lstsq(basis, np.asarray(values, dtype=np.float64), rcond=None)[0]
        return np.asarray(solution.T, dtype=np.float64)

    return Part(
        events=through([[event.size for event in segment.events] for *_, segment in samples]),
        event_kinds=np.array([EVENT_KINDS.index(event.kind) for event in first.events], dtype=np.int64),
        operations=through(
            [[getattr(op, name) for op in segment.operations for name in FEATURES] for *_, segment in samples]
        ).reshape(len(first.operations), len(FEATURES), 5),
        operation_kinds=np.array([OPERATION_KINDS.index(op.kind) for op in first.operations], dtype=np.int64),
        categories=np.array([CATEGORIES.index(op.category) for op in first.operations], dtype=np.int64),
    )


class StepTable:
    """Traces kinds of layers when they are first asked for, and keeps them.

    Args:
        config: transformers configuration of the model.
        classes: size of its head.
        batch_size: rows that go through the model at once.
        plan: how a step is executed; its micro-batch size is ``batch_size``.
        chunk_rows: rows whose temporaries live together, where the plan works in portions.
    """

    def __init__(
        self, config: Any, classes: int, batch_size: int, plan: StepPlan = _MODULES, chunk_rows: int | None = None
    ) -> None:
        self.batch_size = batch_size
        self.plan = plan
        self._execution = execution_of(plan, chunk_rows)
        self._classes = classes
        self._config = copy.deepcopy(config)
        self._config.num_hidden_layers = 3
        self._layers: dict[LayerKind, _Layer] = {}
        self._ends: dict[tuple[LayerKind, bool, bool], _Ends] = {}
        with meta_tensors():
            model, layout = build_model(config, classes)
        self.layers = len(layout.layers)
        self.width = width_of(model, layout.layers[0])
        self.parameters = sum(p.numel() for p in model.parameters())
        self._static_bytes = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        self.hidden = int(get_module(model, layout.layers[0].up).weight.shape[1])

    def static_bytes(self, config: FarConfig) -> float:
        """Bytes of parameters and buffers: frozen neurons may be held in fewer bits."""
        saved = 4 - getattr(torch, self.plan.frozen_dtype).itemsize
        split = [k for kind, k in self.kinds(config) if kind.ffn in ("split", "none")]
        nothing = sum(padding(self.width, k) for k in split)
        frozen = sum(self.width - k for k in split)
        added = nothing * (2 * self.hidden * (4 - saved) + 4)
        return float(self._static_bytes - 2 * self.hidden * frozen * saved + added)

    def kinds(self, config: FarConfig) -> list[tuple[LayerKind, int]]:
        """Kind and number of learners of each layer, from the bottom."""
        config = config.canonical()
        bottom = config.frozen_bottom_layers
        live = not config.frozen_embeddings
        kinds = []
        for i, count in enumerate(learner_counts(self.width, config.frozen_fractions, bottom)):
            ffn: Literal["full", "split", "none", "idle"]
            ffn = "idle" if i < bottom else "full" if count is None else "split" if count else "none"
            kinds.append((LayerKind(ffn, i >= config.frozen_attention_layers, live), count or 0))
            live = live or i >= bottom
        return kinds

    def compose(self, config: FarConfig) -> Composed:
        """The step of a configuration."""
        kinds = self.kinds(config)
        top_live = any(kind.ffn != "idle" for kind, _ in kinds) or kinds[0][0].live
        ends = self._end_parts(kinds[0][0], not config.canonical().frozen_embeddings, top_live)
        layers = [ends.lowest, *(self._layer(kind) for kind, _ in kinds[1:])]
        counts = [self._neurons(kind, count) for kind, count in kinds]
        none = Neurons()
        parts = [("embeddings", ends.start, none)]
        parts += [(f"forward {i}", layer.forward, counts[i]) for i, layer in enumerate(layers)]
        parts += [("head", ends.head, none), ("backward head", ends.backward_head, none)]
        parts += [(f"backward {i}", layers[i].backward, counts[i]) for i in reversed(range(len(layers)))]
        parts += [("backward embeddings", ends.backward_embeddings, none)]
        trained = [layer.trained @ np.array([1.0, n.learners]) for layer, n in zip(layers, counts, strict=True)]
        return Composed(
            tuple(parts),
            np.concatenate([_sizes(ends.below), *trained, _sizes(ends.above)]),
            np.concatenate([_matrices(ends.below), *(layer.matrices for layer in layers), _matrices(ends.above)]),
        )

    def _neurons(self, kind: LayerKind, learners: int) -> Neurons:
        # a layer without learners was traced with its own padding
        return Neurons(learners, padding(self.width, learners) if kind.ffn == "split" else 0)

    def _layer(self, kind: LayerKind) -> _Layer:
        if kind not in self._layers:
            below = LayerKind("full", True, True) if kind.live else LayerKind("idle", False, False)
            samples = self._samples([below, kind, LayerKind("full", True, True)], 1, kind.live)
            self._layers[kind] = self._fit_layer(samples, 1)
        return self._layers[kind]

    def _end_parts(self, lowest: LayerKind, embeddings: bool, top_live: bool) -> _Ends:
        key = (lowest, embeddings, top_live)
        if key not in self._ends:
            above = LayerKind("full", True, True) if top_live else LayerKind("idle", False, False)
            samples = self._samples([lowest, above, above], 0, embeddings)
            parts = {
                name: fit_part([(length, k, traced.get(name, Segment())) for length, k, traced, _ in samples])
                for name in ("start", "head", "backward head", "backward embeddings")
            }
            self._ends[key] = _Ends(
                parts["start"],
                self._fit_layer(samples, 0),
                parts["head"],
                parts["backward head"],
                parts["backward embeddings"],
                samples[0][3]["below"],
                samples[0][3]["above"],
            )
        return self._ends[key]

    @staticmethod
    def _fit_layer(samples: list[Any], i: int) -> _Layer:
        names = (f"forward {i}", f"backward {i}")
        forward, backward = (
            fit_part([(length, k, traced.get(name, Segment())) for length, k, traced, _ in samples]) for name in names
        )
        (k0, tensors0), (k1, tensors1) = ((sample[1], sample[3][f"layer {i}"]) for sample in (samples[0], samples[-1]))
        sizes0, sizes1 = _sizes(tensors0), _sizes(tensors1)
        slope = (sizes1 - sizes0) / (k1 - k0) if k1 != k0 else np.zeros_like(sizes0)
        return _Layer(forward, backward, np.stack([sizes0 - slope * k0, slope], axis=1), _matrices(tensors0))

    def _samples(self, kinds: list[LayerKind], i: int, embeddings: bool) -> list[Any]:
        """Traces of a model of three layers at every length and learner count that the kind of layer i needs."""
        shares = _SHARES if kinds[i].ffn == "split" else _SHARES[:1]
        samples = []
        for share in shares:
            # for the second count of learners two lengths are enough
            lengths = LENGTHS if share == _SHARES[0] else LENGTHS[:2]
            k = round(self.width * share)
            k -= padding(self.width, k)  # so many that nothing is padded
            with meta_tensors():
                model, layout = build_model(self._config, self._classes)
            _apply_kinds(model, layout, kinds, k, embeddings, self._execution)
            trained = _trained_tensors(model, layout)
            optimizer = backward_optimizer(self.plan, model)
            for length in lengths:
                traced = trace_step(model, layout, self.batch_size, length, optimizer)
                model.zero_grad()
                samples.append((length, k if kinds[i].ffn == "split" else 0, traced, trained))
        return samples


def _apply_kinds(
    model: nn.Module, layout: ModelLayout, kinds: list[LayerKind], k: int, embeddings: bool, execution: Execution
) -> None:
    learners = {"full": None, "idle": None, "split": range(k), "none": range(0)}
    bottom = sum(kind.ffn == "idle" for kind in kinds)
    apply_far(model, layout, [learners[kind.ffn] for kind in kinds], not embeddings, 0, bottom, execution)
    # not through apply_far: there attention freezes from the bottom, here in the one layer that is looked at
    for layer, kind in zip(layout.layers, kinds, strict=True):
        for path in () if kind.attention else layer.attention:
            get_module(model, path).requires_grad_(False)


def _trained_tensors(model: nn.Module, layout: ModelLayout) -> dict[str, list[tuple[int, int]]]:
    """Elements and dimensions of the trained tensors in the model's order: ``below`` the layers, in each, ``above``."""
    names = ("below", *(f"layer {i}" for i in range(len(layout.layers))), "above")
    tensors: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = [i for i, layer in enumerate(layout.layers) if name.startswith(f"{layer.path}.")]
            below = name.startswith(f"{layout.embeddings}.")
            where = f"layer {inside[0]}" if inside else "below" if below else "above"
            tensors[where].append((parameter.numel(), parameter.dim()))
    return tensors


def _sizes(tensors: Sequence[tuple[int, int]]) -> Array:
    return np.array([size for size, _ in tensors], dtype=np.float64)


def _matrices(tensors: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    return np.array([dimensions > 1 for _, dimensions in tensors], dtype=np.bool_)
