"""The step table of one model and batch size, from which the step of any configuration is composed.

Layers of the same kind have the same sequence of allocations and operations. So each kind is traced once, in a model of
as few layers as necessary, at three lengths and two learner counts; sizes are then polynomials of length and learners
(products of tensor shapes are of degree 2 in the length and 1 in the learners), and the step of a configuration is
composed from its layers. Kinds that differ in the number of learner heads are traced at two numbers, between which
their sizes are linear. A test compares composed with traced steps on random settings.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import nn

from farsearch.cost.compiled import compiled_step
from farsearch.cost.layer_kinds import LayerKind, LayerKinds, apply_kinds, furthest
from farsearch.cost.plans import execution_of
from farsearch.cost.recorder import Event, Phase, Segment, SegmentKey
from farsearch.cost.segments import (
    LENGTHS,
    Array,
    Composed,
    DifferentEntries,
    Indices,
    Part,
    Tensors,
    fit_part,
    fixed_tensors,
    part_between,
)
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.telling_count import TellingCount
from farsearch.cost.trace import meta_tensors, trace_step
from farsearch.cost.traces import Ends, Layer, Traces
from farsearch.far.execution import Execution
from farsearch.far.ffn import padding
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.surgery import width_of
from farsearch.models.families import with_layers
from farsearch.models.heads import Head
from farsearch.models.load import unusable
from farsearch.records import FarConfig, StepPlan

__all__ = ["StepTable"]

_SHARES = (0.25, 0.5)
"""Shares of learners at which a split layer is traced."""
_OUTSIDE: Sequence[Phase] = ("start", "head", "backward head", "backward embeddings")
_INSIDE: Sequence[Phase] = ("forward", "release", "backward")
_MODULES, _SOFTWARE = StepPlan(), Software()
_FURTHEST = 2
"""Reach of a backward pass that goes into attentions."""

_T = TypeVar("_T", Part, Tensors)


class StepTable:
    """Traces kinds of layers when they are first needed, and stores the traces.

    Args:
        config: transformers configuration of the model.
        head: of the model.
        batch_size: rows that go through the model at once.
        plan: of the step; its micro-batch size is ``batch_size``, and its optimizer steps at the end.
        chunk_rows: rows whose temporaries live together, if the plan works in portions.
        software: of the device.
        length: tokens of the rows of a compiled step, whose memory is known at this length alone; it has no operations.
        file: of the traces, as in ``Traces``.
    """

    def __init__(
        self,
        config: Any,
        head: Head,
        batch_size: int,
        plan: StepPlan = _MODULES,
        chunk_rows: int | None = None,
        software: Software = _SOFTWARE,
        length: int | None = None,
        file: Path | None = None,
    ) -> None:
        self.batch_size, self._length = batch_size, length
        self.plan, self.software = plan, software
        self._head = head
        self._config = copy.deepcopy(config)
        self._traces = Traces(file)
        with meta_tensors():
            model, layout = build_ordinary(config, head, software)
        self.layout = layout
        self.layers = len(layout.layers)
        self._execution = execution_of(plan, chunk_rows) if length is None else _compiled(layout, plan)
        self.width = width_of(model, layout.layers[0])
        self._kinds = LayerKinds(layout, self.width, top_differs=length is not None)
        self.parameters = sum(p.numel() for p in model.parameters())
        self._static_bytes = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        self._held = _held_by_neuron(model, layout)
        self._shapes = [tuple(tensor.shape) for tensor in [*model.parameters(), *model.buffers()]]
        self._padding = np.array([padding(self.width, k) for k in range(self.width + 1)])

    def compose(self, configs: Sequence[FarConfig]) -> Composed:
        """Return the steps of configurations.

        Raises:
            BadInput: for a configuration whose number of layers is not the model's, or a model that can't be run.
        """
        kinds, learners = self._kinds.codes(configs)
        lowest, none = kinds[:, 0], np.zeros(len(kinds), dtype=np.int64)
        reach = self._kinds.reach(kinds).max(axis=1)
        self._trace_all(self._kinds.traced(kinds))
        pairs, at = np.unique(lowest * 3 + reach, return_inverse=True)
        try:
            ends, inner = self._ends_and_layers(kinds, pairs)
        except DifferentEntries:
            # a compiled step may use a block again with one number of heads and not with another
            self._trace_all(kinds)
            ends, inner = self._ends_and_layers(kinds, pairs)
        parts: dict[Part, int] = {}
        tensors: dict[Tensors, int] = {}

        def outer(values: Iterable[_T], numbers: dict[_T, int]) -> Indices:
            codes = np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
            return np.asarray(codes[at])

        def layers(values: Iterable[_T], lowest_values: Iterable[_T], numbers: dict[_T, int]) -> Indices:
            by_code = np.zeros(len(self._kinds.all), dtype=np.int64)
            for (code, _), value in zip(inner, values, strict=True):
                by_code[code] = numbers.setdefault(value, len(numbers))
            codes: Indices = by_code[kinds.T]
            codes[0] = outer(lowest_values, numbers)
            return codes

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

    def _ends_and_layers(self, kinds: Indices, pairs: Indices) -> tuple[list[Ends], list[tuple[Any, Layer]]]:
        ends = [self._ends_of(self._kinds.all[pair // 3], int(pair % 3)) for pair in pairs]
        return ends, [(code, self._layer(self._kinds.all[code])) for code in np.unique(kinds[:, 1:])]

    def _static(self, kinds: Indices, learners: Indices) -> Array:
        """Bytes of parameters and buffers: frozen neurons may be stored in fewer bits, and are zero-padded."""
        saved = 4 - getattr(torch, self.plan.frozen_dtype).itemsize
        split = self._kinds.has_frozen_neurons(kinds)
        padded = np.where(split, self._padding[learners], 0).sum(axis=1)
        frozen = np.where(split, self.width - learners, 0).sum(axis=1)
        weights, biases = self._held
        added = padded * (weights * (4 - saved) + 4 * biases)
        static = self._static_bytes - self._traces.unused_bytes
        return np.asarray(static - float(weights) * frozen * saved + added)

    def _trace_all(self, codes: Indices) -> None:
        """Trace what is new in configurations, the layers with a gradient below of all of them in one model."""
        stacks = [[self._kinds.all[code] for code in row] for row in np.unique(codes, axis=0)]
        if all(map(self._is_traced, stacks)):
            return
        live = [kind for code in np.unique(codes[:, 1:]) if (kind := self._kinds.all[code]).live and not kind.top]
        with self._traces.shared():
            for kinds in stacks:
                top = len(kinds) - kinds[-1].top
                # others would make the backward pass reach further
                stack = [*kinds[:top], *live, *kinds[top:]] if furthest(kinds) == _FURTHEST else kinds
                if not self._is_traced(stack):
                    self._trace(stack)

    def _is_traced(self, kinds: Sequence[LayerKind]) -> bool:
        ends = kinds[0], furthest(kinds)
        return ends in self._traces.ends and all(kind in self._traces.layers for kind in kinds[1:])

    def _layer(self, kind: LayerKind) -> Layer:
        """Return a layer that is not the lowest: traced, or between two numbers of learner heads."""
        layers = self._traces.layers
        if kind not in layers:
            low, high, share = self._kinds.between(kind)
            layers[kind] = self._between(layers[low], layers[high], share)
        return layers[kind]

    def _ends_of(self, lowest: LayerKind, reach: int) -> Ends:
        """Return the ends of a model by its lowest layer, likewise."""
        ends = self._traces.ends
        if (lowest, reach) not in ends:
            low, high, share = self._kinds.between(lowest)
            layer = self._between(ends[low, reach].lowest, ends[high, reach].lowest, share)
            ends[lowest, reach] = dataclasses.replace(ends[low, reach], lowest=layer)
        return ends[lowest, reach]

    def _between(self, low: Layer, high: Layer, share: float) -> Layer:
        intern = self._traces.intern
        forward, release, backward = (
            intern(part_between(getattr(low, name), getattr(high, name), share))
            for name in ("forward", "release", "backward")
        )
        elements = low.trained.elements + share * (high.trained.elements - low.trained.elements)
        return Layer(forward, release, backward, intern(dataclasses.replace(low.trained, elements=np.rint(elements))))

    def _trace(self, kinds: Sequence[LayerKind]) -> None:
        """Trace the kinds of layers of a configuration that are new, in one model of as few layers as necessary.

        The lowest layer is always among them, and the top one if it has its own kind; a layer in between does not
        depend on its position.
        """
        reach = furthest(kinds)
        missing = [kind for kind in dict.fromkeys(kinds[1:]) if kind not in self._traces.layers]
        stack, top = [kinds[0]], kinds[-1:] if kinds[-1].top and len(kinds) > 1 else []
        like_others = kinds[0]._replace(ffn="full", heads=self._kinds.heads, live=False, top=False)
        for kind in [*(kind for kind in missing if not kind.top), *top]:
            if kind.live and not furthest(stack):
                stack.append(like_others)
            stack.append(kind)
        if furthest(stack) < reach:
            stack.append(like_others._replace(heads=self._kinds.heads * (reach == 2), live=furthest(stack) > 0))
        samples, traces = self._samples(stack), self._traces
        layers = [self._fit_layer(samples, i, kind) for i, kind in enumerate(stack)]
        traces.layers.update(zip(stack[1:], layers[1:], strict=True))
        start, head, backward_head, backward_embeddings = (
            traces.intern(fit_part([(sample.length, 0, sample.at(SegmentKey(phase))) for sample in samples]))
            for phase in _OUTSIDE
        )
        trained = samples[0].trained
        traces.ends[kinds[0], reach] = Ends(
            start, layers[0], head, backward_head, backward_embeddings,
            traces.intern(fixed_tensors(trained.below)), traces.intern(fixed_tensors(trained.above)),
        )  # fmt: skip

    def _fit_layer(self, samples: Sequence[_Sample], i: int, kind: LayerKind) -> Layer:
        split, intern = kind.ffn == "split", self._traces.intern
        width = self.width if split else 0
        forward, release, backward = (
            intern(fit_part([(s.length, s.learners * split, s.at(SegmentKey(phase, i))) for s in samples], width))
            for phase in _INSIDE
        )
        first, last = samples[0], samples[-1]
        trained = fixed_tensors(first.trained.layers[i])
        if not split:
            return Layer(forward, release, backward, intern(trained))
        constant = trained.elements[:, 0]
        slope = (fixed_tensors(last.trained.layers[i]).elements[:, 0] - constant) / (last.learners - first.learners)
        elements = np.stack([constant - slope * first.learners, slope], axis=1)
        return Layer(forward, release, backward, intern(Tensors(elements, trained.matrices, width)))

    def _samples(self, stack: Sequence[LayerKind]) -> list[_Sample]:
        """Trace a model of these layers at every length and number of learners that the polynomials need."""
        own = [layer.kind for layer in self.layout.layers]
        config = with_layers(self._config, [own.index(kind.own) for kind in stack])
        if self._length is not None:
            return self._compiled_samples(config, stack, self._length)
        samples = []
        for share in _SHARES if any(kind.ffn == "split" for kind in stack) else _SHARES[:1]:
            # two lengths suffice for the second count of learners
            lengths = LENGTHS if share == _SHARES[0] else LENGTHS[:2]
            k = round(self.width * share)
            k -= padding(self.width, k)  # a number without padding
            with meta_tensors():
                model, layout = build_ordinary(config, self._head, self.software)
            apply_kinds(model, layout, stack, k, self._execution)
            trained = _trained_tensors(model, layout)
            for length in lengths:
                batch = self._head.batch(self.batch_size, length)
                try:
                    traced = trace_step(model, layout, batch, self.software)
                except RuntimeError as error:  # incompatible shapes appear only in a step
                    raise unusable(self._config, error) from error
                model.zero_grad()
                samples.append(_Sample(length, k, traced, trained))
        return samples

    def _compiled_samples(self, config: Any, stack: Sequence[LayerKind], length: int) -> list[_Sample]:
        """Compile a model of these layers with one number of learners, by which the sizes with another are known."""
        known = {size for tensor in self._shapes for size in tensor}
        first = TellingCount.choose(self.width, {*known, self.batch_size, length - 1, length, length + 1})
        compiled = compiled_step(config, self._head, tuple(stack), first.learners, self._execution)
        self._traces.unused_bytes = compiled.unused_bytes
        segments = compiled.segments(self.batch_size, length)
        others = (round(self.width * share) for share in _SHARES)
        other = next(k for each in others if (k := each - padding(self.width, each)) != first.learners)
        samples: list[_Sample] = []
        for k in (first.learners, other):
            with meta_tensors():
                model, layout = build_ordinary(config, self._head, self.software)
            apply_kinds(model, layout, stack, k, self._execution)
            events = {
                SegmentKey(cast("Phase", phase), i): Segment(
                    [Event(first.bytes_with(k, each), kind) for kind, each in made]
                )
                for (phase, i), made in segments.items()
            }
            # one length alone is of degree 0 in it
            samples.append(_Sample(0, k, events, _trained_tensors(model, layout)))
        return samples


class _Trained(NamedTuple):
    """Elements and dimensions of the trained tensors in the model's order: below the layers, in each, and above."""

    below: list[tuple[int, int]]
    layers: list[list[tuple[int, int]]]
    above: list[tuple[int, int]]


