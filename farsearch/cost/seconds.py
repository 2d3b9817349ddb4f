"""The time of one composed step on a device.

Where a profile has a measured rate for a kind of operation, that is its time. Elsewhere it is a roofline of Williams,
Waterman, Patterson, "Roofline", CACM 52(4), 2009: the larger of work by rate and bytes by bandwidth. Each operation
has a launch overhead beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.operations import CATEGORIES, OPERATION_KINDS
from farsearch.cost.optimizer import optimizer_step
from farsearch.cost.table import Composed
from farsearch.devices.profile import Profile
from farsearch.devices.rates import ProductRate, StreamRate
from farsearch.records import StepPlan

__all__ = ["TIME_CATEGORIES", "operation_seconds", "step_seconds"]

TIME_CATEGORIES = (*CATEGORIES, "loading")

Array = NDArray[np.float64]


def operation_seconds(kinds: NDArray[np.int64], features: Array, profile: Profile) -> Array:
    """Seconds of operations, without ``time_factor``.

    Args:
        kinds: ``[operations]``, indices of ``OPERATION_KINDS``.
        features: ``[operations, features, ...]``, as in ``FEATURES``.

    Returns:
        ``[operations, ...]``.
    """
    seconds = np.full((len(kinds), *features.shape[2:]), profile.launch_us.value * 1e-6)
    for index in np.unique(kinds):
        some = kinds == index
        seconds[some] += _seconds_of(OPERATION_KINDS[index], features[some], profile)
    return seconds


def _seconds_of(kind: str, features: Array, profile: Profile) -> Array:
    flops, left, right, out, matrices = np.moveaxis(features, 1, 0)
    moved = left + right + out
    if profile.rates is not None and kind in profile.rates.products:
        return product_seconds(profile.rates.products[kind], flops, left, right, out, matrices)
    if profile.rates is not None and kind in profile.rates.streams:
        return stream_seconds(profile.rates.streams[kind], moved)
    rate = {"gemm": profile.gemm_gflops.value, "bmm": profile.bmm_gflops.value}.get(kind[:4].rstrip("_"), np.inf)
    return np.asarray(np.maximum(flops / (rate * 1e9), moved / (profile.bandwidth_gbs.value * 1e9)))


def product_seconds(rate: ProductRate, flops: Array, left: Array, right: Array, out: Array, matrices: Array) -> Array:
    """Linear in work, bytes and number of matrices."""
    touched = rate.s_per_gb_left * left + rate.s_per_gb_right * right + rate.s_per_gb_out * out
    overhead = rate.us_per_matrix * matrices + rate.us_per_call
    return np.asarray(rate.s_per_tflop * flops * 1e-12 + touched * 1e-9 + overhead * 1e-6)


def stream_seconds(rate: StreamRate, moved: Array) -> Array:
    """Between measured sizes a power law; beyond them proportional to the bytes."""
    sizes, times = np.array(rate.mib) * 2**20, np.array(rate.us) * 1e-6
    moved = np.maximum(moved, 1.0)
    within = np.exp(np.interp(np.log(moved), np.log(sizes), np.log(times)))
    return np.asarray(within * np.where(moved < sizes[0], moved / sizes[0], np.maximum(moved / sizes[-1], 1.0)))


def step_seconds(
    step: Composed, lengths: Array, plan: StepPlan, batch_size: int, profile: Profile
) -> dict[str, Array]:
    """Seconds of one training step at each length, by ``TIME_CATEGORIES``.

    A micro-batch repeats forward and backward pass ``batch_size / micro_batch_size`` times.
    """
    seconds = {name: np.zeros(len(lengths)) for name in TIME_CATEGORIES}
    for _, part, neurons in step.parts:
        each = operation_seconds(part.operation_kinds, part.work(lengths, neurons), profile)
        for i, name in enumerate(CATEGORIES):
            seconds[name] += each[part.categories == i].sum(axis=0)
    if plan.micro_batch_size is not None:
        repeats = -(-batch_size // plan.micro_batch_size)
        seconds = {name: value * repeats for name, value in seconds.items()}
    calls = 1
    if plan.optimizer_step == "backward":
        calls = len(step.trained)
    else:
        for matrix in (True, False):
            work = optimizer_step(plan, matrix).work(step.trained[step.matrices == matrix])
            seconds["optimizer"] += operation_seconds(*work, profile).sum()
    seconds["optimizer"] += calls * profile.step_us.value * 1e-6
    seconds["loading"] += batch_size * lengths * profile.token_us.value * 1e-6
    return {name: value * profile.time_factor.value for name, value in seconds.items()}
