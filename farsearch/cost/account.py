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

from farsearch.cost.table import EVENT_KINDS, OPERATION_KINDS, Composed, Part, StepTable
from farsearch.cost.trace import fake_tensors, trace_call
from farsearch.devices.profile import Profile
from farsearch.far.loop import make_optimizer
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
    """One optimizer step of one tensor of n elements, per element unless said."""

    state_tensors: int
    state_scalars: int
    peak_bytes: float
    moved_bytes: float
    launches: int


@cache
def _optimizer_step(kind: str) -> _OptimizerStep:
    """Traced on one fake matrix whose state exists already. Vectors skip the weight decay, and hardly weigh."""
    size = 1 << 20
    with fake_tensors():
        tensor = nn.Parameter(torch.zeros(1 << 10, 1 << 10))
        holder = nn.ParameterList([tensor])
        optimizer = make_optimizer(kind, holder)
        tensor.grad = torch.zeros_like(tensor)
        optimizer.step()
        state = [value for value in optimizer.state[tensor].values() if isinstance(value, torch.Tensor)]
        segment = trace_call(optimizer.step, [tensor, tensor.grad, *state])
    level = np.cumsum([event.size for event in segment.events] or [0])
    return _OptimizerStep(
        state_tensors=sum(value.numel() == size for value in state),
        state_scalars=sum(value.numel() == 1 for value in state),
        peak_bytes=float(max(0, level.max())) / size,
        moved_bytes=sum(op.bytes for op in segment.operations) / size,
        launches=len(segment.operations),
    )


def _event_bytes(part: Part, length: int, learners: int, profile: Profile) -> NDArray[np.float64]:
    """Signed bytes of each event as the device's allocator counts them."""
    sizes: NDArray[np.float64] = np.rint(part.events @ Part.basis(length, learners))
    masks = part.event_kinds == EVENT_KINDS.index("mask")
    sizes = np.where(masks, sizes * (profile.dropout_mask_bytes.value / _BYTES), sizes)
    block = profile.allocator_block_bytes.value
    return np.sign(sizes) * np.ceil(np.abs(sizes) / block) * block


def memory_account(table: StepTable, step: Composed, length: int, plan: StepPlan, profile: Profile) -> MemoryAccount:
    """The worst moment of a training step at one length.

    With a micro-batch (the table's batch is the part's) the gradients of the parts before live from the start, and
    a new gradient only until it is added to them.
    """
    sizes = [_event_bytes(part, length, k, profile) for _, part, k in step.parts]
    kinds = np.concatenate([part.event_kinds for _, part, _ in step.parts])
    names = np.repeat(np.arange(len(step.parts)), [len(size) for size in sizes])
    events = np.concatenate(sizes)
    optimizer = _optimizer_step(plan.optimizer)
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
    largest = float(step.trained.max(initial=0.0))
    at_optimizer = trained + optimizer.peak_bytes * largest
    workspace = profile.workspace_mib.value
    if at_optimizer > level[moment]:
        return MemoryAccount(
            table.static_bytes / MIB, trained / MIB, state / MIB, 0.0, (at_optimizer - trained) / MIB, workspace,
            "optimizer",
        )  # fmt: skip
    kept = np.isin(kinds, [EVENT_KINDS.index("saved"), EVENT_KINDS.index("mask")])
    saved = float(np.where(kept, events, 0.0)[: moment + 1].sum())
    return MemoryAccount(
        parameters=table.static_bytes / MIB,
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
    rates = np.array([profile.gemm_gflops.value, profile.bmm_gflops.value, np.inf]) * 1e9
    bandwidth, launch = profile.bandwidth_gbs.value * 1e9, profile.launch_us.value * 1e-6
    seconds = {kind: np.zeros(len(lengths)) for kind in OPERATION_KINDS}
    for _, part, learners in step.parts:
        basis = Part.basis(lengths, learners)
        compute = (part.flops @ basis) / rates[part.operation_kinds][:, None]
        each = np.maximum(compute, (part.moved @ basis) / bandwidth) + launch
        for i, kind in enumerate(OPERATION_KINDS):
            seconds[kind] += each[part.operation_kinds == i].sum(axis=0)
    if plan.micro_batch_size is not None:
        repeats = -(-batch_size // plan.micro_batch_size)
        seconds = {kind: value * repeats for kind, value in seconds.items()}
    optimizer = _optimizer_step(plan.optimizer)
    sweep = optimizer.moved_bytes * step.trained.sum() / bandwidth + optimizer.launches * len(step.trained) * launch
    seconds["optimizer"] = np.full(len(lengths), float(sweep))
    return seconds
