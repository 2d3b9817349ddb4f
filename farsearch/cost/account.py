"""Memory and time of one composed step on a device: the memory account and the roofline.

Sources of the formulas: live tensors at each moment of the step (PyTorch's caching allocator rounds blocks up, the
device profile says to what); roofline of Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009, one per
operation, plus a launch overhead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from farsearch.cost.table import EVENT_KINDS, OPERATION_KINDS, Composed, Neurons, Part
from farsearch.cost.trace import Segment, meta_tensors, second_step, trace_call
from farsearch.devices.profile import Profile
from farsearch.far.optimizer import make_optimizer
from farsearch.records import StepPlan

__all__ = ["MIB", "MemoryAccount", "memory_account", "step_seconds"]

MIB = float(2**20)

_BYTES = 4
"""Bytes of a float32, in which all training is done."""


@dataclass(frozen=True)
class MemoryAccount:
    """What lives at the worst moment of a step, in MiB.

    Attributes:
        parameters: weights and buffers. gradients, optimizer: of the trained tensors. saved: kept from the forward
            to the backward pass. temporaries: the rest. workspace: of the device's matrix library.
        moment: the segment in which the peak falls, or ``optimizer``.
    """

    parameters: float
    gradients: float
    optimizer: float
    saved: float
    temporaries: float
    workspace: float
    moment: str

    @property
    def tensor_peak_mib(self) -> float:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.saved + self.temporaries + self.workspace

    def breakdown(self) -> dict[str, float]:
        """MiB by category."""
        names = ("parameters", "gradients", "optimizer", "saved", "temporaries", "workspace")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class _OptimizerStep:
    """One optimizer step of one tensor, per element unless said.

    ``carried_bytes`` still live, per element of the tensor before it, when a tensor's own step is at its highest.
    """

    state_tensors: int
    state_scalars: int
    peak_bytes: float
    carried_bytes: float
    moved_bytes: float
    launches: int


def _optimizer_step(plan: StepPlan, matrix: bool) -> _OptimizerStep:
    return _traced_optimizer(plan.optimizer, plan.optimizer_kernel == "fused", matrix)


@cache
def _traced_optimizer(kind: str, fused: bool, matrix: bool) -> _OptimizerStep:
    """Traced on meta tensors whose state exists already: matrices, or vectors, which are not decayed."""
    size = 1 << 20
    (one, state), (two, _) = (_trace_optimizer(kind, fused, matrix, size, count) for count in (1, 2))
    peak, higher = (max(0.0, float(np.cumsum([event.size for event in s.events] or [0]).max())) for s in (one, two))
    return _OptimizerStep(
        state_tensors=sum(value.numel() == size for value in state),
        state_scalars=sum(value.numel() == 1 for value in state),
        peak_bytes=peak / size,
        # torch's loop over the tensors holds on to the last one's denominator while it makes the next one's
        carried_bytes=(higher - peak) / size,
        moved_bytes=sum(op.bytes for op in one.operations) / size,
        launches=len(one.operations),
    )


def _trace_optimizer(kind: str, fused: bool, matrix: bool, size: int, count: int) -> tuple[Segment, list[torch.Tensor]]:
    """The second step of so many tensors of one size, and the first one's state."""
    shape = (1 << 10, size >> 10) if matrix else (size,)
    with meta_tensors():
        tensors = [nn.Parameter(torch.zeros(shape)) for _ in range(count)]
        gradients = [torch.zeros(shape) for _ in range(count)]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = gradient
    optimizer = second_step(make_optimizer(kind, nn.ParameterList(tensors)), fused)
    state = [[v for v in optimizer.state[t].values() if isinstance(v, torch.Tensor)] for t in tensors]
    segment = trace_call(optimizer.step, [*tensors, *gradients, *(value for values in state for value in values)])
    return segment, state[0]


def _optimizer_peak(step: Composed, plan: StepPlan) -> float:
    """Bytes of temporaries at the highest moment of the optimizer step: it goes through the matrices in order."""
    optimizer = _optimizer_step(plan, True)  # no vector comes near the matrices
    sizes = step.trained[step.matrices]
    before = np.concatenate([[0.0], sizes[:-1]])
    return float((optimizer.carried_bytes * before + optimizer.peak_bytes * sizes).max(initial=0.0))


