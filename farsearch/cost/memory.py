"""The peak of memory of a composed step, as the device's allocator counts it.

PyTorch's caching allocator rounds blocks up to a size that the device profile specifies. A segment contributes its
highest level and the level at its end, a group of trained tensors the memory of the optimizer: numbers that depend on
the learners, cached (segment_costs.py) and summed here for many configurations at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farsearch.cost.optimizer import optimizer_step
from farsearch.cost.segments import EVENT_KINDS, Array, Indices, Part, Tensors
from farsearch.cost.software import step_count_bytes
from farsearch.devices.profile import Profile
from farsearch.records import StepPlan

__all__ = ["LEVELS", "MIB", "SIZES", "MemoryBreakdown", "group_sizes", "memory_breakdown", "segment_levels"]

MIB = float(2**20)

_BYTES = 4
"""Bytes of a float32, in which all training is done."""

LEVELS = ("high", "net", "gradients_at_high", "gradients", "saved_at_high", "saved")
"""Bytes of a segment over the level before it, at its highest moment and at its end: in total, of gradients, and of
tensors saved for later segments."""

SIZES = ("elements", "tensors", "matrix_elements", "first", "last", "high")
"""Of a group of trained tensors: elements, number, elements of its matrices, of its first and of its last matrix, and
bytes of temporaries at the highest moment in which the optimizer steps a matrix other than the first."""


@dataclass(frozen=True)
class MemoryBreakdown:
    """The memory at the peak of steps by category, in MiB: ``[configurations]`` each.

    Attributes:
        parameters: weights and buffers. gradients, optimizer: of the trained tensors. saved: from the forward to the
            backward pass. temporaries: the rest. workspace: of the device's matrix library.
    """

    parameters: Array
    gradients: Array
    optimizer: Array
    saved: Array
    temporaries: Array
    workspace: Array

    def by_category(self) -> dict[str, Array]:
        """Return MiB by category."""
        return dict(vars(self))


def segment_levels(part: Part, length: int, learners: Indices, plan: StepPlan, profile: Profile) -> Array:
    """Return ``LEVELS`` of a segment by learners: ``[learners, levels]``.

    With micro-batches (the table's batch is one of them) the gradients of the earlier ones live from the start, and a
    new gradient only until it is added to them: none counts as grown here.
    """
    events = _event_bytes(part, length, learners, profile)
    if not len(events):
        return np.tile([-np.inf, 0.0, 0.0, 0.0, 0.0, 0.0], (len(learners), 1))
    gradient = (part.event_kinds == EVENT_KINDS.index("gradient"))[:, None]
    is_saved = np.isin(part.event_kinds, [EVENT_KINDS.index("saved"), EVENT_KINDS.index("mask")])[:, None]
    saved = np.cumsum(np.where(is_saved, events, 0.0), axis=0)
    if plan.micro_batch_size is None:
        events = np.where((part.event_kinds == EVENT_KINDS.index("added"))[:, None], 0.0, events)
        grown = np.cumsum(np.where(gradient, events, 0.0), axis=0)
    else:
        grown = np.zeros_like(events)
    level = np.cumsum(events, axis=0)
    at = level.argmax(axis=0), np.arange(len(learners))
    return np.stack([level[at], level[-1], grown[at], grown[-1], saved[at], saved[-1]], axis=1)


def _event_bytes(part: Part, length: int, learners: Indices, profile: Profile) -> Array:
    """Return the signed bytes of each event as the device's allocator counts them: ``[events, learners]``."""
    sizes = np.rint(part.sizes(length, learners))
    masks = (part.event_kinds == EVENT_KINDS.index("mask"))[:, None]
    sizes = np.where(masks, sizes * (profile.dropout_mask_bytes.value / _BYTES), sizes)
    block = profile.allocator_block_bytes.value
    return np.asarray(np.sign(sizes) * np.ceil(np.abs(sizes) / block) * block)


def group_sizes(tensors: Tensors, learners: Indices, plan: StepPlan) -> Array:
    """Return ``SIZES`` of a group of trained tensors by learners: ``[learners, sizes]``."""
    sizes = tensors.sizes(learners)
    matrices = sizes[tensors.matrices]
    first, last = matrices[[0, -1]] if len(matrices) else np.zeros((2, len(learners)))
    high = _temporaries(plan, np.cumsum(matrices, axis=0)[:-1], matrices[:-1], matrices[1:])
    return np.stack(
        [
            sizes.sum(axis=0),
            np.full(len(learners), float(len(sizes))),
            matrices.sum(axis=0),
            first,
            last,
            high.max(axis=0, initial=-np.inf),
        ],
        axis=1,
    )


def _temporaries(plan: StepPlan, earlier: Array, before: Array, size: Array) -> Array:
    """Return the bytes while a matrix is stepped, from the elements of all before, of the last one, and its own."""
    step = optimizer_step(plan, True)  # no vector comes near the matrices
    others = step.gathered_bytes * (earlier - before) + step.carried_bytes * before
    return np.asarray(others + step.peak_bytes * size)


def _optimizer_peak(groups: Array, plan: StepPlan) -> Array:
    """Return the peak bytes of temporaries of the optimizer step, which steps the matrices in order."""
    earlier, before, peak = np.zeros((3, groups.shape[1]))
    gathered = optimizer_step(plan, True).gathered_bytes
    for _, _, elements, first, last, high in np.moveaxis(groups, 2, 1):
        at_first = _temporaries(plan, earlier, before, first)
        any_matrix = elements > 0
        peak = np.where(any_matrix, np.maximum.reduce([peak, at_first, gathered * earlier + high]), peak)
        before = np.where(any_matrix, last, before)
        earlier = earlier + elements
    return peak


def memory_breakdown(levels: Array, groups: Array, static: Array, plan: StepPlan, profile: Profile) -> MemoryBreakdown:
    """Return the memory at the peak of training steps.

    Args:
        levels: of the segments in order, ``[segments, configurations, LEVELS]``.
        groups: of the trained tensors in order, ``[groups, configurations, SIZES]``.
        static: bytes of parameters and buffers, ``[configurations]``.
    """
    optimizer = optimizer_step(plan, True)  # vectors have the same state, and none is the largest
    trained = groups[..., SIZES.index("elements")].sum(axis=0) * _BYTES
    tensors = groups[..., SIZES.index("tensors")].sum(axis=0)
    counts = optimizer.state_scalars * tensors * step_count_bytes(profile, plan.optimizer_kernel)
    state = optimizer.state_tensors * trained + counts
    high, net, gradients_at_high, gradients, saved_at_high, saved = np.moveaxis(levels, -1, 0)
    from_start = trained if plan.micro_batch_size is not None else np.zeros_like(trained)
    heights = high + _before(net) + from_start
    moment = heights.argmax(axis=0), np.arange(heights.shape[1])
    level = heights[moment]
    grown = (gradients_at_high + _before(gradients))[moment] + from_start
    held = (saved_at_high + _before(saved))[moment]
    # an optimizer that steps in the backward pass is among the events, and leaves no gradient
    stepping = _optimizer_peak(groups, plan) if plan.optimizer_step == "end" else np.full(len(level), -np.inf)
    at_optimizer = trained + stepping > level
    return MemoryBreakdown(
        parameters=static / MIB,
        gradients=np.where(at_optimizer, trained, grown) / MIB,
        optimizer=state / MIB,
        saved=np.where(at_optimizer, 0.0, held) / MIB,
        temporaries=np.where(at_optimizer, stepping, level - grown - held) / MIB,
        workspace=np.full(len(level), profile.workspace_mib.value),
    )


def _before(net: Array) -> Array:
    """Return the level before each segment."""
    return np.asarray(np.cumsum(net, axis=0) - net)
