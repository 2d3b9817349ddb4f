"""Draw many configurations from a space at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from farsearch.records import FarConfig
from farsearch.study.space import Space

__all__ = ["draw_configs", "draw_params"]

_SETTINGS = {"learning_rate": 1e-4, "epochs": 1.0}
"""Parameters that do not change the cost of a step."""


def draw_configs(space: Space, layers: int, count: int, seed: int, *, priming: bool) -> list[FarConfig]:
    """Return the two corners of a space and ``count`` draws from it, without duplicates, each of one epoch.

    The corners are first: as little frozen as the space allows, and as much.

    Args:
        priming: draw the space's priming; otherwise it is 0 epochs.

    Raises:
        SpaceError: for more layers than the model has.
    """
    settings = _SETTINGS if priming else {**_SETTINGS, "priming_epochs": 0.0}
    space = space.with_fixed(settings)
    distributions = space.distributions(layers)
    ends = [_ends(name, distribution) for name, distribution in distributions.items()]
    corners = [dict(zip(distributions, corner, strict=True)) for corner in zip(*ends, strict=True)]
    drawn = [*corners, *draw_params(distributions, count, np.random.default_rng(seed))]
    return list(dict.fromkeys(space.config(params, layers) for params in drawn))


def draw_params(
    distributions: Mapping[str, BaseDistribution], count: int, draw: np.random.Generator
) -> list[dict[str, Any]]:
    """Return ``count`` independent draws of all parameters, uniform on their scale, which may be logarithmic."""
    columns = [_column(distribution, count, draw) for distribution in distributions.values()]
    return [dict(zip(distributions, (column[i] for column in columns), strict=True)) for i in range(count)]


def _column(distribution: BaseDistribution, count: int, draw: np.random.Generator) -> list[Any]:
    """Draw ``count`` values of one parameter."""
    if isinstance(distribution, CategoricalDistribution):
        return [distribution.choices[i] for i in draw.integers(len(distribution.choices), size=count)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    values: NDArray[Any]
    if step is not None:
        values = low + step * draw.integers(round((high - low) / step) + 1, size=count)
    elif distribution.log:
        values = np.exp(draw.uniform(np.log(low), np.log(high), size=count))
    else:
        values = draw.uniform(low, high, size=count)
    return list(values.clip(low, high).tolist())


def _ends(name: str, distribution: BaseDistribution) -> tuple[Any, Any]:
    """Return the values of one parameter in the two corners. Priming freezes nothing, so it is the shortest in both."""
    ends: tuple[Any, Any]
    if isinstance(distribution, CategoricalDistribution):
        choices: list[Any] = sorted(distribution.choices, key=float)
        ends = choices[0], choices[-1]
    else:
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        ends = distribution.low, distribution.high
    return (ends[0], ends[0]) if name == "priming_epochs" else ends