class _Sample(NamedTuple):
    """The trace of a step at one length and number of learners."""

    length: int
    learners: int
    segments: Mapping[SegmentKey, Segment]
    trained: _Trained

    def at(self, key: SegmentKey) -> Segment:
        return self.segments.get(key, Segment())


def _compiled(layout: ModelLayout, plan: StepPlan) -> Execution:
    from farsearch.graph.compiler import engine_execution  # needs the package onnx

    return engine_execution(layout, plan)


def _held_by_neuron(model: nn.Module, layout: ModelLayout) -> tuple[int, int]:
    """Elements per hidden neuron of all blocks of a layer together: in matrices, and in biases."""
    weights = biases = 0
    for block in layout.layers[0].blocks:
        up, down = get_module(model, block.up), get_module(model, block.down)
        rows = up.weight.shape[0] // down.weight.shape[1]
        weights += rows * up.weight.shape[1] + down.weight.shape[0]
        biases += rows * (up.bias is not None)
    return weights, biases


def _trained_tensors(model: nn.Module, layout: ModelLayout) -> _Trained:
    trained = _Trained([], [[] for _ in layout.layers], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = [i for i, layer in enumerate(layout.layers) if name.startswith(f"{layer.path}.")]
            is_below = name.startswith(tuple(f"{path}." for path in (layout.embeddings, *layout.below)))
            where = trained.layers[inside[0]] if inside else trained.below if is_below else trained.above
            where.append((parameter.numel(), parameter.dim()))
    return trained
