"""The memory account: what lives at each moment of a composed step, as the device's allocator counts it.

PyTorch's caching allocator rounds blocks up; the device profile says to what.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.optimizer import optimizer_step
from farsearch.cost.table import EVENT_KINDS, Composed, Neurons, Part
from farsearch.devices.profile import Profile
from farsearch.records import StepPlan

__all__ = ["MIB", "MemoryAccount", "memory_account"]

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


def _optimizer_peak(step: Composed, plan: StepPlan) -> float:
    """Bytes of temporaries at the highest moment of the optimizer step: it goes through the matrices in order."""
    optimizer = optimizer_step(plan, True)  # no vector comes near the matrices
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
    optimizer = optimizer_step(plan, True)  # vectors have the same state, and none is the largest
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


