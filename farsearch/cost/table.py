"""Look-up tables of one model and batch size, from which any configuration's step is composed.

A step is the same sequence of allocations and operations wherever a layer is of the same kind. So each kind is traced
once, in a model of as few layers as show it, at three lengths and two learner counts; sizes are then polynomials of
length and learners (products of tensor shapes are of degree 2 in the length and 1 in the learners), and a
configuration is priced by adding up what its layers are. A test compares composed with traced on random settings.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from farsearch.cost.operations import CATEGORIES, FEATURES, OPERATION_KINDS
from farsearch.cost.plans import execution_of
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.trace import Segment, backward_optimizer, meta_tensors, trace_step
from farsearch.errors import BadInput
from farsearch.far.execution import Execution
from farsearch.far.ffn import padding
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.selection import learner_counts
from farsearch.far.surgery import apply_far, width_of
from farsearch.models.families import with_layers
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan

__all__ = [
    "EVENT_KINDS",
    "LENGTHS",
    "Composed",
    "LayerKind",
    "Part",
    "StepTable",
    "Tensors",
    "evaluate",
    "fit_part",
    "fixed_tensors",
]

EVENT_KINDS = ("temporary", "saved", "mask", "gradient", "added")

LENGTHS = (32, 64, 96)
"""Tokens at which steps are traced: three, for polynomials of degree 2; multiples of 32, to which a fused attention
kernel rounds."""
_SHARES = (0.25, 0.5)
"""Shares of learners at which a split layer is traced."""
_DENOMINATOR = 1024
"""Of the polynomials' coefficients."""

_MODULES, _SOFTWARE = StepPlan(), Software()

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class LayerKind(NamedTuple):
    """What decides the sequence of a layer's allocations.

    ``ffn``: ``full``, ``split``, ``none`` (all neurons frozen) or ``idle`` (nothing in the layer is trained).
    ``attention``: its linear maps are trained. ``live``: its input has a gradient. ``own``: of its layout. Where all
    layers read a table, ``shared``: that is trained, and ``top``: the layer's gradient of it is the first.
    """

    ffn: Literal["idle", "full", "split", "none"]
    attention: bool
    live: bool
    own: str = ""
    shared: bool = False
    top: bool = False


_FFN: Sequence[Literal["idle", "full", "split", "none"]] = ("idle", "full", "split", "none")
_KINDS = tuple(LayerKind(ffn, attention, live) for ffn in _FFN for attention in (False, True) for live in (False, True))
"""All kinds of a layer like any other; a configuration's layers are given by their indices, those of other layers
behind them."""


def _reach(kind: LayerKind) -> int:
    """What of a layer the backward pass reaches.

    Nothing, something, or its attention too, which keeps the attention mask until then.
    """
    return 2 if kind.attention or kind.live else int(kind.ffn != "idle")


_REACH = np.array([_reach(kind) for kind in _KINDS])
"""Of each of ``_KINDS``."""


