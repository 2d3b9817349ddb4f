"""Reference for tests of the cost model: plain profiles, and naive loops for memory and time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from farsearch.calibration.steps import apply_config, peak_mib, stepping
from farsearch.cost.operations import Operation
from farsearch.cost.recorder import Segment, SegmentKey, step_order
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.trace import meta_tensors, second_step, trace_call, trace_step
from farsearch.devices.profile import Figure, Profile
from farsearch.far.optimizer import BackwardOptimizer, make_optimizer
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan

__all__ = [
    "Traced",
    "figure",
    "make_profile",
    "naive_peak_mib",
    "naive_step_seconds",
    "order_of",
    "step_peak_mib",
    "traced",
]

MODULES, SOFTWARE = StepPlan(), Software()


def figure(value: float, low: float | None = None, high: float | None = None) -> Figure:
    """Return a number of a profile, with an optional range."""
    low, high = value if low is None else low, value if high is None else high
    return Figure(float(value), float(low), float(high), source="made for a test", basis="assumed")


def make_profile(**changes: Any) -> Profile:
    """Return a device with the memory rules of the CPU: no blocks, no workspace, dropout masks of four bytes."""
    profile = Profile(
        name="test-board",
        title="a board made for tests",
        basis="derived",
        kind="cpu",
        note="",
        gemm_gflops=figure(40),
        bmm_gflops=figure(9),
        bandwidth_gbs=figure(5),
        launch_us=figure(7),
        step_us=figure(90),
        token_us=figure(0.5),
        peak_gflops=figure(90),
        time_factor=figure(1, 0.5, 2.5),
        visible_mib=figure(4096),
        os_mib=figure(400, 300, 500),
        process_mib=figure(300, 250, 420),
        torch="2.13",
        attention="math",
        foreach=False,
        allocator_block_bytes=figure(1),
        workspace_mib=figure(0),
        dropout_mask_bytes=figure(4),
        power_w=figure(10),
        power_mode="all",
    )
    return dataclasses.replace(profile, **changes)


def step_peak_mib(model: nn.Module, batch_size: int, length: int, plan: StepPlan) -> float:
    """Return the profiler's peak of all tensors in the second training step of a reconfigured model, in MiB."""
    with stepping(model, plan, batch_size, length) as ready:
        return peak_mib(ready.call, model, ready.optimizer)


def order_of(layers: int, releases: bool = False) -> list[SegmentKey]:
    """Return the segments of a step in order, with those of ``release`` if ``releases``."""
    return [key for key in step_order(layers) if releases or key.phase != "release"]


@dataclasses.dataclass(frozen=True)
class Traced:
    """A direct trace of a whole step, and of the optimizer's second step.

    Attributes:
        order: order of the segments.
        static, state: bytes of parameters with buffers, and of the optimizer's state.
        trained: elements of each trained tensor.
    """

    order: list[SegmentKey]
    segments: list[Segment]
    optimizer: Segment
    static: int
    state: int
    trained: list[int]


def traced(
    model_config: Any,
    config: FarConfig,
    batch_size: int,
    length: int,
    plan: StepPlan = MODULES,
    chunk_rows: int | None = None,
    software: Software = SOFTWARE,
) -> Traced:
    """Trace the step of the whole model, without composition."""
    with meta_tensors():
        model, layout = build_ordinary(model_config, Head(), software)
    apply_config(model, layout, config, plan, chunk_rows)
    in_backward = _backward_optimizer(plan, model)
    segments = trace_step(model, layout, Head().batch(batch_size, length), software, in_backward)
    order = order_of(len(layout.layers), any(key.phase == "release" for key in segments))
    assert set(segments) <= set(order)
    state, step = _optimizer(plan, model, in_backward)
    held = [*model.parameters(), *model.buffers()]
    return Traced(
        order=order,
        segments=[segments.get(key, Segment()) for key in order],
        optimizer=step,
        static=sum(tensor.numel() * tensor.element_size() for tensor in held),
        state=sum(tensor.numel() * tensor.element_size() for tensor in state),
        trained=[p.numel() for p in model.parameters() if p.requires_grad],
    )


