"""The memory of a compiled step by segments, embeddings, layers and head, so that steps can be composed from layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from farsearch.far.layout import ModelLayout
from farsearch.graph.memory import Allocation, EngineMemory
from farsearch.runtime.program_file import Call

__all__ = ["Place", "SegmentEvent", "step_segments"]

Place = tuple[str, int | None]
"""A segment of a step: ``start``, ``head`` or ``backward embeddings``, or ``forward`` or ``backward`` of a layer."""

Kind = Literal["temporary", "saved", "mask", "gradient"]
"""``temporary`` is allocated by onnxruntime, ``saved`` in a block of the runner, ``gradient`` of a table by numpy."""
SegmentEvent = tuple[Kind, Allocation]

_END: Place = ("backward embeddings", None)


def step_segments(
    memory: EngineMemory, layout: ModelLayout, rows: int, length: int
) -> Mapping[Place, list[SegmentEvent]]:
    """Return what a step of ``rows`` sequences of ``length`` tokens allocates and frees, by segment in order.

    A layer's segments depend on its own kind alone. So a value that only layers above take is allocated with them, and
    one that many layers share, as a mask, is freed after the last.
    """
    calls = memory.program.step
    places = _places_of(calls, layout)
    top = len(layout.layers) - 1
    last = {value: place for place, call in zip(places, calls, strict=True) for value in call.inputs.values()}
    segments: defaultdict[Place, list[SegmentEvent]] = defaultdict(list)
    held: dict[str, tuple[Place, Allocation, Kind]] = {}
    for place, call in zip(places, memory.calls(rows, length), strict=True):
        segments[place] += [("mask", each) for each in call.masks]
        segments[place] += [("temporary", each) for each in call.inside]
        segments[place] += [("gradient", each) for each in call.tables]
        kinds: dict[Kind, Mapping[str, Allocation]] = {"temporary": call.others, "saved": call.buffers}
        for kind, outputs in kinds.items():
            for value, allocation in outputs.items():
                end = last.get(value, place)
                counted = _allocated(place, end, places)
                if counted == ("forward", top - 1) and end[1] == top and not _has_tokens(allocation, rows, length):
                    counted = "forward", top  # the head's token, which the layer below takes out for the top one alone
                segments[counted].append((kind, allocation))
                held[value] = place, allocation, kind
        segments[place] += [("saved", each) for each in call.lent]
        for value in call.last:
            made, allocation, kind = held.pop(value)
            segments[_freed(made, place)].append((kind, allocation.freed()))
    return segments


def _allocated(made: Place, last: Place, places: Sequence[Place]) -> Place:
    """The segment that a value counts to: an untrained layer keeps nothing for itself."""
    phase, layer = made
    if phase != "forward" or layer is None or last[0] != "backward" or ("backward", layer) in places:
        return made
    return "forward", layer + 1


def _has_tokens(allocation: Allocation, rows: int, length: int) -> bool:
    """Whether a value has all tokens of the rows, and not one of each row."""
    return bool(set(allocation.shape) & {length, rows * length})


def _freed(made: Place, last: Place) -> Place:
    """The segment that frees a value: the last one, unless the value is shared by layers."""
    phase, layer = last
    maker = -1 if made[0] == "start" else made[1]
    if layer is None or maker is None or layer <= maker + 1:
        return last
    return ("head", None) if phase == "forward" else _END


def _places_of(calls: Sequence[Call], layout: ModelLayout) -> list[Place]:
    """The segment of each call of a training step, by the weights that it takes and whose gradients it gives."""
    paths = [f"{layer.path}." for layer in layout.layers]
    places: list[Place] = []
    backward = False
    for call in calls:
        values = (*call.inputs.values(), *call.outputs.values())
        names = [value.partition(":")[2] for value in values if value.startswith(("weight:", "gradient:"))]
        layers = [i for i, path in enumerate(paths) if any(name.startswith(path) for name in names)]
        passed = bool(places) and places[-1][1] is not None
        if layers:
            # the backward pass of a layer also takes weights of the one below, which made its input
            places.append(("backward" if backward else "forward", max(layers)))
        elif places and not names:
            places.append(places[-1])
        elif backward:
            places.append(_END if passed else ("head", None))
        else:
            places.append(("head" if passed else "start", None))
        backward |= "loss" in call.outputs.values()
    return places
