"""Measure this machine into a profile: products, attention, streams, launches and memory. The home of ``local``."""

from __future__ import annotations

import datetime
import os
import statistics
from collections.abc import Callable

import torch

from farsearch.devices.machine import Machine, measure_memory, this_machine
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
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    when = f"{datetime.date.today().isoformat()}, torch {machine.torch}, {machine.threads} threads"
    tell(f"calibrating this machine once, about {seconds + 10:.0f} s: memory")
    memory = measure_memory(machine, when)
    pool = Pool(torch.device(machine.kind))
    with torch.inference_mode(False):
        tell("calibrating: launches")
        plain, trained = launch_seconds(pool, _SHARES["launch"] * seconds)
    with torch.no_grad():
        tell("calibrating: matrix products")
        products = median_rates(product_cases(), pool, _SHARES["products"] * seconds, plain)
        tell("calibrating: attention products")
        attention = median_rates(attention_cases(), pool, _SHARES["attention"] * seconds, plain)
        tell("calibrating: element-wise operations")
        streams = median_rates(stream_cases(pool), pool, _SHARES["streams"] * seconds, plain)
    gemm = _middle(products, f"median over {len(products)} matrix products of BERT layers, {when}")
    return Profile(
        name="local",
        title=f"this machine: {machine.processor}, {machine.cores} cores",
        basis="calibrated",
        kind=machine.kind,
        note=f"calibrated at a load average of {load}; other load, heat and clocks change it",
        gemm_gflops=gemm,
        bmm_gflops=_middle(attention, f"median over {len(attention)} batched products of the attention, {when}"),
        bandwidth_gbs=_mixture(streams, f"bytes by seconds over {len(streams)} element-wise operations, {when}"),
        launch_us=_launch(plain, trained, when),
        peak_gflops=_measured(*[gemm.high] * 3, f"no data sheet: the best product that was seen, {when}"),
        time_factor=_factor(products, when),
        visible_mib=memory.visible,
        os_mib=memory.system,
        process_mib=memory.process,
        torch=machine.torch,
        power_w=None,
        power_mode="as found",
        **_software(machine),
    )