def _event_bytes(part: Part, length: int, neurons: Neurons, profile: Profile) -> NDArray[np.float64]:
    """Signed bytes of each event as the device's allocator counts them."""
    sizes: NDArray[np.float64] = np.rint(part.sizes(length, neurons))
    masks = part.event_kinds == EVENT_KINDS.index("mask")
    sizes = np.where(masks, sizes * (profile.dropout_mask_bytes.value / _BYTES), sizes)
    block = profile.allocator_block_bytes.value
    return np.sign(sizes) * np.ceil(np.abs(sizes) / block) * block


def memory_account(static: float, step: Composed, length: int, plan: StepPlan, profile: Profile) -> MemoryAccount:
    """The worst moment of a training step at one length.

    With a micro-batch (the table's batch is the part's) the gradients of the parts before live from the start, and
    a new gradient only until it is added to them.

    Args:
        static: bytes of parameters and buffers.
    """
    sizes = [_event_bytes(part, length, k, profile) for _, part, k in step.parts]
    kinds = np.concatenate([part.event_kinds for _, part, _ in step.parts])
    names = np.repeat(np.arange(len(step.parts)), [len(size) for size in sizes])
    events = np.concatenate(sizes)
    optimizer = _optimizer_step(plan, True)  # vectors have the same state, and none is the largest
    trained = float(step.trained.sum()) * _BYTES
    state = optimizer.state_tensors * trained + optimizer.state_scalars * len(step.trained) * _BYTES
    gradient = kinds == EVENT_KINDS.index("gradient")
    if plan.micro_batch_size is None:
        grown = np.cumsum(np.where(gradient, events, 0.0))
        level = np.cumsum(events)
    else:
        grown = np.full(len(events), trained)
        level = np.cumsum(np.where(gradient, 0.0, events)) + np.where(gradient, events, 0.0) + trained
    moment = int(level.argmax())
    # one that steps in the backward pass is among the events, and leaves no gradient
    at_optimizer = trained + _optimizer_peak(step, plan) if plan.optimizer_step == "end" else 0.0
    workspace = profile.workspace_mib.value
    if at_optimizer > level[moment]:
        return MemoryAccount(
            static / MIB, trained / MIB, state / MIB, 0.0, (at_optimizer - trained) / MIB, workspace,
            "optimizer",
        )  # fmt: skip
    kept = np.isin(kinds, [EVENT_KINDS.index("saved"), EVENT_KINDS.index("mask")])
    saved = float(np.where(kept, events, 0.0)[: moment + 1].sum())
    return MemoryAccount(
        parameters=static / MIB,
        gradients=float(grown[moment]) / MIB,
        optimizer=state / MIB,
        saved=saved / MIB,
        temporaries=float(level[moment] - grown[moment] - saved) / MIB,
        workspace=workspace,
        moment=step.parts[int(names[moment])][0],
    )


def step_seconds(
    step: Composed, lengths: NDArray[np.float64], plan: StepPlan, batch_size: int, profile: Profile
) -> dict[str, NDArray[np.float64]]:
    """Seconds of one training step at each length, by operation class: ``gemm``, ``bmm``, ``stream``, ``optimizer``.

    Per operation ``max(operations / achieved rate, bytes / achieved bandwidth) + launch``; a micro-batch repeats
    forward and backward pass ``batch_size / micro_batch_size`` times.
    """
    rates = np.array([profile.gemm_gflops.value, profile.bmm_gflops.value, np.inf, np.inf]) * 1e9
    bandwidth, launch = profile.bandwidth_gbs.value * 1e9, profile.launch_us.value * 1e-6
    seconds = {kind: np.zeros(len(lengths)) for kind in OPERATION_KINDS}
    for _, part, neurons in step.parts:
        compute = part.work(lengths, neurons) / rates[part.operation_kinds][:, None]
        each = np.maximum(compute, part.traffic(lengths, neurons) / bandwidth) + launch
        for i, kind in enumerate(OPERATION_KINDS):
            seconds[kind] += each[part.operation_kinds == i].sum(axis=0)
    if plan.micro_batch_size is not None:
        repeats = -(-batch_size // plan.micro_batch_size)
        seconds = {kind: value * repeats for kind, value in seconds.items()}
    if plan.optimizer_step == "backward":
        return seconds
    sweep = 0.0
    for matrix in (True, False):
        optimizer, sizes = _optimizer_step(plan, matrix), step.trained[step.matrices == matrix]
        sweep += optimizer.moved_bytes * float(sizes.sum()) / bandwidth + optimizer.launches * len(sizes) * launch
    seconds["optimizer"] = np.full(len(lengths), sweep)
    return seconds
