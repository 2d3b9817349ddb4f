"""Suggestions for a training that does not fit a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from farsearch.api.cost_query import CostQuery
from farsearch.api.estimate import largest_of
from farsearch.cost.breakdown import CostBreakdown
from farsearch.cost.fixes import Fix, engine_fix, suggest_fixes
from farsearch.cost.pricer import Pricer
from farsearch.errors import ProfileError
from farsearch.records import FarConfig

__all__ = ["Suggestions", "suggestions_for"]


@dataclass(frozen=True)
class Suggestions:
    """What would fit where a training does not.

    Attributes:
        fixes: the least change of each kind.
        space: the shipped space of which most fits, and the share of it that does; None where less than half does.
    """

    fixes: tuple[Fix, ...] = ()
    space: tuple[str, float] | None = None


def suggestions_for(
    query: CostQuery, device: str, pricer: Pricer, priced: CostBreakdown, progress: Callable[[str], None]
) -> Suggestions:
    """Return what would fit, of the query's model, batches and length.

    Args:
        pricer, priced: of the query on the device. Nothing is suggested for what fits.
    """
    if priced.cost.fits:
        return Suggestions()
    # imported here: optuna takes a second
    from farsearch.study.suggestion import fitting_space

    if isinstance(query.trained, FarConfig):
        fixes = suggest_fixes(pricer, query.trained, priced)
        if query.engine == "torch" and not query.prime_on_device:
            fixes += _other_engine(query, query.trained, device, priced, progress)
    else:
        fixes = _smaller_batch(query, device, progress)
    return Suggestions(tuple(fixes), fitting_space(pricer, pricer.layers))


def _other_engine(
    query: CostQuery, config: FarConfig, device: str, priced: CostBreakdown, progress: Callable[[str], None]
) -> list[Fix]:
    """Return the engine without torch as a change, where that fits; nothing where the device has no figures of it."""
    with suppress(ProfileError):
        pricer = dataclasses.replace(query, engine="onnx").pricer(device, progress)
        change = engine_fix(pricer, config, priced.plan)
        return [] if change is None else [change]
    return []


def _smaller_batch(query: CostQuery, device: str, progress: Callable[[str], None]) -> list[Fix]:
    rows = largest_of(query, device, progress)
    if rows == 0:
        return []
    smaller = query.with_batch(rows)
    cost = smaller.breakdown(smaller.pricer(device, progress)).cost
    return [Fix(f"--batch-size {rows}", "smaller steps", cost)]
