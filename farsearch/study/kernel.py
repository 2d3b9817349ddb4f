"""Encoding of parameters as numbers, and kernels with few length scales, for the Gaussian process of the metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel, NormalizedKernelMixin, StationaryKernelMixin

from farsearch.study.groups import kind_of

__all__ = ["AdditiveMatern", "Encoder", "GroupedMatern"]

Array = NDArray[np.float64]


class Encoder:
    """Optuna's parameters as points of the unit cube.

    Numbers are on their own scale, numeric choices by rank, and other choices one-hot. The columns of one parameter, or
    of one that every layer has, form a group, scaled to a diagonal of length 1.

    Attributes:
        groups: index of the group of each column.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = dict(space)
        names = list(dict.fromkeys(kind_of(name) for name in self._space))
        widths = {name: _width(distribution) for name, distribution in self._space.items()}
        self.groups = np.array([names.index(kind_of(name)) for name, width in widths.items() for _ in range(width)])
        sizes = np.bincount(self.groups, minlength=len(names))
        self._scale = 1.0 / np.sqrt(sizes[self.groups])

    def __call__(self, params: Iterable[Mapping[str, Any]]) -> Array:
        """Return the points, ``[points, columns]``."""
        rows = list(params)
        columns = [
            column
            for name, distribution in self._space.items()
            for column in _columns(distribution, [row[name] for row in rows])
        ]
        points: Array = np.array(columns, dtype=float).reshape(len(self.groups), len(rows)).T * self._scale
        return points


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


class _Grouped(StationaryKernelMixin, NormalizedKernelMixin, Kernel):  # type: ignore[misc]
    """A kernel with one length scale for each group of columns.

    With one for each column, as in ``sklearn``, a space with a fraction per layer has more length scales than a search
    has trials.

    Args:
        groups: index of the group of each column.
        length_scale: of each group.
        length_scale_bounds: of all groups.
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
        """The fitted hyperparameter."""
        return Hyperparameter("length_scale", "numeric", self.length_scale_bounds, len(self._scales))

    @property
    def _scales(self) -> Array:
        """The length scales; sklearn converts a single one to a number."""
        return np.atleast_1d(self.length_scale)

    def _parts(self, one: Array, other: Array) -> list[Array]:
        """Return squared distances in each group, in units of its length scale, ``[rows of one, rows of other]``."""
        columns = [np.flatnonzero(self.groups == group) for group in range(len(self._scales))]
        return [
            ((one[:, None, own] - other[None, :, own]) ** 2).sum(axis=2) / scale**2
            for own, scale in zip(columns, self._scales, strict=True)
        ]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(length_scale={np.round(self._scales, 3).tolist()})"


class GroupedMatern(_Grouped):
    """Matern's kernel (nu = 5/2) over all columns: interactions of the groups."""

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        """Return the kernel between rows of X and Y (default X), and its gradient by the log of each length scale."""
        parts = self._parts(X, X if Y is None else Y)
        kernel, slope = _matern(np.sum(parts, axis=0))
        return (kernel, np.stack([slope * part for part in parts], axis=2)) if eval_gradient else kernel


class AdditiveMatern(_Grouped):
    """The mean of Matern's kernels of the groups: their main effects.

    A few trials thus determine the effect of a learning rate, whatever their other parameters. (Duvenaud et al. 2011,
    additive Gaussian processes, of first order.)
    """

    def __call__(self, X: Array, Y: Array | None = None, eval_gradient: bool = False) -> Any:
        """Return kernel and gradient, as ``GroupedMatern``."""
        parts = self._parts(X, X if Y is None else Y)
        terms = [_matern(part) for part in parts]
        kernel = np.mean([term for term, _ in terms], axis=0)
        if not eval_gradient:
            return kernel
        slopes = [slope * part / len(parts) for (_, slope), part in zip(terms, parts, strict=True)]
        return kernel, np.stack(slopes, axis=2)


def _matern(squared: Array) -> tuple[Array, Array]:
    """Return Matern's kernel at squared distances, and the ratio of its derivative by a log length scale to them.

    Rasmussen and Williams 2006, equation 4.17.
    """
    distance = np.sqrt(5.0 * squared)
    decay = np.exp(-distance)
    return (1.0 + distance + distance**2 / 3.0) * decay, 5.0 / 3.0 * (1.0 + distance) * decay
