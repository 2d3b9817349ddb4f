"""Measure this machine into a profile: products, attention, streams, launches and memory. The home of ``local``."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable
from typing import Any

import torch

from farsearch.devices.machine import Machine, busy_cores, measure_memory, this_machine
from farsearch.devices.profile import Figure, Profile
from farsearch.devices.workloads import (
    Pool,
    attention_cases,
    launch_seconds,
    median_rates,
    product_cases,
    stream_cases,
)

__all__ = ["DEFAULT_SECONDS", "calibrate"]

DEFAULT_SECONDS = 20.0
"""Time for the measurements. With the bare process, which may take 30 s, the whole stays under 60 s."""

_SHARES = {"launch": 0.05, "products": 0.45, "attention": 0.2, "streams": 0.3}
"""Shares of that time."""
_FLOOR = 0.15
"""A calibrated time is never promised closer than this: other load and heat change the rates from day to day."""
_BUSY = 0.2
"""Others that keep more than this share of the cores busy are told of: threads that share a core wait for another."""


def calibrate(
    machine: Machine | None = None, seconds: float = DEFAULT_SECONDS, progress: Callable[[str], None] | None = None
) -> Profile:
    """The profile ``local`` of this machine: on CUDA where torch has it, otherwise on the CPU with torch's threads.

    Args:
        seconds: time for the measurements. Each kind ends with the operation that passes its share, and sees at
            least one shape.
        progress: told in a few words what is measured.
    """
    tell = progress or (lambda _: None)
    machine = machine or this_machine()
    busy = busy_cores()
    when = f"{datetime.date.today().isoformat()}, torch {machine.torch}, {machine.threads} threads"
    tell(f"calibrating this machine once, about {seconds + 10:.0f} s: memory")
    if busy > _BUSY * machine.cores:
        tell(f"other programs keep {busy:.1f} of {machine.cores} cores busy: rates come out too low, range is wider")
    memory = measure_memory(machine, when)
    shares = {kind: share * seconds for kind, share in _SHARES.items()}
    # the operands are random, and a training that follows must not draw other numbers than without calibration
    with torch.random.fork_rng():
        pool = Pool(torch.device(machine.kind))
        tell("calibrating: launches")
        with torch.enable_grad():
            plain, trained = launch_seconds(pool, shares["launch"])
        with torch.no_grad():
            tell("calibrating: matrix products")
            products = median_rates(product_cases(), pool, shares["products"], plain)
            tell("calibrating: attention products")
            attention = median_rates(attention_cases(), pool, shares["attention"], plain)
            tell("calibrating: element-wise operations")
            streams = median_rates(stream_cases(pool), pool, shares["streams"], plain)
    gemm = _middle(products, f"median over {len(products)} matrix products of BERT layers, {when}")
    return Profile(
        name="local",
        title=f"this machine: {machine.processor}, {machine.cores} cores",
        basis="calibrated",
        kind=machine.kind,
        note=f"other programs kept {busy:.1f} of {machine.cores} cores busy; other load, heat and clocks change it",
        gemm_gflops=gemm,
        bmm_gflops=_middle(attention, f"median over {len(attention)} batched products of the attention, {when}"),
        bandwidth_gbs=_mixture(streams, f"bytes by seconds over {len(streams)} element-wise operations, {when}"),
        launch_us=_launch(plain, trained, when),
        peak_gflops=_measured(
            gemm.high, gemm.high, gemm.high, f"no data sheet: the best product that was seen, {when}"
        ),
        time_factor=_factor(products, machine.cores / (machine.cores + busy), when),
        visible_mib=memory.visible,
        os_mib=memory.system,
        process_mib=memory.process,
        torch=machine.torch,
        power_w=None,
        power_mode="as found",
        **_software(machine),
    )


def _middle(rates: dict[str, tuple[float, float]], source: str) -> Figure:
    """Median of the rates in 10^9 a second, with the slowest and the fastest as range."""
    values = [rate / 1e9 for _, rate in rates.values()]
    return _measured(statistics.median(values), min(values), max(values), f"{source}; range: slowest and fastest")


def _mixture(rates: dict[str, tuple[float, float]], source: str) -> Figure:
    """All work by all seconds, because a step does every one of them; the slowest and the fastest as range."""
    work = sum(seconds * rate for seconds, rate in rates.values())
    values = [rate / 1e9 for _, rate in rates.values()]
    mean = work / sum(seconds for seconds, _ in rates.values()) / 1e9
    return _measured(mean, min(values), max(values), f"{source}; range: slowest and fastest")


def _launch(plain: float, trained: list[float], when: str) -> Figure:
    value = statistics.median(trained)
    source = f"passes of tiny layers with autograd by their operations, {when}; low: without autograd, high: slowest"
    return _measured(1e6 * value, 1e6 * min(plain, value), 1e6 * max(trained), source)


def _factor(rates: dict[str, tuple[float, float]], alone: float, when: str) -> Figure:
    """How far the time of a product may lie from that at the median rate: 80 % of those seen, or the floor.

    ``alone`` is the time that the same work is taken to need without the others, as a share of that measured.
    """
    values = sorted(rate for _, rate in rates.values())
    middle = statistics.median(values)
    fast, slow = (middle / value for value in (values[-1 - len(values) // 10], values[len(values) // 10]))
    source = f"time of 80 % of the matrix products against the median rate, at least {_FLOOR:.0%} either way"
    ends = min(fast, 1 - _FLOOR, alone), max(slow, 1 + _FLOOR)
    return _measured(1.0, *ends, f"{source}; without other programs {alone:.2f}, {when}")


def _software(machine: Machine) -> dict[str, Any]:
    """What the memory account needs to know of torch on this kind of device."""
    cuda = machine.kind == "cuda"
    blocks, workspace, mask = (512.0, 8.0, 1.0) if cuda else (64.0, 0.0, 4.0)

    def known(value: float, source: str) -> Figure:
        return Figure(value, value, value, source, "read")

    return {
        "allocator_block_bytes": known(blocks, f"blocks of torch's {machine.kind} allocator"),
        "workspace_mib": known(workspace, "cuBLAS takes about 8 MiB" if cuda else "the CPU allocator holds none"),
        "dropout_mask_bytes": known(mask, "masks are bool on CUDA" if cuda else "masks are fp32 on a CPU"),
        # farsearch steps tensor by tensor on every device
        "foreach": False,
        "attention": "math",
        "step_us": known(0, "temporary"),
        "token_us": known(0, "temporary"),
    }


def _measured(value: float, low: float, high: float, source: str) -> Figure:
    """A figure of four digits, which is more than a measurement is good for."""
    value, low, high = (float(f"{number:.4g}") for number in (value, low, high))
    return Figure(value, low, high, source, "measured")
