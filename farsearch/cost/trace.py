"""Trace of one training step on meta tensors: every allocation, every operation, nothing computed.

Tensors on the device ``meta`` have a shape and no memory; torch's own dispatch runs them. A ``TorchDispatchMode``
follows the storages that live and the operations that run. The sum of live storages equals the bytes that the CPU
allocator would hold (docs/cost_model.md has the comparison with the profiler).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from farsearch.cost.operations import tensors_in
from farsearch.cost.recorder import Recorder, Segment, SegmentKey, StepLog, Storages
from farsearch.cost.software import Software, emulated
from farsearch.far.features import Batch
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.loop import train_step
from farsearch.far.optimizer import BackwardOptimizer

__all__ = ["meta_tensors", "second_step", "trace_call", "trace_step"]


def trace_step(
    model: nn.Module,
    layout: ModelLayout,
    batch: Batch,
    software: Software,
    optimizer: BackwardOptimizer | None = None,
) -> Mapping[SegmentKey, Segment]:
    """Return the forward and backward pass of one training step, by segment.

    Args:
        model: of ``meta_tensors`` and ``build_ordinary``, reconfigured and frozen as it is to be traced.
        batch: of the model's head. software: of the device.
        optimizer: one that steps in the backward pass, with its state. None for a step that leaves the optimizer
            to ``trace_call``.

    Returns:
        The segments of ``step_order`` that occur. Gradients stay alive at the end; storages of the model's own
        parameters and buffers are in none.
    """
    model.train()
    batch = Batch({name: value.to(meta_tensors()) for name, value in batch.inputs.items()}, batch.weights)
    state = [] if optimizer is None else tensors_in([list(entry.values()) for entry in optimizer.state.values()])
    log = StepLog()
    storages = Storages(
        log, [*model.parameters(), *model.buffers(), *batch.inputs.values(), *state], len(layout.layers)
    )
    recorder = Recorder(log, storages)
    # an optimizer of an unused tensor: the memory and work of one that steps at the end come from trace_call
    unused = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with _layer_hooks(model, layout, log, storages), _optimizer_hooks(recorder), emulated(software), recorder:
        train_step(model, optimizer or unused, batch)
    storages.close(model)
    return log.segments


@contextmanager
def _layer_hooks(model: nn.Module, layout: ModelLayout, log: StepLog, storages: Storages) -> Iterator[None]:
    """Change the open segment at the borders of the layers, in the forward and the backward pass."""
    # the module that calls the layers: only when it has returned is the last layer's input freed, as the others' are
    # before the next begins
    stack = get_module(model, layout.layers[-1].path.rsplit(".", 2)[0])
    handles = [
        stack.register_forward_hook(lambda *_: setattr(storages, "returning", False)),
        model.register_forward_hook(lambda *_: log.enter(SegmentKey("backward head"))),
        *(p.register_post_accumulate_grad_hook(storages.complete) for p in model.parameters() if p.requires_grad),
    ]

    def enter(i: int) -> Callable[..., None]:
        def hook(_module: Any, inputs: tuple[Any, ...], *_rest: Any) -> None:
            log.enter(SegmentKey("forward", i))
            if i == 0:
                storages.lowest_input = inputs[0].untyped_storage()._cdata
                watch(inputs[0], SegmentKey("backward embeddings"))

        return hook

    def leave(i: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            watch(output if isinstance(output, Tensor) else output[0], SegmentKey("backward", i))
            if i == len(layout.layers) - 1:
                log.enter(SegmentKey("head"))
                storages.returning = True

        return hook

    def watch(hidden: Tensor, key: SegmentKey) -> None:
        if hidden.requires_grad:
            hidden.register_hook(lambda _grad: log.enter(key))

    for i, layer in enumerate(layout.layers):
        module = get_module(model, layer.path)
        # before the hook by which the top layer in 16 bits returns float32, which is work of the head's segment
        handles += [
            module.register_forward_pre_hook(enter(i)), module.register_forward_hook(leave(i), prepend=True)
        ]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _optimizer_hooks(recorder: Recorder) -> Iterator[None]:
    """Mark the operations of an optimizer's step in the recorder."""

    def mark(stepping: bool) -> Callable[..., None]:
        return lambda *_: setattr(recorder, "stepping", stepping)

    handles = [register_optimizer_step_pre_hook(mark(True)), register_optimizer_step_post_hook(mark(False))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def second_step(optimizer: torch.optim.Optimizer, kernel: str) -> torch.optim.Optimizer:
    """Run the first step of an optimizer of meta tensors, which makes its state, and prepare it for the second.

    Args:
        optimizer: made for the kernel ``loop``: torch makes no state for the fused kernel of tensors without memory,
            though the kernel itself accepts them. All kernels have the same state.
        kernel: of the second step.
    """
    optimizer.step()
    for group in optimizer.param_groups:
        group.update(foreach=kernel == "foreach", fused=kernel == "fused")
    # before the first fused step torch checks whether the tensors' device has the kernel
    optimizer._need_device_dtype_check_for_fused = False  # type: ignore[attr-defined]
    return optimizer


def trace_call(call: Callable[[], object], known: list[Tensor]) -> Segment:
    """Return the events and operations of any call on meta tensors; ``known`` exist before it."""
    log = StepLog()
    with Recorder(log, Storages(log, known)):
        call()
    return log.open


def meta_tensors() -> torch.device:
    """Return the context in which models to be traced are built."""
    return torch.device("meta")
