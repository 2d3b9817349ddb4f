"""Fit a device profile to the measurements of a machine."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from farsearch.calibration.engine_steps import STEPS, TINY, EngineStep, predicted_step_s
from farsearch.calibration.measure.cases import BY_NUMPY, make_call
from farsearch.calibration.measure.host import BUSY_SHARE
from farsearch.calibration.measure.workloads import WORKLOADS, tiny_step, workload
from farsearch.calibration.result import Calibration, Sample
from farsearch.cost.operations import FEATURES, OPERATION_KINDS, Operation
from farsearch.cost.timing import operation_seconds
from farsearch.cost.trace import meta_tensors, trace_call
from farsearch.devices.engines import EngineFigures
from farsearch.devices.profile import Figure, Profile
from farsearch.devices.rates import PRODUCTS, STREAMS, ProductRate, Rates, StreamRate
from farsearch.errors import BadInput

__all__ = ["fit_engine", "fit_profile", "workload_ratios"]

_LEAST_RANGE = 0.2
"""Least half-width of the range of a calibrated time: load and heat change the rates from day to day."""
_GROWTH = 1.25
"""Factor by which a training process may outgrow the bare one: threads, and fragments in the heap."""

Array = NDArray[np.float64]


def fit_profile(result: Calibration, name: str, title: str | None = None) -> Profile:
    """Return the profile of the machine on which ``result`` was measured.

    Args:
        name: of the profile.
        title: description of the machine; by default its processor.
    """
    machine = result.machine
    when = _when(result)
    samples = _samples(result)
    launch = result.launch.tiny_step / _tiny_operations()
    busy = result.busy_cores or 0.0
    profile = Profile(
        name=name,
        title=title or f"{machine.processor}, {machine.cores} cores, {machine.threads} threads",
        basis="calibrated",
        kind=machine.kind,
        note=f"other programs kept {busy:.1f} of {machine.cores} cores busy; other load, heat and clocks change it",
        **_general(result, samples),
        launch_us=_measured(1e6 * launch, f"tiny layers with autograd by their operations, {when}"),
        peak_gflops=_measured(_fastest(samples), f"no data sheet: the fastest measured product, {when}"),
        time_factor=Figure(1.0, 1.0, 1.0, "fitted below", "assumed"),
        **_memory(result, when),  # type: ignore[arg-type]  # mypy takes the keys for any of the profile's
        torch=machine.torch,
        **_software(machine.kind, machine.torch),
        power_w=None,
        power_mode=result.merged_conditions().get("power_mode", "as found"),
        rates=_rates(result, samples),
        **_half_speedups(result, when),  # type: ignore[arg-type]  # likewise
    )
    return dataclasses.replace(profile, time_factor=_factor(workload_ratios(profile, result), result))


def fit_engine(result: Calibration, profile: Profile) -> Profile:
    """Return ``profile`` with the figures of the engine without torch, as measured on the same machine.

    Args:
        result: of the engine ``onnx``.

    Raises:
        BadInput: for a profile of a GPU.
    """
    if profile.kind != "cpu":
        raise BadInput(
            f"{profile.name} is of a GPU, and the engine 'onnx' runs on the CPU; give the profile of the board's CPU"
        )
    when, samples = _when(result), _samples(result)
    process = _process(result, when)
    start = EngineFigures(
        process, Figure(1.0, 1.0, 1.0, "fitted below", "assumed"), _rates(result, samples),
        **_general(result, samples), launch_us=Figure(0.0, 0.0, 0.0, "fitted below", "assumed"),
    )  # fmt: skip

    def predicted(step: EngineStep, figures: EngineFigures) -> float:
        return predicted_step_s(step, dataclasses.replace(profile, onnx=figures).for_engine("onnx"))

    # the prediction is linear in the overhead of an operation
    one_us = dataclasses.replace(start, launch_us=Figure(1.0, 1.0, 1.0, "fitted below", "assumed"))
    none, one = predicted(TINY, start), predicted(TINY, one_us)
    launch = max(0.0, result.launch.tiny_step - none) / (one - none)
    tiny = f"a tiny compiled step by the operations of its prediction, {when}"
    fitted = dataclasses.replace(start, launch_us=_measured(launch, tiny))
    ratios = {
        name: result.sustained[name].last / predicted(step, fitted)
        for name, step in STEPS.items()
        if name in result.sustained
    }
    figures = dataclasses.replace(fitted, time_factor=_factor(ratios, result))
    return dataclasses.replace(profile, onnx=figures)


def _half_speedups(result: Calibration, when: str) -> dict[str, Figure]:
    """The figures of products of 16 bits, by their fields of a profile."""
    source = f"median of matrix products by those in fp32, {when}"
    return {f"{name}_speedup": _measured(ratio, source) for name, ratio in (result.half_speedups or {}).items()}


Samples = Sequence[tuple[Operation, float]]


def _when(result: Calibration) -> str:
    return f"{result.date}, {result.machine.library}, {result.machine.threads} threads"


def _samples(result: Calibration) -> Samples:
    """Operations with their seconds, without the overhead of a call."""
    graph = result.launch.graph

    def seconds(sample: Sample) -> float:
        overhead = result.launch.operation if graph is None or sample.case in BY_NUMPY else graph
        # a call hardly longer than its overhead must not give an unbounded rate
        return max(sample.seconds - overhead, sample.seconds / 2)

    return [(_operation(sample.case, sample.dims), seconds(sample)) for sample in result.samples]


def _fastest(samples: Samples) -> float:
    return max(op.flops / seconds / 1e9 for op, seconds in samples if op.category == "gemm")


def _general(result: Calibration, samples: Samples) -> dict[str, Any]:
    """The figures that do not depend on how operations are traced."""
    when, launch = _when(result), result.launch
    gemm = [op.flops / seconds / 1e9 for op, seconds in samples if op.category == "gemm"]
    bmm = [op.flops / seconds / 1e9 for op, seconds in samples if op.category == "bmm"]
    moved = [op.bytes / seconds / 1e9 for op, seconds in samples if op.kind in ("arithmetic", "copy")]
    return {
        "gemm_gflops": _spread(gemm, f"median of {len(gemm)} matrix products of BERT layers, {when}"),
        "bmm_gflops": _spread(bmm, f"median of {len(bmm)} batched products of the attention, {when}"),
        "bandwidth_gbs": _spread(moved, f"median of {len(moved)} sums and copies, {when}"),
        "step_us": _measured(
            1e6 * max(0.0, launch.optimizer_call - 2 * launch.operation), f"a step of AdamW on 8 numbers, {when}"
        ),
        "token_us": _measured(1e6 * launch.batch_of_512_tokens / 512, f"a batch of 8 x 64 tokens, {when}"),
    }


def _rates(result: Calibration, samples: Samples) -> Rates:
    busy = {} if result.busy_cores is None else {"busy_cores": f"{result.busy_cores:.2f}"}
    conditions = {"date": result.date, **busy, **result.machine.conditions(), **result.merged_conditions()}
    bare = float(f"{1e6 * result.launch.operation:.4g}")
    return Rates(conditions, bare, _products(samples), _streams(samples))


def _factor(ratios: Mapping[str, float], result: Calibration) -> Figure:
    """The factor of all times, from measured by predicted seconds of whole steps."""
    busy = result.busy_cores or 0.0
    factor = statistics.median(ratios.values())
    alone = result.machine.cores / (result.machine.cores + busy) if busy > BUSY_SHARE * result.machine.cores else 1.0
    low = min(*ratios.values(), factor * (1 - _LEAST_RANGE) * alone)
    high = max(*ratios.values(), factor * (1 + _LEAST_RANGE))
    each = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    source = f"whole training steps by the sum of their operations: {each}; at least {_LEAST_RANGE:.0%} either way"
    return _measured(factor, f"{source}; {_when(result)}", low, high)


def workload_ratios(profile: Profile, result: Calibration) -> dict[str, float]:
    """Return measured by predicted seconds of each workload, at the end of the sustained load."""
    return {
        name: result.sustained[name].last / _predicted(profile, name) for name in WORKLOADS if name in result.sustained
    }


def _predicted(profile: Profile, name: str) -> float:
    kinds, features = _work(_workload_operations(name))
    return float(operation_seconds(kinds, features, profile).sum())


def _work(operations: Sequence[Operation]) -> tuple[NDArray[np.int64], Array]:
    kinds = np.array([OPERATION_KINDS.index(op.kind) for op in operations], dtype=np.int64)
    return kinds, np.array([[getattr(op, name) for name in FEATURES] for op in operations], dtype=np.float64)


@cache
def _workload_operations(name: str) -> tuple[Operation, ...]:
    with meta_tensors():
        step = workload(name, meta_tensors())
    return tuple(trace_call(step, []).operations)


@cache
def _tiny_operations() -> int:
    with meta_tensors():
        step = tiny_step(meta_tensors())
    return len(trace_call(step, []).operations)


@cache
def _operation(case: str, dims: tuple[int, ...]) -> Operation:
    """The operation of a case, traced like the steps that are predicted."""

    def take(*shapes: tuple[int, ...]) -> list[Tensor]:
        return [torch.empty(shape, device="meta") for shape in shapes]

    with torch.no_grad():
        (operation,) = trace_call(make_call(case, dims, take), []).operations
    return operation


def _products(samples: Samples) -> dict[str, ProductRate]:
    """Least squares of the relative errors, without negative rates."""
    rates = {}
    for kind in PRODUCTS:
        of_kind = [(op, s) for op, s in samples if op.kind == kind]
        if not of_kind:
            continue
        seconds = np.array([s for _, s in of_kind])
        units = np.array([1e-12, 1e-9, 1e-9, 1e-9, 1e-6, 1e-6])
        terms = np.array([[op.flops, op.left, op.right, op.out, op.matrices, 1.0] for op, _ in of_kind]) * units
        if kind.startswith("gemm"):
            terms[:, 4] = 0.0  # one matrix per call: indistinguishable from the cost of a call
        # relative errors, weighted by duration: long products are a larger part of a step
        weights = (seconds / seconds.max()) ** 0.25 / seconds
        scale = np.maximum((terms * weights[:, None]).max(axis=0), 1e-300)
        coefficients = nnls(terms * weights[:, None] / scale, seconds * weights)[0] / scale
        rates[kind] = ProductRate(*(float(f"{value:.4g}") for value in coefficients))
    return rates


def _streams(samples: Samples) -> dict[str, StreamRate]:
    """Bytes and seconds of each kind, averaged over operations of one size."""
    rates = {}
    for kind in STREAMS:
        sizes: dict[int, list[tuple[float, float]]] = {}
        for op, seconds in samples:
            if op.kind == kind:
                # operations of a kind with as many results, whatever they read
                sizes.setdefault(round(np.log2(op.bytes) * 0.7), []).append((op.bytes, seconds))
        if not sizes:
            continue
        means = sorted(tuple(np.exp(np.mean(np.log(points), axis=0))) for points in sizes.values())
        rates[kind] = StreamRate(
            tuple(float(f"{moved / 2**20:.4g}") for moved, _ in means),
            tuple(float(f"{seconds * 1e6:.4g}") for _, seconds in means),
        )
    return rates


def _memory(result: Calibration, when: str) -> dict[str, Figure]:
    """The three memory figures of a profile, in whole MiB."""
    memory = result.memory
    visible, source_of = memory.visible_mib, f"{memory.visible_is}; {memory.own}, {when}"
    if memory.others_mib is None:
        source = "assumed a quarter, between a tenth and a half: not reported by the system"
        value, low, high = (float(round(share * visible)) for share in (0.25, 0.1, 0.5))
        system = Figure(value, low, high, source, "assumed")
    else:
        taken = memory.others_mib
        source = f"held by others and the kernel, {when}; high: a quarter and 256 MiB more, others may start"
        system = _mib(taken, 0.75 * taken, min(1.25 * taken + 256, 0.95 * visible), source)
    process = _process(result, when)
    return {"visible_mib": _mib(visible, visible, visible, source_of), "os_mib": system, "process_mib": process}


_UNKNOWN_PROCESS = {"torch": (400.0, 200.0, 1024.0), "onnx": (77.0, 61.0, 100.0)}
"""MiB of a process where it was not measured, with their range: those of the shipped profiles on a CPU."""
_RUNNER_MIB = 10.0
"""Of a process without torch that the bare one lacks: the runner, its bundle, and pages and heap of a first step. With
Python 3.11 and onnxruntime 1.31 10 MiB, with 3.6 and 1.10 8 (docs/log.md)."""


def _process(result: Calibration, when: str) -> Figure:
    memory, peak = result.memory, result.memory.process_mib
    if peak is None:
        return Figure(*_UNKNOWN_PROCESS[result.engine], "assumed: the bare process did not end in time", "assumed")
    source = f"a bare process that trains: {memory.visible_is}; {memory.own}, {when}; high: {_GROWTH} times"
    if result.engine == "onnx":
        peak, source = peak + _RUNNER_MIB, f"{source}; {_RUNNER_MIB:g} of it assumed for the runner and a first step"
    return _mib(peak, 0.9 * peak, _GROWTH * peak, source)


def _software(kind: str, version: str) -> dict[str, Any]:
    """The software figures of torch on this kind of device."""
    cuda = kind == "cuda"
    blocks, workspace, mask = (512.0, 8.0, 1.0) if cuda else (64.0, 0.0, 4.0)
    modern = int(version.split(".")[0]) >= 2

    def known(value: float, source: str) -> Figure:
        return Figure(value, value, value, source, "read")

    return {
        "attention": ("fused" if cuda else "math") if modern else "eager",
        "foreach": cuda and modern,
        "allocator_block_bytes": known(blocks, f"blocks of torch's {kind} allocator"),
        "workspace_mib": known(workspace, "cuBLAS takes about 8 MiB" if cuda else "the CPU allocator holds none"),
        "dropout_mask_bytes": known(mask, "masks are bool on CUDA" if cuda else "masks are fp32 on a CPU"),
    }


def _spread(rates: Sequence[float], source: str) -> Figure:
    return _measured(statistics.median(rates), f"{source}; range: slowest and fastest", min(rates), max(rates))


def _measured(value: float, source: str, low: float | None = None, high: float | None = None) -> Figure:
    """A figure of four significant digits, more than the accuracy of a measurement."""

    def short(number: float | None) -> float:
        return float(f"{value if number is None else number:.4g}")

    return Figure(short(value), short(low), short(high), source, "measured")


def _mib(value: float, low: float, high: float, source: str) -> Figure:
    return Figure(float(round(value)), float(round(low)), float(round(high)), source, "measured")
