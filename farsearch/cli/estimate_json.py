"""The JSON of ``estimate``, of a configuration and of a space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farsearch.cost.breakdown import CostBreakdown
    from farsearch.cost.fixes import Fix
    from farsearch.cost.pricer import Price
    from farsearch.cost.sweep import Sweep
    from farsearch.records import FarConfig

__all__ = ["cost_json", "median", "sweep_json"]


def cost_json(priced: CostBreakdown, changes: Sequence[Fix], device: str, model: str) -> dict[str, Any]:
    """Return the JSON of a configuration's cost, and of the changes with which it would fit."""
    return {
        "schema_version": 1,
        "device": device,
        "model": model,
        **_cost_json(priced.cost),
        "available_mib_range": priced.cost.available_range_mib,
        "step_time_s": priced.cost.step_time_s,
        "trainable": priced.cost.trainable,
        "plan": priced.plan.to_dict(),
        "steps": dict(priced.steps),
        "phases": {name: _cost_json(cost) for name, cost in priced.phases.items()},
        "mends": [
            {"options": change.options, "learns_the_same": change.learns_the_same, **_cost_json(change.cost)}
            for change in changes
        ],
    }


def _cost_json(cost: Price) -> dict[str, Any]:
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
                "full_fine_tuning": _cost_json(full),
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
