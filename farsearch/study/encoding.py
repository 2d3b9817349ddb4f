"""Encoding of parameters as numbers for the Gaussian processes of the sampler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from farsearch.study.groups import kind_of, last_layer_of

__all__ = ["Encoder"]

Array = NDArray[np.float64]


class Encoder:
    """Optuna's parameters as points of the unit cube.

    Numbers are on their own scale, numeric choices by rank, and other choices one-hot. The columns of one parameter,
    or of one that every layer has, form a group, scaled to a diagonal of length 1. The mean of a group of layers is a
    group of its own: how much is frozen in all counts more than where.

    Parameters are encoded as they are trained, see ``FarConfig.canonical``: in a frozen bottom, fractions mean nothing.

    Attributes:
        groups: index of the group of each column.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = dict(space)
        names = list(dict.fromkeys(kind_of(name) for name in self._space))
        widths = {name: _width(distribution) for name, distribution in self._space.items()}
        own = np.array([names.index(kind_of(name)) for name, width in widths.items() for _ in range(width)])
        members = [sum(kind_of(name) == kind for name in self._space) for kind in names]
        self._layered = [np.flatnonzero(own == group) for group, count in enumerate(members) if count > 1]
        self._scale = 1.0 / np.sqrt(np.bincount(own, minlength=len(names))[own])
        self.groups: NDArray[np.int64] = np.append(own, len(names) + np.arange(len(self._layered))).astype(np.int64)

    def __call__(self, params: Iterable[Mapping[str, Any]]) -> Array:
        """Return the points, ``[points, columns]``."""
        rows = [_as_trained(row) for row in params]
        columns = [
            column
            for name, distribution in self._space.items()
            for column in _columns(distribution, [row[name] for row in rows])
        ]
        plain: Array = np.array(columns, dtype=float).reshape(len(self._scale), len(rows)).T
        means = [plain[:, layers].mean(axis=1, keepdims=True) for layers in self._layered]
        return np.hstack([plain * self._scale, *means])


def _as_trained(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters with all that a frozen bottom or frozen attention implies, as ``FarConfig.canonical``."""
    bottom = params.get("frozen_bottom_layers", 0)
    attention = max(bottom, params.get("frozen_attention_layers", 0))
    frozen_below = {"frozen_fraction": bottom, "frozen_heads": attention}
    implied: dict[str, Any] = {}
    for name in params:
        last = last_layer_of(name)
        if last is not None and last < frozen_below.get(kind_of(name), 0):
            implied[name] = 1.0
    if "frozen_attention_layers" in params:
        implied["frozen_attention_layers"] = attention
    if "frozen_embeddings" in params and bottom:
        implied["frozen_embeddings"] = True
    return {**params, **implied}


def _width(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution) and not _in_order(distribution):
        return len(distribution.choices)
    return 1


def _in_order(distribution: CategoricalDistribution) -> bool:
    return all(isinstance(choice, int | float) for choice in distribution.choices)


def _number(choice: Any) -> float:
    return float(choice)


def _columns(distribution: BaseDistribution, values: list[Any]) -> list[Array]:
    if isinstance(distribution, CategoricalDistribution):
        if not _in_order(distribution):
            return [np.array([value == choice for value in values], dtype=float) for choice in distribution.choices]
        ranks = {choice: rank for rank, choice in enumerate(sorted(distribution.choices, key=_number))}
        return [np.array([ranks[value] for value in values]) / max(1, len(ranks) - 1)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    ends = np.array([distribution.low, distribution.high], dtype=float)
    numbers = np.array(values, dtype=float)
    if distribution.log:
        ends, numbers = np.log(ends), np.log(numbers)
    return [(numbers - ends[0]) / max(float(ends[1] - ends[0]), 1e-12)]
