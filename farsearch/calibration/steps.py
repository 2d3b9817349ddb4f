"""Real training steps with random weights and tokens: their seconds, and the peak of all their tensors.

With ``profile_memory=True`` the profiler records a ``[memory]`` event for each block that the CPU's allocator allocates
(bytes above 0) or frees (below 0). Their running sum is exactly the memory allocated since the profile began, and its
maximum the peak. Resident memory is no such measure: it includes memory cached by the allocator.

The optimizer has its state already, as in the second step of a training. Memory that lives before the step is added:
parameters, buffers and that state. The batch itself (token ids, mask, labels) is not, as in the cost model. On CUDA
torch's allocator has its own counters.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from farsearch.cost.plans import execution_of, optimizer_of
from farsearch.far.execution import rows_at_once
from farsearch.far.features import Batch, batch_of
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import train_step
from farsearch.far.optimizer import BackwardOptimizer, Optimizer
from farsearch.far.selection import head_counts, learner_counts
from farsearch.far.surgery import apply_far, width_of
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan

__all__ = [
    "ReadyStep",
    "allocated",
    "allocated_peak",
    "apply_config",
    "example_batch",
    "peak_mib",
    "ready_step",
    "stepping",
]

_CPU = torch.device("cpu")
_HEAD = Head()
_MODULES = StepPlan()
_RATE = 1e-6
"""Learning rate; random tokens teach nothing."""


def allocated(call: Callable[[], object], device: torch.device = _CPU) -> tuple[int, int]:
    """Return the bytes at the peak of a call on ``device``, and at its end with its result held.

    Both are relative to the memory before the call.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = call()
        after, highest = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        del held
        return highest - before, after - before
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        held = call()
    del held
    assert profile.profiler is not None
    results = profile.profiler.kineto_results
    assert results is not None
    events = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    assert events, "the profiler recorded no memory"
    level = peak = 0
    for _, size in events:
        level += size
        peak = max(peak, level)
    return peak, level


def allocated_peak(call: Callable[[], object]) -> int:
    """Return the bytes at the peak of a call on the CPU, relative to the memory before."""
    return allocated(call)[0]


def apply_config(
    model: nn.Module, layout: ModelLayout, config: FarConfig, plan: StepPlan = _MODULES, chunk_rows: int | None = None
) -> nn.Module:
    """Reconfigure and freeze ``model`` in place; the first neurons and heads of each layer learn: all cost the same."""
    config = config.canonical()
    counts = learner_counts(width_of(model, layout.layers[0]), config.frozen_fractions, config.frozen_bottom_layers)
    trained = head_counts(layout.heads, config.frozen_heads, len(layout.layers))
    learners, heads = (
        [None if count is None else range(count) for count in each] for each in (layout.by_block(counts), trained)
    )
    return apply_far(
        model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers,
        execution_of(plan, chunk_rows), heads,
    )  # fmt: skip


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def example_batch(
    vocabulary: int, batch_size: int, length: int, device: torch.device = _CPU, head: Head = _HEAD
) -> Batch:
    """Return random tokens with targets of the head, the same at every call.

    Args:
        length: tokens of the longest rows. Every second row is shorter, as in real batches: without any padding the
            model makes no mask.
    """
    draw = random.Random(length)
    lengths = [length if row % 2 == 0 else length // 2 for row in range(batch_size)]
    rows = [[draw.randrange(1, vocabulary) for _ in range(size)] for size in lengths]
    return batch_of(head.features(rows), 0, device)


def peak_mib(step: Callable[[], object], model: nn.Module, optimizer: Optimizer) -> float:
    """Return the peak of all tensors in a step of ``model``, in MiB; ``optimizer`` must have its state."""
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    before = _bytes([*model.parameters(), *model.buffers(), *state])
    return float(before + allocated(step, next(model.parameters()).device)[0]) / 2**20


@dataclass(frozen=True)
class ReadyStep:
    """A training step that can be called repeatedly."""

    call: Callable[[], object]
    optimizer: Optimizer
    device: torch.device

    def seconds(self) -> float:
        """Return the wall time of one call."""
        self._wait()
        start = time.perf_counter()
        self.call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def ready_step(
    model: nn.Module, layout: ModelLayout, config: FarConfig, plan: StepPlan, batch_size: int, length: int
) -> Iterator[ReadyStep]:
    """Reconfigure ``model`` in place, and yield its step as ``stepping``.

    The step works in the portions of the cost model at this length.
    """
    gc.collect()  # earlier models: modules and hooks form reference cycles
    apply_config(model, layout, config, plan, min(rows_at_once((batch_size, length, 0)), batch_size))
    with stepping(model, plan, batch_size, length) as ready:
        yield ready


@contextmanager
def stepping(model: nn.Module, plan: StepPlan, batch_size: int, length: int) -> Iterator[ReadyStep]:
    """Yield the step of a reconfigured model on ``example_batch``; its optimizer has its state."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer = optimizer_of(plan, model)
    for group in optimizer.param_groups:
        group["lr"] = _RATE
    _make_state(optimizer, model)
    batch = example_batch(_vocabulary(model), batch_size, length, device)
    try:
        yield ReadyStep(lambda: train_step(model, optimizer, batch, plan.micro_batch_size), optimizer, device)
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()


def _vocabulary(model: nn.Module) -> int:
    config: Any = model.config
    return int(config.vocab_size)


def _make_state(optimizer: Optimizer, model: nn.Module) -> None:
    """Make the optimizer's state by a first step with gradients of 0."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    for each in optimizer.optimizers if isinstance(optimizer, BackwardOptimizer) else [optimizer]:
        each.step()
    model.zero_grad(set_to_none=True)
