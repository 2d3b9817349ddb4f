"""Dropout masks that are the same on every machine, drawn anew from their place in the training."""

from typing import Tuple

import numpy as np

__all__ = ["draw_mask"]

_AT_ONCE = 1 << 16
"""Elements drawn together: their bits stay in the cache."""


def draw_mask(key: Tuple[int, ...], shape: Tuple[int, ...], p: float) -> np.ndarray:
    """Return a bool mask, each element True with probability p (in steps of 2^-16).

    Sixteen bits of numpy's SFC64 per element, whose stream is specified for all versions and machines.

    Args:
        key: seed, step, part of the batch and number of the dropout; whole numbers from 0.
    """
    threshold = int(round(p * 2**16))
    if threshold <= 0:
        return np.zeros(shape, bool)
    if threshold >= 1 << 16:
        return np.ones(shape, bool)
    mask = np.empty(shape, bool)
    flat = mask.reshape(-1)
    generator = np.random.SFC64(np.random.SeedSequence(key))
    for start in range(0, len(flat), _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        words = generator.random_raw((len(part) + 3) // 4).astype("<u8", copy=False)
        np.less(words.view("<u2")[: len(part)], np.uint16(threshold), out=part)
    return mask
