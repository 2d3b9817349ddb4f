"""One optimizer step of one tensor, traced once and scaled to any size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from farsearch.cost.operations import FEATURES, OPERATION_KINDS, Operation
from farsearch.cost.trace import Segment, meta_tensors, second_step, trace_call
from farsearch.far.optimizer import make_optimizer
from farsearch.records import StepPlan

__all__ = ["OptimizerStep", "optimizer_step"]

_SIZE = 1 << 20
"""Elements of the traced tensor."""


@dataclass(frozen=True)
class OptimizerStep:
    """One optimizer step of one tensor, in bytes an element of it unless said.

    Attributes:
        state_tensors, state_scalars: tensors of its size, and of one element, that the optimizer keeps.
        peak_bytes: temporaries at the highest moment.
        carried_bytes: still live then, an element of the tensor before it.
        operations: what is computed.
    """

    state_tensors: int
    state_scalars: int
    peak_bytes: float
    carried_bytes: float
    operations: tuple[Operation, ...]

    def work(self, sizes: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Kinds ``[operations]`` and features ``[operations, features, tensors]`` for tensors of so many elements."""
        kinds = np.array([OPERATION_KINDS.index(op.kind) for op in self.operations], dtype=np.int64)
        features = np.array([[getattr(op, name) for name in FEATURES] for op in self.operations], dtype=np.float64)
        grows = np.array([op.flops >= _SIZE for op in self.operations])[:, None] & (np.array(FEATURES) != "matrices")
        factors = np.where(grows[:, :, None], sizes / _SIZE, 1.0)
        return kinds, features[:, :, None] * factors


def optimizer_step(plan: StepPlan, matrix: bool) -> OptimizerStep:
    """The step of a plan's optimizer: of matrices, or of vectors, which are not decayed."""
    return _traced(plan.optimizer, plan.optimizer_kernel == "fused", matrix)


@cache
def _traced(kind: str, fused: bool, matrix: bool) -> OptimizerStep:
    """Traced on meta tensors whose state exists already."""
    (one, state), (two, _) = (_trace(kind, fused, matrix, count) for count in (1, 2))
    peak, higher = (max(0.0, float(np.cumsum([event.size for event in s.events] or [0]).max())) for s in (one, two))
    return OptimizerStep(
        state_tensors=sum(value.numel() == _SIZE for value in state),
        state_scalars=sum(value.numel() == 1 for value in state),
        peak_bytes=peak / _SIZE,
        # torch's loop over the tensors holds on to the last one's denominator while it makes the next one's
        carried_bytes=(higher - peak) / _SIZE,
        operations=tuple(one.operations),
    )


def _trace(kind: str, fused: bool, matrix: bool, count: int) -> tuple[Segment, list[torch.Tensor]]:
    """The second step of so many tensors, and the first one's state."""
    shape = (1 << 10, _SIZE >> 10) if matrix else (_SIZE,)
    with meta_tensors():
        tensors = [nn.Parameter(torch.zeros(shape)) for _ in range(count)]
        gradients = [torch.zeros(shape) for _ in range(count)]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = gradient
    optimizer = second_step(make_optimizer(kind, nn.ParameterList(tensors)), fused)
    state = [[v for v in optimizer.state[t].values() if isinstance(v, torch.Tensor)] for t in tensors]
    segment = trace_call(optimizer.step, [*tensors, *gradients, *(value for values in state for value in values)])
    return segment, state[0]
