"""What proposals would cost, thousands at once: what makes the known-cost sampler possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.plans import Goal
from farsearch.cost.price import Pricer, Prices, full_fine_tuning
from farsearch.study.space import Space

__all__ = ["KnownCosts", "PriceParams", "price_params"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KnownCosts:
    """Costs of proposals, ``[proposals]`` each.

    Attributes:
        fits: the proposal may become a trial.
        priming_epochs: length of its priming. priming_s: what that would take on the device, wherever it is run: with
            ``time_s``, what training the proposal takes in all where no trial has been primed so.
    """

    memory_mib: Array
    time_s: Array
    fits: NDArray[np.bool_]
    priming_epochs: Array
    priming_s: Array

    @property
    def both(self) -> Array:
        """Memory and time, ``[proposals, 2]``."""
        return np.stack([self.memory_mib, self.time_s], axis=1)


PriceParams = Callable[[Sequence[Mapping[str, Any]]], KnownCosts]
"""Prices proposals, given as Optuna's parameters."""


def price_params(pricer: Pricer, space: Space, layers: int, goal: Goal) -> PriceParams:
    """Prices proposals of a space as trials are priced: each under the exact plan that serves the goal best."""

    def price(params: Sequence[Mapping[str, Any]]) -> KnownCosts:
        configs = [space.config(each, layers) for each in params]
        plans = [pricer.price_many(configs, plan) for plan in pricer.plans]
        # as best_of: among the plans with which a configuration fits, and by the least peak where it fits with none
        best, rest = plans[0], plans[1:]
        memory, time, fits = best.peak_memory_mib, best.wall_time_s, best.fits
        for other in rest:
            better = _better(other, memory, time, goal)
            better = np.where(fits & other.fits, better, _better(other, memory, time, "memory") & (fits == other.fits))
            better |= other.fits & ~fits
            memory = np.where(better, other.peak_memory_mib, memory)
            time = np.where(better, other.wall_time_s, time)
            fits = fits | other.fits
        primings = np.array([config.priming_epochs for config in configs])
        lengths, which = np.unique(primings, return_inverse=True)
        return KnownCosts(memory, time, fits, primings, np.array([full_s(float(length)) for length in lengths])[which])

    @lru_cache(maxsize=64)
    def full_s(epochs: float) -> float:
        """Seconds of full fine-tuning, which priming is."""
        return pricer.price(full_fine_tuning(layers, epochs=epochs)).wall_time_s if epochs else 0.0

    return price


def _better(other: Prices, memory: Array, time: Array, goal: Goal) -> NDArray[np.bool_]:
    """Where another plan serves a goal better than what was found before."""
    found: NDArray[np.bool_] = other.peak_memory_mib * other.wall_time_s < memory * time
    if goal == "balanced":
        return found
    first, second = (other.peak_memory_mib, memory), (other.wall_time_s, time)
    if goal == "time":
        first, second = second, first
    found = (first[0] < first[1]) | ((first[0] == first[1]) & (second[0] < second[1]))
    return found
