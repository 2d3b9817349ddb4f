"""What the Gaussian process of the metric is made of: parameters as numbers, and a kernel with few length scales."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel, NormalizedKernelMixin, StationaryKernelMixin

__all__ = ["Encoder", "GroupedMatern"]

Array = NDArray[np.float64]

_LAYER = re.compile(r"_layer_\d+$")


class Encoder:
    """Optuna's parameters as points of the unit cube.

    Numbers lie on their own scale, choices that are numbers in their order, other choices each on an axis of its own.
    The columns of one parameter, or of one that every layer has, are a group; its columns are scaled so that its
    diagonal is 1 long.

    Attributes:
        groups: number of the group of each column.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = dict(space)
        names = list(dict.fromkeys(_LAYER.sub("", name) for name in self._space))
        widths = {name: _width(distribution) for name, distribution in self._space.items()}
        self.groups = np.array(
            [names.index(_LAYER.sub("", name)) for name, width in widths.items() for _ in range(width)]
        )
        sizes = np.bincount(self.groups, minlength=len(names))
        self._scale = 1.0 / np.sqrt(sizes[self.groups])

    def __call__(self, params: Iterable[Mapping[str, Any]]) -> Array:
        """``[points, columns]``."""
        rows = list(params)
        columns = [
            column
            for name, distribution in self._space.items()
            for column in _columns(distribution, [row[name] for row in rows])
        ]
        return np.array(columns, dtype=float).reshape(-1, len(rows)).T * self._scale


def _width(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution) and not _in_order(distribution):
        return len(distribution.choices)
    return 1


def _in_order(distribution: CategoricalDistribution) -> bool:
    return all(isinstance(choice, int | float) for choice in distribution.choices)


def _columns(distribution: BaseDistribution, values: list[Any]) -> list[Array]:
    if isinstance(distribution, CategoricalDistribution):
        if not _in_order(distribution):
            return [np.array([value == choice for value in values], dtype=float) for choice in distribution.choices]
        ranks = {choice: rank for rank, choice in enumerate(sorted(distribution.choices, key=float))}
        return [np.array([ranks[value] for value in values]) / max(1, len(ranks) - 1)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    ends = np.array([distribution.low, distribution.high], dtype=float)
    numbers = np.array(values, dtype=float)
    if distribution.log:
        ends, numbers = np.log(ends), np.log(numbers)
    return [(numbers - ends[0]) / max(float(ends[1] - ends[0]), 1e-12)]


class GroupedMatern(StationaryKernelMixin, NormalizedKernelMixin, Kernel):  # type: ignore[misc]
    """Matern's kernel (nu = 5/2) with one length scale for each group of columns.

    With one for each column, as ``sklearn``'s own has, a space with a fraction for every layer has more of them than a
    search has trials. (Rasmussen and Williams 2006, equation 4.17.)

    Args:
        groups: number of the group of each column.
        length_scale: of each group. length_scale_bounds: of all.
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        length_scale: Array,
        length_scale_bounds: tuple[float, float] = (1e-5, 1e5),
    ) -> None:
        self.groups, self.length_scale, self.length_scale_bounds = groups, length_scale, length_scale_bounds

    @property
    def hyperparameter_length_scale(self) -> Hyperparameter:
        """What is fitted."""
        return Hyperparameter("length_scale", "numeric", self.length_scale_bounds, len(self._scales))

    @property
    def _scales(self) -> Array:
        """The length scales; sklearn makes a number of a single one."""
        return np.atleast_1d(self.length_scale)

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        """The kernel between rows of X and of Y (X where None), and its gradient by the log of each length scale."""
        other = X if Y is None else Y
        parts = [
            ((X[:, None, columns] - other[None, :, columns]) ** 2).sum(axis=2) / scale**2
            for columns, scale in zip(self._columns(), self._scales, strict=True)
        ]
        distance = np.sqrt(5.0 * np.sum(parts, axis=0))
        decay = np.exp(-distance)
        kernel = (1.0 + distance + distance**2 / 3.0) * decay
        if not eval_gradient:
            return kernel
        common = 5.0 / 3.0 * (1.0 + distance) * decay
        return kernel, np.stack([common * part for part in parts], axis=2)

    def _columns(self) -> list[NDArray[np.int64]]:
        return [np.flatnonzero(self.groups == group) for group in range(len(self._scales))]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(length_scale={np.round(self._scales, 3).tolist()})"
