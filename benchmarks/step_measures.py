"""Measurements of a step: seconds, seconds in matrix products, and memory saved for the backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import DeviceType  # type: ignore[attr-defined]

__all__ = ["Call", "interleaved", "product_seconds", "step_seconds"]

Call = Callable[[], object]

_PRODUCTS = frozenset(f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "addmm_"))
"""Operations that are matrix products. A fused attention kernel, as CUDA has them, is none."""


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step_seconds(call: Call) -> list[float]:
    """Return the wall time of a call."""
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return [time.perf_counter() - start]


def product_seconds(call: Call) -> list[float]:
    """Return the time of a call in matrix products and outside of them, measured by torch's profiler.

    On a CPU the two add up to the wall time: the time of Python between operations is outside. On CUDA they are the
    kernels' own time.
    """
    cuda = torch.cuda.is_available()
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=kinds) as profile, torch.profiler.record_function("all of the call"):
        call()
        _wait()
    # a kernel's time is that of the operation that launched it; the kernels' own rows would count it twice
    rows = [row for row in profile.key_averages() if row.device_type == DeviceType.CPU]
    seconds = [1e-6 * (row.self_device_time_total if cuda else row.self_cpu_time_total) for row in rows]
    products = sum(s for s, row in zip(seconds, rows, strict=True) if row.key in _PRODUCTS)
    return [products, sum(seconds) - products]


def interleaved(
    calls: Sequence[Call], rounds: int, measure: Callable[[Call], list[float]], on_round: Callable[[int], None]
) -> NDArray[np.float64]:
    """Measure every call in rounds. The first call is measured at both ends of a round, and averaged.

    So a temporary slowdown affects a call and its reference.

    Returns:
        ``[rounds, calls, figures of a measure]``.
    """
    found = []
    for number in range(rounds):
        first, *others = [measure(call) for call in calls]
        last = measure(calls[0])
        found.append([[(a + b) / 2 for a, b in zip(first, last, strict=True)], *others])
        on_round(number + 1)
    return np.array(found)
