"""Suggest the nearest settings that fit, for a search in which nothing fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from farsearch.cost.fixes import freeze_more
from farsearch.cost.pricer import Price, Pricer
from farsearch.far.display import shown_seconds
from farsearch.goals import GOALS, Goal
from farsearch.records import FarConfig, StepPlan
from farsearch.study.random_configs import draw_params
from farsearch.study.sizes import size_of
from farsearch.study.space import Space, load_space
from farsearch.study.space_files import list_spaces

__all__ = ["fitting_space", "nearest_fit"]

_DRAWS = 100
_MOST = 0.5
"""A space is suggested if at least this share of it fits."""


def nearest_fit(pricer: Pricer, goal: Goal, space: Space, layers: int) -> str:
    """Return the smallest change with which something fits: more freezing, a higher bound, or a smaller batch.

    More freezing is tried first, up to all but the top layer. If that does not fit because of the user's own bound, the
    lowest sufficient bound is suggested; otherwise a half, a quarter, ... of the batch. Another shipped space is
    suggested too if most of it fits.
    """
    nearest = _nearest_setting(pricer, goal, space, layers)
    fitting = fitting_space(pricer, layers, but=space.name)
    return nearest if fitting is None else f"{nearest}; or search --space {fitting[0]}, of which {fitting[1]:.0%} fits"


def _nearest_setting(pricer: Pricer, goal: Goal, space: Space, layers: int) -> str:
    plan = cost = None
    for options, config in _freeze_more(space, layers):
        plan, cost = pricer.best(config, goal)
        if cost.fits:
            takes = f"{cost.peak_memory_mib:.0f} MiB and {shown_seconds(cost.wall_time_s)}"
            return f"with {options} it would take {takes}, by the plan {plan.summary}"
    assert cost is not None
    assert plan is not None
    least = f"all but the top layer frozen still takes {_needs(cost)}"
    bounds = _bounds(cost, pricer)
    if bounds:
        return f"{least}; allow {bounds}"
    size = _fitting_batch(pricer, plan, config)
    if size is not None:
        return f"{least}, and --batch-size {size} would fit"
    return f"{least}, with a batch of one row too: use a smaller --max-length or --model, or another --device"


def fitting_space(pricer: Pricer, layers: int, but: str | None = None) -> tuple[str, float] | None:
    """Return the shipped space of which the largest share fits, and that share; None if it is below half.

    Args:
        but: name of a space that is not considered.
    """
    size, shares = size_of(pricer.table(StepPlan()).parameters), {}
    for name in set(list_spaces()) - {but}:
        other = load_space(name).for_model(layers, size)
        shares[name] = _share_that_fits(pricer, other, layers)
    best = max(sorted(shares), key=lambda name: shares[name])
    return (best, shares[best]) if shares[best] >= _MOST else None


def _share_that_fits(pricer: Pricer, space: Space, layers: int) -> float:
    """Return the share of a space's configurations that fit under some plan.

    If even the least training that the space could have does not fit, no other is priced. Each plan is priced only for
    configurations that fit under none before, first the plans that are best for the least training.
    """
    *_, (_, least) = _freeze_more(space, layers)
    plans = [pricer.best(least, goal) for goal in GOALS]
    if not any(cost.fits for _, cost in plans):
        return 0.0
    params = draw_params(space.distributions(layers), _DRAWS, np.random.default_rng(0))
    others = [space.config(values, layers) for values in params]
    for plan in dict.fromkeys([*(plan for plan, _ in plans), *pricer.plans]):
        if others:
            fits = pricer.price_many(others, plan).fits
            others = [config for config, fit in zip(others, fits, strict=True) if not fit]
    return 1 - len(others) / _DRAWS


def _freeze_more(space: Space, layers: int) -> Iterator[tuple[str, FarConfig]]:
    """Configurations that train less and less, with the options that select them."""
    config = FarConfig(
        frozen_fractions=(1.0,) * layers,
        learning_rate=1e-4,
        epochs=_least(space, "epochs"),
        priming_epochs=_least(space, "priming_epochs"),
    )
    for less in freeze_more(config, attention=False):
        bottom = f" --set frozen_bottom_layers={less.frozen_bottom_layers}" * (less.frozen_bottom_layers > 0)
        yield f"--set frozen_fraction=1 --set frozen_embeddings=true{bottom}", less


def _least(space: Space, key: str) -> float:
    """Return the smallest value of a parameter in the space."""
    entry = space.search.get(key)
    if entry is None:
        return float(space.fixed[key])
    return float(min(entry["choices"]) if "choices" in entry else entry["low"])


def _needs(cost: Price) -> str:
    worst, seconds = cost.peak_memory_range_mib[1], shown_seconds(cost.wall_time_s)
    return f"{cost.peak_memory_mib:.0f} MiB (at worst {worst:.0f}) and {seconds}"


def _bounds(cost: Price, pricer: Pricer) -> str:
    """Return the options with which ``cost`` is within the bounds; empty where it exceeds the device itself."""
    if cost.peak_memory_range_mib[1] > cost.available_range_mib[0]:
        return ""
    options = []
    if pricer.constraints.max_memory_mib is not None and cost.peak_memory_mib > pricer.constraints.max_memory_mib:
        options.append(f"--max-memory {math.ceil(cost.peak_memory_mib)}")
    if pricer.constraints.max_time_s is not None and cost.wall_time_s > pricer.constraints.max_time_s:
        options.append(f"--max-time {math.ceil(cost.wall_time_s)}")
    return " and ".join(options)


def _fitting_batch(pricer: Pricer, plan: StepPlan, config: FarConfig) -> int | None:
    """Return the largest half, quarter, ... of the batch that fits in memory; None where a single row does not."""
    size = pricer.batch_size
    while size > 1:
        size //= 2
        # a micro-batch takes at least the memory of a batch of its size: gradients are accumulated in addition
        cost = pricer.price(config, dataclasses.replace(plan, micro_batch_size=size, optimizer_step="end"))
        within = pricer.constraints.max_memory_mib is None or cost.peak_memory_mib <= pricer.constraints.max_memory_mib
        if within and cost.peak_memory_range_mib[1] <= cost.available_range_mib[0]:
            return size
    return None
