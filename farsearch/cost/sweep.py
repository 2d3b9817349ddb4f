"""The costs of a whole space under every plan: the range of memory and time on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.pricer import Price, Pricer, Prices, full_fine_tuning
from farsearch.cost.segments import Array
from farsearch.pareto import non_dominated
from farsearch.records import FarConfig, StepPlan

__all__ = ["Sweep", "price_space", "thin"]


@dataclass(frozen=True)
class Sweep:
    """The predicted costs of configurations under several plans on one device.

    Attributes:
        configs: distinct configurations.
        plans: the plans under which each of them was priced.
        prices: of ``configs``, by plan. full: of full fine-tuning, by plan.
        available_range_mib: low and high end of the memory of the device.
        budget_mib: ``peak_memory_mib`` above which no configuration fits.
    """

    device: str
    configs: tuple[FarConfig, ...]
    plans: tuple[StepPlan, ...]
    prices: tuple[Prices, ...]
    full: tuple[Price, ...]
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
        """``[plans, configurations]``, as ``Price.fits``."""
        return np.stack([prices.fits for prices in self.prices])

    @property
    def fitting(self) -> int:
        """Configurations that fit under at least one of the plans."""
        return int(self.fits.any(axis=0).sum())

    def front(self) -> list[tuple[int, int]]:
        """Return the Pareto front of peak memory and time as pairs of indices (plan, configuration), by rising memory.

        Of pairs with equal costs the first is returned.
        """
        front = non_dominated(np.column_stack([self.peak_memory_mib.ravel(), self.wall_time_s.ravel()]), distinct=True)
        return [divmod(int(i), len(self.configs)) for i in front]

    def most_trained(self) -> list[tuple[int, int]]:
        """Like ``front``, of peak memory and number of trained parameters, among the pairs that fit."""
        fits = np.flatnonzero(self.fits)
        trained = np.stack([prices.trainable for prices in self.prices]).ravel()[fits].astype(np.float64)
        front = fits[non_dominated(np.column_stack([self.peak_memory_mib.ravel()[fits], -trained]), distinct=True)]
        return [divmod(int(i), len(self.configs)) for i in front]


def price_space(
    pricer: Pricer, configs: Sequence[FarConfig], plans: Sequence[StepPlan], progress: Callable[[str], None]
) -> Sweep:
    """Return the costs of ``configs`` under each of ``plans``; ``progress`` is called with messages."""
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
        budget_mib=max(pricer.profile_of(plan).budget_mib for plan in plans),
    )


def thin(points: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Return at most ``most`` of ``points``, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]
