"""Memory and time of what a phase does beside its steps: evaluations, a copy of the best state, clipped gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from farsearch.cost.segments import Array
from farsearch.devices.profile import Profile
from farsearch.runtime.best_state import EVALUATIONS

__all__ = ["best_state_mib", "clipping_seconds", "evaluation_seconds"]

_BYTES = 4
"""Bytes of a float32, in which all training is done."""


def best_state_mib(elements: Array) -> Array:
    """Return the MiB of the copy of trained tensors with so many elements, which lives through the whole phase."""
    return np.asarray(elements * (_BYTES / 2**20))


def evaluation_seconds(time: Mapping[str, Array], trained: float, rows: int) -> float:
    """Return the seconds of all evaluations of a phase, of ``rows`` rows each.

    A row takes a third of its training with all parameters: of each product of matrices the step has three, of which
    one is in the forward pass.

    Args:
        time: of training all parameters on ``trained`` rows, by category, ``[1]`` each.
    """
    passes = time["gemm"] + time["bmm"] + time["stream"]
    return float((passes[0] / 3 + time["loading"][0]) * (EVALUATIONS * rows / trained))


def clipping_seconds(elements: Array, steps: Array | float, profile: Profile) -> Array:
    """Return the seconds in which all gradients are read for their norm, and read and written to scale them."""
    return np.asarray(elements * steps * (3 * _BYTES / (profile.bandwidth_gbs.value * 1e9)) * profile.time_factor.value)