@dataclass(frozen=True, eq=False)
class Part:
    """Polynomials of one segment in length T and learners k, over the basis 1, T, T², k, kT.

    There is no k T²: attention has no learners.

    Attributes:
        events: bytes that come (+) and go (-), ``[events, 5]``; ``event_kinds`` indexes ``EVENT_KINDS``.
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
        """Bytes of each event: ``[events, ...]``, where length and learners broadcast against each other."""
        return evaluate(self.events, length, learners, self.width)

    def work(self, length: float | Array, learners: int | Indices) -> Array:
        """Features of each operation: ``[operations, features, ...]``."""
        return evaluate(self.operations, length, learners, self.width)


def evaluate(coefficients: Array, length: float | Array, learners: int | Indices, width: int) -> Array:
    """Polynomials ``[..., 5]`` of a layer of so many neurons, with those of nothing among them (far.ffn.padding)."""
    k = np.asarray(learners)
    t = np.asarray(length, dtype=np.float64)
    t = t.reshape((1,) * (k.ndim - t.ndim) + t.shape)
    ones = np.ones_like(t)
    constant = np.tensordot(coefficients[..., :3], np.stack([ones, t, t * t]), 1)
    slope = np.tensordot(coefficients[..., 3:], np.stack([ones, t]), 1)
    plain = np.asarray(constant + slope * k)
    if not width:
        return plain
    # what shrinks when there are more learners is of the frozen neurons, and those of nothing are among them
    nothing = np.array([padding(width, one) for one in k.ravel().tolist()]).reshape(k.shape)
    return np.asarray(plain - np.where(slope * plain < 0, slope, 0.0) * nothing)


@dataclass(frozen=True, eq=False)
class Tensors:
    """Trained tensors of a layer, or of what is below or above the layers, in the model's order.

    Attributes:
        elements: ``[tensors, 2]``, a constant and the slope in learners.
        matrices: which of them have more than one dimension.
        width: as in ``Part``.
    """

    elements: Array
    matrices: NDArray[np.bool_]
    width: int = 0

    def sizes(self, learners: int | Indices) -> Array:
        """Elements of each: ``[tensors, ...]``."""
        k = np.asarray(learners, dtype=np.float64)
        return np.asarray(np.tensordot(self.elements, np.stack([np.ones_like(k), k]), 1))


@dataclass(frozen=True)
class _Layer:
    """A layer of one kind: its segments and its trained tensors."""

    forward: Part
    release: Part
    backward: Part
    trained: Tensors


@dataclass(frozen=True)
class _Ends:
    """What stands around the layers above the lowest: embeddings, the lowest layer, the head.

    ``below`` and ``above`` are the trained tensors outside the layers.
    """

    start: Part
    lowest: _Layer
    head: Part
    backward_head: Part
    backward_embeddings: Part
    below: Tensors
    above: Tensors


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
    """Polynomials through the same segment at several (length, learners); ``width`` as in ``Part``."""
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
        # products of shapes are whole numbers, and parts of them: what is beside is rounding, and would make equal
        # operations differ
        return np.asarray(np.rint(solution.T / scale * _DENOMINATOR) / _DENOMINATOR + 0.0, dtype=np.float64)

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


def fixed_tensors(tensors: Sequence[tuple[int, int]]) -> Tensors:
    """Of so many elements and dimensions each, whatever the learners."""
    elements = np.array([[size, 0] for size, _ in tensors], dtype=np.float64).reshape(-1, 2)
    return Tensors(elements, np.array([dimensions > 1 for _, dimensions in tensors], dtype=np.bool_))


_T = TypeVar("_T", Part, Tensors)


class StepTable:
    """Traces kinds of layers when they are first asked for, and keeps them.

    Args:
        config: transformers configuration of the model.
        head: what stands on it.
        batch_size: rows that go through the model at once.
        plan: how a step is executed; its micro-batch size is ``batch_size``.
        chunk_rows: rows whose temporaries live together, where the plan works in portions.
        software: of the device.
    """

    def __init__(
        self,
        config: Any,
        head: Head,
        batch_size: int,
        plan: StepPlan = _MODULES,
        chunk_rows: int | None = None,
        software: Software = _SOFTWARE,
    ) -> None:
        self.batch_size = batch_size
        self.plan, self.software = plan, software
        self._execution = execution_of(plan, chunk_rows)
        self._head = head
        self._config = copy.deepcopy(config)
        self._layers: dict[LayerKind, _Layer] = {}
        self._ends: dict[tuple[LayerKind, int], _Ends] = {}
        self._known: dict[tuple[Any, ...], Any] = {}
        with meta_tensors():
            model, layout = build_ordinary(config, head, software)
        self.layout = layout
        self.layers = len(layout.layers)
        self.width = width_of(model, layout.layers[0])
        self._all_kinds, self._variants = _kinds_of(layout)
        self.parameters = sum(p.numel() for p in model.parameters())
        self._static_bytes = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        self._held = _held_by_neuron(model, layout)
        self._padding = np.array([padding(self.width, k) for k in range(self.width + 1)])

    def compose(self, configs: Sequence[FarConfig]) -> Composed:
        """The steps of configurations.

        Raises:
            BadInput: for a configuration of another number of layers.
        """
        kinds, learners = self._kinds(configs)
        lowest, none = kinds[:, 0], np.zeros(len(kinds), dtype=np.int64)
        reach = _REACH[kinds % len(_KINDS)].max(axis=1)
        for row in np.unique(kinds, axis=0):
            self._learn([self._all_kinds[code] for code in row])
        pairs, at = np.unique(lowest * 3 + reach, return_inverse=True)
        ends = [self._ends[self._all_kinds[pair // 3], int(pair % 3)] for pair in pairs]
        inner = [(code, self._layers[self._all_kinds[code]]) for code in np.unique(kinds[:, 1:])]
        parts: dict[Part, int] = {}
        tensors: dict[Tensors, int] = {}

        def outer(values: Iterable[_T], numbers: dict[_T, int]) -> Indices:
            found = np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
            return np.asarray(found[at])

        def layers(values: Iterable[_T], lowest_values: Iterable[_T], numbers: dict[_T, int]) -> Indices:
            by_code = np.zeros(len(self._all_kinds), dtype=np.int64)
            for (code, _), value in zip(inner, values, strict=True):
                by_code[code] = numbers.setdefault(value, len(numbers))
            found: Indices = by_code[kinds.T]
            found[0] = outer(lowest_values, numbers)
            return found

        middle = [layer for _, layer in inner]
        releases = any(len(layer.release.events) for layer in (*middle, *(end.lowest for end in ends)))
        part_of = [
            outer((end.start for end in ends), parts),
            *layers((layer.forward for layer in middle), (end.lowest.forward for end in ends), parts),
            *(layers((x.release for x in middle), (end.lowest.release for end in ends), parts) if releases else ()),
            outer((end.head for end in ends), parts),
            outer((end.backward_head for end in ends), parts),
            *layers((layer.backward for layer in middle), (end.lowest.backward for end in ends), parts)[::-1],
            outer((end.backward_embeddings for end in ends), parts),
        ]
        tensors_of = [
            outer((end.below for end in ends), tensors),
            *layers((layer.trained for layer in middle), (end.lowest.trained for end in ends), tensors),
            outer((end.above for end in ends), tensors),
        ]
        return Composed(
            tuple(parts),
            np.stack(part_of),
            np.stack([none, *learners.T, *(learners.T if releases else ()), none, none, *learners.T[::-1], none]),
            tuple(tensors),
            np.stack(tensors_of),
            np.stack([none, *learners.T, none]),
            self._static(kinds, learners),
        )

    def _kinds(self, configs: Sequence[FarConfig]) -> tuple[Indices, Indices]:
        """Kind, by index, and number of learners of each block of each layer: ``[configurations, layers]`` both."""
        configs = [config.canonical() if config.frozen_bottom_layers else config for config in configs]
        for config in configs:
            if len(config.frozen_fractions) != self.layers:
                raise BadInput(
                    f"the configuration has {len(config.frozen_fractions)} frozen fractions; the model has "
                    f"{self.layers} layers, give one each"
                )
        counts = [learner_counts(self.width, c.frozen_fractions, c.frozen_bottom_layers) for c in configs]
        given = np.array([[-1 if k is None else k for k in row] for row in counts], dtype=np.int64)
        bottom, attention, embeddings = (
            np.array([getattr(config, name) for config in configs], dtype=np.int64)[:, None]
            for name in ("frozen_bottom_layers", "frozen_attention_layers", "frozen_embeddings")
        )
        layer = np.arange(self.layers)
        names = [_FFN.index(name) for name in ("idle", "full", "split", "none")]
        ffn = np.select([layer < bottom, given < 0, given > 0], names[:3], names[3])
        # below the lowest layer that is trained nothing has a gradient
        live = (embeddings == 0) | (layer > bottom)
        variant = self._variants[((embeddings == 0) & (bottom == 0)).astype(np.int64), layer]
        return variant * len(_KINDS) + ffn * 4 + (layer >= attention) * 2 + live, np.maximum(given, 0)

    def _static(self, kinds: Indices, learners: Indices) -> Array:
        """Bytes of parameters and buffers: frozen neurons may be held in fewer bits, and have some of nothing."""
        saved = 4 - getattr(torch, self.plan.frozen_dtype).itemsize
        split = np.isin(kinds % len(_KINDS) // 4, [_FFN.index("split"), _FFN.index("none")])
        nothing = np.where(split, self._padding[learners], 0).sum(axis=1)
        frozen = np.where(split, self.width - learners, 0).sum(axis=1)
        weights, biases = self._held
        added = nothing * (weights * (4 - saved) + 4 * biases)
        return np.asarray(self._static_bytes - float(weights) * frozen * saved + added)

    def _learn(self, kinds: Sequence[LayerKind]) -> None:
        """Trace what of the layers of a configuration is not known yet, in one model of as few layers as show it.

        The lowest layer is always among them, and the top one where that is of a kind of its own; a layer in between
        is the same wherever it stands.
        """
        reach = _furthest(kinds)
        missing = [kind for kind in dict.fromkeys(kinds[1:]) if kind not in self._layers]
        if not missing and (kinds[0], reach) in self._ends:
            return
        stack, top = [kinds[0]], kinds[-1:] if kinds[-1].top and len(kinds) > 1 else []
        like_others = kinds[0]._replace(ffn="full", attention=True, live=False, top=False)
        for kind in [*(kind for kind in missing if not kind.top), *top]:
            if kind.live and not _furthest(stack):
                stack.append(like_others)
            stack.append(kind)
        if _furthest(stack) < reach:
            stack.append(like_others._replace(attention=reach == 2, live=_furthest(stack) > 0))
        samples = self._samples(stack)
        layers = [self._fit_layer(samples, i, kind) for i, kind in enumerate(stack)]
        self._layers.update(zip(stack[1:], layers[1:], strict=True))
        start, head, backward_head, backward_embeddings = (
            self._same(fit_part([(sample.length, 0, sample.segments.get(name, Segment())) for sample in samples]))
            for name in ("start", "head", "backward head", "backward embeddings")
        )
        trained = samples[0].trained
        self._ends[kinds[0], reach] = _Ends(
            start, layers[0], head, backward_head, backward_embeddings,
            self._same(fixed_tensors(trained["below"])), self._same(fixed_tensors(trained["above"])),
        )  # fmt: skip

    def _fit_layer(self, samples: Sequence[_Sample], i: int, kind: LayerKind) -> _Layer:
        split = kind.ffn == "split"
        width = self.width if split else 0
        forward, release, backward = (
            self._same(
                fit_part([(s.length, s.learners * split, s.segments.get(name, Segment())) for s in samples], width)
            )
            for name in (f"forward {i}", f"release {i}", f"backward {i}")
        )
        first, last = samples[0], samples[-1]
        trained = fixed_tensors(first.trained[f"layer {i}"])
        if not split:
            return _Layer(forward, release, backward, self._same(trained))
        constant = trained.elements[:, 0]
        slope = (fixed_tensors(last.trained[f"layer {i}"]).elements[:, 0] - constant) / (last.learners - first.learners)
        elements = np.stack([constant - slope * first.learners, slope], axis=1)
        return _Layer(forward, release, backward, self._same(Tensors(elements, trained.matrices, width)))

    def _same(self, new: _T) -> _T:
        """The one that is known with the same numbers, else this one: what is looked up by it is there once."""
        numbers: list[Any] = [
            value.tobytes() if isinstance(value, np.ndarray) else value for value in vars(new).values()
        ]
        found: _T = self._known.setdefault((type(new), *numbers), new)
        return found

    def _samples(self, stack: Sequence[LayerKind]) -> list[_Sample]:
        """Traces of a model of these layers at every length and number of learners that their polynomials need."""
        own = [layer.kind for layer in self.layout.layers]
        config = with_layers(self._config, [own.index(kind.own) for kind in stack])
        samples = []
        for share in _SHARES if any(kind.ffn == "split" for kind in stack) else _SHARES[:1]:
            # for the second count of learners two lengths are enough
            lengths = LENGTHS if share == _SHARES[0] else LENGTHS[:2]
            k = round(self.width * share)
            k -= padding(self.width, k)  # so many that nothing is padded
            with meta_tensors():
                model, layout = build_ordinary(config, self._head, self.software)
            _apply_kinds(model, layout, stack, k, self._execution)
            trained = _trained_tensors(model, layout)
            optimizer = backward_optimizer(self.plan, model)
            for length in lengths:
                traced = trace_step(model, layout, self._head.batch(self.batch_size, length), self.software, optimizer)
                model.zero_grad()
                samples.append(_Sample(length, k, traced, trained))
        return samples


class _Sample(NamedTuple):
    """A trace, and elements and dimensions of the trained tensors by ``below``, ``layer i`` and ``above``."""

    length: int
    learners: int
    segments: Mapping[str, Segment]
    trained: Mapping[str, list[tuple[int, int]]]


def _furthest(kinds: Sequence[LayerKind]) -> int:
    """The most that the backward pass reaches of these layers."""
    return max(_reach(kind) for kind in kinds)


def _kinds_of(layout: ModelLayout) -> tuple[list[LayerKind], Indices]:
    """All kinds that layers of a model can be of, and in which group of ``len(_KINDS)`` of them each layer's are.

    The groups are ``[2, layers]``: with the embeddings frozen, and with them trained.
    """
    groups: dict[tuple[str, bool, bool], int] = {}
    shares, top = bool(layout.shared), len(layout.layers) - 1
    variants = [
        [
            groups.setdefault((layer.kind, shares and trained, shares and trained and i == top), len(groups))
            for i, layer in enumerate(layout.layers)
        ]
        for trained in (False, True)
    ]
    return [LayerKind(*kind[:3], *group) for group in groups for kind in _KINDS], np.array(variants, dtype=np.int64)


def _held_by_neuron(model: nn.Module, layout: ModelLayout) -> tuple[int, int]:
    """Numbers that all blocks of a layer together have for a hidden neuron of each: in matrices, and in biases."""
    weights = biases = 0
    for block in layout.layers[0].blocks:
        up, down = get_module(model, block.up), get_module(model, block.down)
        rows = up.weight.shape[0] // down.weight.shape[1]
        weights += rows * up.weight.shape[1] + down.weight.shape[0]
        biases += rows * (up.bias is not None)
    return weights, biases


def _apply_kinds(
    model: nn.Module, layout: ModelLayout, kinds: Sequence[LayerKind], k: int, execution: Execution
) -> None:
    learners = {"full": None, "idle": None, "split": range(k), "none": range(0)}
    bottom = sum(kind.ffn == "idle" for kind in kinds)
    chosen = layout.by_block([learners[kind.ffn] for kind in kinds])
    apply_far(model, layout, chosen, not kinds[0].live, 0, bottom, execution)
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
            below = name.startswith(tuple(f"{path}." for path in (layout.embeddings, *layout.below)))
            where = f"layer {inside[0]}" if inside else "below" if below else "above"
            tensors[where].append((parameter.numel(), parameter.dim()))
    return tensors
