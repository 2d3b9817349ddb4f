"""Predicted costs of one configuration, and of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.segments import Array
from farsearch.records import Cost

__all__ = ["Price", "Prices", "total_of", "worse_of"]


@dataclass(frozen=True)
class Price(Cost):
    """The cost of one configuration as predicted now, with what a trial does not store. Units are in the names.

    Attributes:
        tensor_peak_mib: sum of ``memory``.
        available_range_mib: memory that the device has for the process.
        step_time_s: one step of the FAR phase at full length.
        problems: the constraints that it violates, as messages; empty if it is feasible.
    """

    tensor_peak_mib: float
    available_range_mib: tuple[float, float]
    peak_memory_range_mib: tuple[float, float]
    wall_time_range_s: tuple[float, float]
    step_time_s: float
    problems: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it satisfies all constraints: the device surely has the memory, and no limit is exceeded."""
        return not self.problems


@dataclass(frozen=True)
class Prices:
    """Predicted costs of many configurations on one device under one plan, ``[configurations]`` each.

    Attributes:
        memory, time: by category. The rest as in ``Price``.
    """

    tensor_peak_mib: Array
    peak_memory_mib: Array
    peak_memory_range_mib: tuple[Array, Array]
    step_time_s: Array
    wall_time_s: Array
    wall_time_range_s: tuple[Array, Array]
    energy_j: Array | None
    memory: Mapping[str, Array]
    time: Mapping[str, Array]
    trainable: NDArray[np.int64]
    fits: NDArray[np.bool_]


def total_of(parts: Mapping[str, Array]) -> Array:
    """Return the sum over categories."""
    return np.asarray(sum(parts.values()))


def worse_of(
    one: Mapping[str, Array], other: Mapping[str, Array], may: NDArray[np.bool_] | bool = True
) -> dict[str, Array]:
    """Return the moment that takes more, by category; that of ``other`` only where ``may`` is true."""
    worse = may & (total_of(other) > total_of(one))
    return {name: np.where(worse, other[name], values) for name, values in one.items()}
