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
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from farsearch.cost.layer_kinds import LayerKind, LayerKinds, apply_kinds, furthest
from farsearch.cost.plans import execution_of
from farsearch.cost.segments import LENGTHS, Array, Composed, Indices, Part, Tensors, fit_part, fixed_tensors
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.trace import Segment, meta_tensors, trace_step
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
_MODULES, _SOFTWARE = StepPlan(), Software()


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


_T = TypeVar("_T", Part, Tensors)


class StepTable:
    """Traces kinds of layers when they are first asked for, and keeps them.

    Args:
        config: transformers configuration of the model.
        head: what stands on it.
        batch_size: rows that go through the model at once.
        plan: how a step is executed; its micro-batch size is ``batch_size``, and its optimizer steps at the end.
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
        self._kinds = LayerKinds(layout, self.width)
        self.parameters = sum(p.numel() for p in model.parameters())
        self._static_bytes = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        self._held = _held_by_neuron(model, layout)
        self._padding = np.array([padding(self.width, k) for k in range(self.width + 1)])

    def compose(self, configs: Sequence[FarConfig]) -> Composed:
        """The steps of configurations.

        Raises:
            BadInput: for a configuration of another number of layers, or of a model that can't be run.
        """
        kinds, learners = self._kinds.codes(configs)
        lowest, none = kinds[:, 0], np.zeros(len(kinds), dtype=np.int64)
        reach = self._kinds.reach(kinds).max(axis=1)
        for row in np.unique(kinds, axis=0):
            self._learn([self._kinds.all[code] for code in row])
        pairs, at = np.unique(lowest * 3 + reach, return_inverse=True)
        ends = [self._ends[self._kinds.all[pair // 3], int(pair % 3)] for pair in pairs]
        inner = [(code, self._layers[self._kinds.all[code]]) for code in np.unique(kinds[:, 1:])]
        parts: dict[Part, int] = {}
        tensors: dict[Tensors, int] = {}

        def outer(values: Iterable[_T], numbers: dict[_T, int]) -> Indices:
            found = np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
            return np.asarray(found[at])

        def layers(values: Iterable[_T], lowest_values: Iterable[_T], numbers: dict[_T, int]) -> Indices:
            by_code = np.zeros(len(self._kinds.all), dtype=np.int64)
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

    def _static(self, kinds: Indices, learners: Indices) -> Array:
        """Bytes of parameters and buffers: frozen neurons may be held in fewer bits, and have some of nothing."""
        saved = 4 - getattr(torch, self.plan.frozen_dtype).itemsize
        split = self._kinds.has_frozen_neurons(kinds)
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
        reach = furthest(kinds)
        missing = [kind for kind in dict.fromkeys(kinds[1:]) if kind not in self._layers]
        if not missing and (kinds[0], reach) in self._ends:
            return
        stack, top = [kinds[0]], kinds[-1:] if kinds[-1].top and len(kinds) > 1 else []
        like_others = kinds[0]._replace(ffn="full", attention=True, live=False, top=False)
        for kind in [*(kind for kind in missing if not kind.top), *top]:
            if kind.live and not furthest(stack):
                stack.append(like_others)
            stack.append(kind)
        if furthest(stack) < reach:
            stack.append(like_others._replace(attention=reach == 2, live=furthest(stack) > 0))
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
            apply_kinds(model, layout, stack, k, self._execution)
            trained = _trained_tensors(model, layout)
            for length in lengths:
                batch = self._head.batch(self.batch_size, length)
                try:
                    traced = trace_step(model, layout, batch, self.software)
                except RuntimeError as error:  # shapes that do not go together show in a step alone
                    raise unusable(self._config, error) from error
                model.zero_grad()
                samples.append(_Sample(length, k, traced, trained))
        return samples


class _Sample(NamedTuple):
    """A trace, and elements and dimensions of the trained tensors by ``below``, ``layer i`` and ``above``."""

    length: int
    learners: int
    segments: Mapping[str, Segment]
    trained: Mapping[str, list[tuple[int, int]]]


def _held_by_neuron(model: nn.Module, layout: ModelLayout) -> tuple[int, int]:
    """Numbers that all blocks of a layer together have for a hidden neuron of each: in matrices, and in biases."""
    weights = biases = 0
    for block in layout.layers[0].blocks:
        up, down = get_module(model, block.up), get_module(model, block.down)
        rows = up.weight.shape[0] // down.weight.shape[1]
        weights += rows * up.weight.shape[1] + down.weight.shape[0]
        biases += rows * (up.bias is not None)
    return weights, biases


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
