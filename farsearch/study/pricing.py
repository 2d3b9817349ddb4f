"""Predict the costs of thousands of proposals at once, for the known-cost sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.goals import Goal, best_plan
from farsearch.study.space import Space

__all__ = ["KnownCosts", "PriceParams", "price_params"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KnownCosts:
    """Costs of proposals, ``[proposals]`` each.

    Attributes:
        fits: the proposal may become a trial.
        priming_epochs: length of its priming.
        priming_s: seconds of that priming on the device, wherever it is run.
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
"""Predicts the costs of proposals, given as Optuna's parameters."""


def price_params(pricer: Pricer, space: Space, layers: int, goal: Goal) -> PriceParams:
    """Return a function that prices proposals as trials are priced: under the exact plan that is best for the goal."""

    def price(params: Sequence[Mapping[str, Any]]) -> KnownCosts:
        configs = [space.config(values, layers) for values in params]
        # the learning rate costs nothing: proposals that differ in it alone are priced once
        alike = {config: dataclasses.replace(config, learning_rate=1.0) for config in configs}
        number = {form: i for i, form in enumerate(dict.fromkeys(alike.values()))}
        which = np.array([number[alike[config]] for config in configs])
        prices = pricer.price_plans(list(number), pricer.plans)
        memory, time, fits = (
            np.stack([getattr(price, name) for price in prices]) for name in ("peak_memory_mib", "wall_time_s", "fits")
        )
        best = best_plan(memory, time, fits, goal)[None]
        memory, time, fits = (np.take_along_axis(values, best, 0)[0, which] for values in (memory, time, fits))
        primings = np.array([config.priming_epochs for config in configs])
        lengths, length_of = np.unique(primings, return_inverse=True)
        priming_s = np.array([full_s(float(length)) for length in lengths])[length_of]
        return KnownCosts(memory, time, fits, primings, priming_s)

    @lru_cache(maxsize=64)
    def full_s(epochs: float) -> float:
        """Return the seconds of full fine-tuning, which is what priming trains."""
        return pricer.price(full_fine_tuning(layers, epochs=epochs)).wall_time_s if epochs else 0.0

    return price
