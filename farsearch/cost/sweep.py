"""A whole space priced under every plan: what memory and time can be had at all on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.pricer import Cost, Pricer, Prices, full_fine_tuning
from farsearch.cost.segments import Array
from farsearch.pareto import non_dominated
from farsearch.records import FarConfig, StepPlan

__all__ = ["Sweep", "price_space", "thin"]


@dataclass(frozen=True)
class Sweep:
    """The prices of many configurations under some plans on one device.

    Attributes:
        configs: all different. plans: the ways in which a step of each was priced.
        prices: of ``configs``, one for each plan. full: full fine-tuning, one for each plan.
        available_range_mib: what the device has.
        budget_mib: ``peak_memory_mib`` above which nothing fits.
    """

    device: str
    configs: tuple[FarConfig, ...]
    plans: tuple[StepPlan, ...]
    prices: tuple[Prices, ...]
    full: tuple[Cost, ...]
    available_range_mib: tuple[float, float]
    budget_mib: float

    @property
    def peak_memory_mib(self) -> Array:
        """``[plans, configurations]``."""
        return np.stack([prices.peak_memory_mib for prices in self.prices])

    @property
    def wall_time_s(self) -> Array:
        """``[plans, configurations]``."""
        return np.stack([prices.wall_time_s for prices in self.prices])

    @property
    def fits(self) -> NDArray[np.bool_]:
        """``[plans, configurations]``, as ``Cost.fits``."""
        return np.stack([prices.fits for prices in self.prices])

    @property
    def fitting(self) -> int:
        """Configurations that fit under at least one of the plans."""
        return int(self.fits.any(axis=0).sum())

    def front(self) -> list[tuple[int, int]]:
        """Plan and configuration, by index, of what nothing beats in peak memory and time, the least memory first.

        Of those that take the same in both, the first plan and configuration.
        """
        found = non_dominated(np.column_stack([self.peak_memory_mib.ravel(), self.wall_time_s.ravel()]), distinct=True)
        return [divmod(int(i), len(self.configs)) for i in found]

    def most_trained(self) -> list[tuple[int, int]]:
        """Likewise of what nothing beats in peak memory and number of trained parameters, among what fits."""
        fits = np.flatnonzero(self.fits)
        trained = np.stack([prices.trainable for prices in self.prices]).ravel()[fits].astype(np.float64)
        found = fits[non_dominated(np.column_stack([self.peak_memory_mib.ravel()[fits], -trained]), distinct=True)]
        return [divmod(int(i), len(self.configs)) for i in found]


def price_space(
    pricer: Pricer, configs: Sequence[FarConfig], plans: Sequence[StepPlan], progress: Callable[[str], None]
) -> Sweep:
    """The prices of ``configs`` under each of ``plans``; ``progress`` hears what is done."""
    profile = pricer.profile
    progress(f"pricing {len(configs):,} configurations under {len(plans)} plans")
    prices = pricer.price_plans(configs, plans)
    full = [cost for _, cost in pricer.priced(full_fine_tuning(len(configs[0].frozen_fractions)), plans)]
    return Sweep(
        device=profile.name,
        configs=tuple(configs),
        plans=tuple(plans),
        prices=tuple(prices),
        full=tuple(full),
        available_range_mib=profile.available_mib,
        budget_mib=profile.budget_mib,
    )


def thin(points: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most so many of ``points``, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]
