"""The time of operations on a device, and of segments of a step.

If a profile has a measured rate for a kind of operation, the time follows from it. Otherwise it is the roofline of
Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009: the larger of work by rate and bytes by bandwidth. A launch
overhead is added to each operation. Products with factors of 16 bits do the work of those in float32 faster by the
profile's speedup; their bytes are those of 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.operations import CATEGORIES, OPERATION_KINDS
from farsearch.cost.segments import Array, Indices, Part, evaluate
from farsearch.devices.profile import Profile
from farsearch.devices.rates import HALF_PRODUCTS, ProductRate, StreamRate

__all__ = ["operation_seconds", "weighted_seconds"]

_AT_ONCE = 1 << 16
"""Operations times lengths times learners that are computed together: few enough to stay in a cache."""


def operation_seconds(
    kinds: Indices, features: Array, profile: Profile, optimizer: NDArray[np.bool_] | bool = False
) -> Array:
    """Return the seconds of operations, without ``time_factor``.

    Args:
        kinds: ``[operations]``, indices of ``OPERATION_KINDS``.
        features: ``[operations, features, ...]``, as in ``FEATURES``.
        optimizer: which of them belong to an optimizer, and run outside autograd.

    Returns:
        ``[operations, ...]``.
    """
    launch = profile.launch_us.value
    bare = launch if profile.rates is None else profile.rates.bare_us
    overheads = np.where(np.broadcast_to(optimizer, kinds.shape), bare, launch) * 1e-6
    seconds = np.zeros((len(kinds), *features.shape[2:])) + overheads.reshape(-1, *[1] * (features.ndim - 2))
    for index in np.unique(kinds):
        of_kind = kinds == index
        seconds[of_kind] += _seconds_of(OPERATION_KINDS[index], features[of_kind], profile)
    return seconds


def _seconds_of(kind: str, features: Array, profile: Profile) -> Array:
    flops, left, right, out, matrices = np.moveaxis(features, 1, 0)
    moved = left + right + out
    if kind in HALF_PRODUCTS:
        precision, kind = HALF_PRODUCTS[kind]
        speedup = getattr(profile, f"{precision}_speedup")
        # None only where a plan is priced that the device does not offer
        flops = flops / (1.0 if speedup is None else speedup.value)
    if profile.rates is not None and kind in profile.rates.products:
        return product_seconds(profile.rates.products[kind], flops, left, right, out, matrices)
    if profile.rates is not None:
        # a calibration of version 0.1 measured both kinds together
        rate_of = kind if kind in profile.rates.streams else {"masked": "in_place"}.get(kind, kind)
        if rate_of in profile.rates.streams:
            return stream_seconds(profile.rates.streams[rate_of], moved)
    rate = {"gemm": profile.gemm_gflops.value, "bmm": profile.bmm_gflops.value}.get(kind[:4].rstrip("_"), np.inf)
    return np.asarray(np.maximum(flops / (rate * 1e9), moved / (profile.bandwidth_gbs.value * 1e9)))


def product_seconds(rate: ProductRate, flops: Array, left: Array, right: Array, out: Array, matrices: Array) -> Array:
    """Return seconds that are linear in work, bytes and number of matrices."""
    touched = rate.s_per_gb_left * left + rate.s_per_gb_right * right + rate.s_per_gb_out * out
    overhead = rate.us_per_matrix * matrices + rate.us_per_call
    return np.asarray(rate.s_per_tflop * flops * 1e-12 + touched * 1e-9 + overhead * 1e-6)


def stream_seconds(rate: StreamRate, moved: Array) -> Array:
    """Return seconds by a power law between measured sizes, and in proportion to the bytes beyond them."""
    sizes, times = np.array(rate.mib) * 2**20, np.array(rate.us) * 1e-6
    moved = np.maximum(moved, 1.0)
    within = np.exp(np.interp(np.log(moved), np.log(sizes), np.log(times)))
    return np.asarray(within * np.where(moved < sizes[0], moved / sizes[0], np.maximum(moved / sizes[-1], 1.0)))


def weighted_seconds(
    parts: Sequence[Part], learners: Indices, lengths: Array, weights: Array, profile: Profile
) -> Array:
    """Return the seconds of segments by learners and category, summed over batches of several lengths.

    Most segments share most of their operations: each distinct one is computed once.

    Args:
        parts: of one ``width``.
        lengths: tokens, ``[lengths]``.
        weights: batches of each length, ``[phases, lengths]``.

    Returns:
        ``[parts, learners, phases, CATEGORIES]``, without ``time_factor``.
    """
    coefficients = np.concatenate([part.operations for part in parts])
    kinds = np.concatenate([part.operation_kinds for part in parts])
    categories = np.concatenate([part.categories for part in parts])
    optimizer = categories == CATEGORIES.index("optimizer")
    rows = np.column_stack([kinds, optimizer, coefficients.reshape(len(kinds), int(np.prod(coefficients.shape[1:])))])
    different, number = np.unique(rows, axis=0, return_inverse=True)
    owner = np.repeat(np.arange(len(parts)), [len(part.operations) for part in parts])
    occurs = np.zeros((len(parts), len(CATEGORIES), len(different)))
    np.add.at(occurs, (owner, categories, number), 1.0)
    kinds, optimizer = different[:, 0].astype(np.int64), different[:, 1] > 0
    coefficients = different[:, 2:].reshape(-1, *coefficients.shape[1:])
    seconds = np.zeros((len(different), len(learners), len(weights)))
    by_length = (coefficients[..., [1, 2, 4]] != 0).any(axis=(1, 2))
    by_learners = (coefficients[..., 3:] != 0).any(axis=(1, 2))
    for long, learnt in product((False, True), repeat=2):
        chosen = np.flatnonzero((by_length == long) & (by_learners == learnt))
        t, batches = (lengths, weights) if long else (lengths[:1], weights.sum(axis=1, keepdims=True))
        counts = learners if learnt else learners[:1]
        at_once = max(1, _AT_ONCE // max(1, len(chosen) * len(t)))
        for start in range(0, len(counts), at_once):
            k = counts[start : start + at_once]
            work = evaluate(coefficients[chosen], t[:, None], k, parts[0].width)
            priced = operation_seconds(kinds[chosen], work, profile, optimizer[chosen])
            where = slice(start, start + at_once) if learnt else slice(None)
            seconds[chosen, where] = np.moveaxis(np.tensordot(batches, priced, (1, 1)), 0, -1)
    return np.moveaxis(np.tensordot(occurs, seconds, 1), 1, -1)