def _backward_optimizer(plan: StepPlan, model: nn.Module) -> BackwardOptimizer | None:
    """Return the optimizer of a plan that steps in the backward pass, for a meta model; None if it steps at the end.

    Its state exists already, as in the second step of training, because it steps once on zero gradients.
    """
    if plan.optimizer_step == "end":
        return None
    optimizer = BackwardOptimizer(plan.optimizer, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    for each in optimizer.optimizers:
        second_step(each, plan.optimizer_kernel)
    model.zero_grad()
    return optimizer


def _optimizer(
    plan: StepPlan, model: nn.Module, in_backward: BackwardOptimizer | None
) -> tuple[list[torch.Tensor], Segment]:
    """Return an optimizer's state tensors and second step, which is empty if it steps in the backward pass."""
    stepper = in_backward or second_step(make_optimizer(plan.optimizer, model), plan.optimizer_kernel)
    state = [value for entry in stepper.state.values() for value in entry.values() if isinstance(value, torch.Tensor)]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return state, trace_call(stepper.step, [*model.parameters(), *gradients, *state])


def naive_peak_mib(step: Traced, profile: Profile, batch_is_a_part: bool = False) -> float:
    """Return the highest memory level of all tensors, event by event.

    Args:
        batch_is_a_part: whether the batch is one of several whose gradients are accumulated: the accumulated gradients
            live all the time, and a new one until it is added.
    """
    block, mask = profile.allocator_block_bytes.value, profile.dropout_mask_bytes.value
    before = step.static + step.state + profile.workspace_mib.value * 2**20
    gradients = 4 * sum(step.trained)
    level = before + (gradients if batch_is_a_part else 0)
    peak = level
    for segment in step.segments:
        for event in segment.events:
            size = abs(event.size) * (mask / 4 if event.kind == "mask" else 1)
            size = math.copysign(math.ceil(size / block) * block, event.size)
            if batch_is_a_part or event.kind != "added":
                level += size
                peak = max(peak, level)
    level = before + gradients
    for event in step.optimizer.events:
        level += event.size
        peak = max(peak, level)
    return peak / 2**20


def naive_step_seconds(step: Traced, profile: Profile, tokens: int, parts: int = 1, calls: int = 1) -> float:
    """Return the sum over operations, with ``parts`` forward and backward passes and one optimizer step.

    Args:
        tokens: number of tokens of the whole batch, which are converted to a tensor.
        calls: number of calls per optimizer step.
    """
    launch = profile.launch_us.value
    bare = launch if profile.rates is None else profile.rates.bare_us

    def seconds(segments: Sequence[Segment], outside: bool = False) -> float:
        operations = [operation for segment in segments for operation in segment.operations]
        return sum(
            _operation_seconds(operation, profile)
            + 1e-6 * (bare if outside or operation.category == "optimizer" else launch)
            for operation in operations
        )

    overhead = 1e-6 * (calls * profile.step_us.value + tokens * profile.token_us.value)
    return parts * seconds(step.segments) + seconds([step.optimizer], outside=True) + overhead


def _operation_seconds(operation: Operation, profile: Profile) -> float:
    """Interpolate the measured rate of the kind log-linearly between sizes; otherwise use the roofline."""
    if profile.rates is not None and operation.kind in profile.rates.products:
        product = profile.rates.products[operation.kind]
        moved = (
            operation.left * product.s_per_gb_left
            + operation.right * product.s_per_gb_right
            + operation.out * product.s_per_gb_out
        )
        overhead = product.us_per_matrix * operation.matrices + product.us_per_call
        return operation.flops * product.s_per_tflop / 1e12 + moved / 1e9 + overhead / 1e6
    streams = {} if profile.rates is None else dict(profile.rates.streams)
    if "in_place" in streams:
        streams.setdefault("masked", streams["in_place"])
    if operation.kind in streams:
        stream = streams[operation.kind]
        points = [(math.log(mib * 2**20), math.log(us / 1e6)) for mib, us in zip(stream.mib, stream.us, strict=True)]
        x = math.log(max(1, operation.bytes))
        if x <= points[0][0]:
            return math.exp(points[0][1] + x - points[0][0])
        for (x0, y0), (x1, y1) in pairwise(points):
            if x <= x1:
                return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
        return math.exp(points[-1][1] + x - points[-1][0])
    rates = {"gemm": profile.gemm_gflops.value * 1e9, "bmm": profile.bmm_gflops.value * 1e9}
    compute = operation.flops / rates.get(operation.kind[:4].rstrip("_"), math.inf)
    return max(compute, operation.bytes / (profile.bandwidth_gbs.value * 1e9))
