"""One optimizer step of one tensor, traced once and scaled to any size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from farsearch.cost.operations import CATEGORIES, FEATURES, OPERATION_KINDS, Operation
from farsearch.cost.recorder import Segment
from farsearch.cost.segments import EVENT_KINDS, Array, Indices, Part, Tensors
from farsearch.cost.timing import operation_seconds
from farsearch.cost.trace import meta_tensors, second_step, trace_call
from farsearch.devices.profile import Profile
from farsearch.far.optimizer import make_optimizer
from farsearch.records import StepPlan

__all__ = ["OptimizerStep", "optimizer_step", "stepped_part", "sweep_at_once", "sweep_part"]

_SIZE = 1 << 20
"""Elements of the traced tensor."""


@dataclass(frozen=True)
class OptimizerStep:
    """One optimizer step of one tensor. Bytes are per element of the tensor.

    Attributes:
        state_tensors, state_scalars: state tensors of the tensor's size, and of one element.
        events: temporaries of a single tensor as they are allocated (+) and freed (-).
        peak_bytes: temporaries at the highest moment.
        carried_bytes: still live then, per element of the preceding tensor.
        gathered_bytes: likewise per element of all tensors before that; above 0 only if all are stepped at once.
        operations: of one step.
    """

    state_tensors: int
    state_scalars: int
    events: tuple[float, ...]
    peak_bytes: float
    carried_bytes: float
    gathered_bytes: float
    operations: tuple[Operation, ...]

    def features(self) -> tuple[Indices, Array, Array]:
        """Return kinds ``[operations]``, and features as constant and slope in elements, ``[operations, features]``.

        The elements are those of one tensor, or of all tensors if they are stepped at once.
        """
        kinds = np.array([OPERATION_KINDS.index(op.kind) for op in self.operations], dtype=np.int64)
        features = np.array([[getattr(op, name) for name in FEATURES] for op in self.operations], dtype=np.float64)
        grows = np.array([op.flops >= _SIZE for op in self.operations])[:, None] & (np.array(FEATURES) != "matrices")
        return kinds, np.where(grows, 0.0, features), np.where(grows, features / _SIZE, 0.0)


def stepped_part(plan: StepPlan, part: Part) -> Part:
    """Return a traced segment in which each gradient is stepped and dropped as soon as it is complete.

    The operations are those of ``sweep_part``: the time does not depend on the order of the gradients.
    """
    complete = part.event_kinds == EVENT_KINDS.index("added")
    temporaries = optimizer_step(plan, True).events  # a vector has the same
    # an event "added" has minus the bytes of a gradient, four per element
    stepped = np.array([*(-size / 4 for size in temporaries), 1.0])
    kinds = np.array([EVENT_KINDS.index("temporary")] * len(temporaries) + [EVENT_KINDS.index("gradient")])
    times = np.where(complete, len(stepped), 1)
    events, event_kinds = np.repeat(part.events, times, axis=0), np.repeat(part.event_kinds, times)
    inside = np.repeat(complete, times)
    events[inside] *= np.tile(stepped, complete.sum())[:, None]
    event_kinds[inside] = np.tile(kinds, complete.sum())
    return dataclasses.replace(part, events=events, event_kinds=event_kinds)


def sweep_part(plan: StepPlan, tensors: Tensors) -> Part:
    """Return the operations of an optimizer that steps tensors one after another, as a segment of a step."""
    kinds, operations = [], []
    for matrix in (True, False):
        kind, constant, slope = optimizer_step(plan, matrix).features()
        for element, per_learner in tensors.elements[tensors.matrices == matrix]:
            zero = np.zeros_like(slope)
            kinds.append(kind)
            operations.append(np.stack([constant + slope * element, zero, zero, slope * per_learner, zero], axis=-1))
    every = np.concatenate([np.zeros((0, len(FEATURES), 5)), *operations])
    return Part(
        events=np.zeros((0, 5)),
        event_kinds=np.zeros(0, dtype=np.int64),
        operations=every,
        operation_kinds=np.concatenate([np.zeros(0, dtype=np.int64), *kinds]),
        categories=np.full(len(every), CATEGORIES.index("optimizer")),
        width=tensors.width,
    )


def sweep_at_once(plan: StepPlan, matrices: Array, vectors: Array, profile: Profile) -> Array:
    """Return the seconds of an optimizer step of all tensors at once, from the elements of all matrices and vectors."""
    seconds = np.zeros(len(matrices))
    for matrix, elements in ((True, matrices), (False, vectors)):
        kinds, constant, slope = optimizer_step(plan, matrix).features()
        features = constant[..., None] + slope[..., None] * elements
        seconds += operation_seconds(kinds, features, profile, True).sum(axis=0)
    return seconds


def optimizer_step(plan: StepPlan, matrix: bool) -> OptimizerStep:
    """Return the step of a plan's optimizer for matrices, or for vectors, which are not decayed."""
    return _traced(plan.optimizer, plan.optimizer_kernel, matrix)


@cache
def _traced(kind: str, kernel: str, matrix: bool) -> OptimizerStep:
    """Traced on meta tensors whose state exists already."""
    (one, state), (two, _), (three, _) = (_trace(kind, kernel, matrix, count) for count in (1, 2, 3))
    peak, higher, highest = (
        max(0.0, float(np.cumsum([event.size for event in s.events] or [0]).max())) for s in (one, two, three)
    )
    return OptimizerStep(
        state_tensors=sum(value.numel() == _SIZE for value in state),
        state_scalars=sum(value.numel() == 1 for value in state),
        events=tuple(event.size / _SIZE for event in one.events),
        peak_bytes=peak / _SIZE,
        # torch's loop over the tensors holds the last tensor's denominator while it makes the next one
        carried_bytes=(higher - peak) / _SIZE,
        gathered_bytes=(highest - higher) / _SIZE,
        operations=tuple(one.operations),
    )


def _trace(kind: str, kernel: str, matrix: bool, count: int) -> tuple[Segment, list[torch.Tensor]]:
    """The second step of ``count`` tensors, and the state of the first tensor."""
    shape = (1 << 10, _SIZE >> 10) if matrix else (_SIZE,)
    with meta_tensors():
        tensors = [nn.Parameter(torch.zeros(shape)) for _ in range(count)]
        gradients = [torch.zeros(shape) for _ in range(count)]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = gradient
    optimizer = second_step(make_optimizer(kind, nn.ParameterList(tensors)), kernel)
    state = [[v for v in optimizer.state[t].values() if isinstance(v, torch.Tensor)] for t in tensors]
    segment = trace_call(optimizer.step, [*tensors, *gradients, *(value for values in state for value in values)])
    return segment, state[0]
