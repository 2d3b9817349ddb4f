"""The JSON of ``estimate``, of a configuration and of a space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farsearch.api.suggestions import Suggestions
    from farsearch.cost.breakdown import CostBreakdown
    from farsearch.cost.pricer import Price
    from farsearch.cost.sweep import Sweep
    from farsearch.records import FarConfig

__all__ = ["cost_json", "median", "price_json", "sweep_json"]


def cost_json(
    priced: CostBreakdown, instead: Suggestions, device: str, model: str, method: str | None, batch_size: int
) -> dict[str, Any]:
    """Return the JSON of a training's cost, and of what would fit instead; ``method`` is None for a configuration."""
    cost = priced.cost
    return {
        "schema_version": 1,
        "device": device,
        "model": model,
        "method": method,
        "batch_size": batch_size,
        **price_json(cost),
        "available_mib_range": cost.available_range_mib,
        "step_time_s": cost.step_time_s,
        "trainable": cost.trainable,
        "plan": priced.plan.to_dict(),
        "steps": dict(priced.steps),
        "phases": {name: price_json(phase) for name, phase in priced.phases.items()},
        "fixes": [
            {
                "options": fix.options,
                "learns_the_same": fix.effect == "learns the same",
                "effect": fix.effect,
                **price_json(fix.cost),
            }
            for fix in instead.fixes
        ],
        "fitting_space": None
        if instead.space is None
        else {"space": instead.space[0], "share_that_fits": instead.space[1]},
    }


def price_json(cost: Price) -> dict[str, Any]:
    """Return the JSON of one price."""
    return {
        "tensor_peak_mib": cost.tensor_peak_mib,
        "peak_memory_mib": cost.peak_memory_mib,
        "peak_memory_mib_range": cost.peak_memory_range_mib,
        "wall_time_s": cost.wall_time_s,
        "wall_time_s_range": cost.wall_time_range_s,
        "energy_j": cost.energy_j,
        "fits": cost.fits,
        "breakdown": {"memory_mib": dict(cost.memory), "time_s": dict(cost.time)},
    }


def sweep_json(swept: Sweep, device: str, model: str, space: str, samples: int | None) -> dict[str, Any]:
    """Return the JSON of a priced space; ``samples`` are the rows of its epoch, None for a single step."""
    return {
        "schema_version": 1,
        "device": device,
        "model": model,
        "space": space,
        "samples": samples,
        "available_mib_range": swept.available_range_mib,
        "configurations": len(swept.configs),
        "fitting": swept.fitting,
        "plans": [
            {
                "plan": plan.to_dict(),
                "peak_memory_mib": _spread(prices.peak_memory_mib),
                "wall_time_s": _spread(prices.wall_time_s),
                "share_that_fits": float(prices.fits.mean()),
                "full_fine_tuning": price_json(full),
            }
            for plan, prices, full in zip(swept.plans, swept.prices, swept.full, strict=True)
        ],
        "front": [_point_json(swept, *point) for point in swept.front()],
        "most_trained": [_point_json(swept, *point) for point in swept.most_trained()],
    }


def _spread(values: Any) -> dict[str, float]:
    return {"least": float(values.min()), "median": median(values), "most": float(values.max())}


def _point_json(swept: Sweep, plan: int, index: int) -> dict[str, Any]:
    prices = swept.prices[plan]
    return {
        "peak_memory_mib": float(prices.peak_memory_mib[index]),
        "peak_memory_mib_range": [float(values[index]) for values in prices.peak_memory_range_mib],
        "wall_time_s": float(prices.wall_time_s[index]),
        "wall_time_s_range": [float(values[index]) for values in prices.wall_time_range_s],
        "trainable": int(prices.trainable[index]),
        "fits": bool(prices.fits[index]),
        "frozen": _frozen_json(swept.configs[index]),
        "plan": swept.plans[plan].to_dict(),
    }


def _frozen_json(config: FarConfig) -> dict[str, Any]:
    """Return the swept part of a configuration."""
    return {name: value for name, value in config.to_dict().items() if "frozen" in name}


def median(values: Any) -> float:
    """Return the median of an array."""
    import numpy as np

    return float(np.median(values))
