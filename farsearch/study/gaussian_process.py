"""A Gaussian process with few hyperparameters, fitted from the first trials on.

    k(x, x') = a mean_g M(d_g) + b M(sum_g d_g / 4) + n [x = x']

M is Matern's kernel with nu = 5/2 of a squared distance, d_g that of the columns of group g in units of its length
scale. The first term has the main effects of the groups (Duvenaud et al. 2011, additive Gaussian processes, of first
order), the second their interactions; how much of each there is, is decided by the evidence. Hyperparameters are a
maximum a posteriori estimate: with log-normal priors a fit to five trials does no harm, which maximum likelihood
does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

__all__ = ["GaussianProcess"]

Array = NDArray[np.float64]
Groups = NDArray[np.int64]

_JITTER = 1e-6
_LEAST_SPREAD = 1e-9

_JOINT = 4.0
"""Squared ratio of the length scales of the joint and the additive part."""

_ADDITIVE, _INTERACTIONS, _LENGTH = 0.7, 0.3, 0.5
_LEAST_NOISE = 0.02
"""Medians of the priors, for values scaled to a variance of 1: of a, of b, of the length scales, and at least of the
noise's deviation."""

_BOUND = 4.0
"""Hyperparameters stay within so many deviations of their priors, in logs."""


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process.

    Attributes:
        points: ``[points, columns]``. groups: index of the group of each column.
        theta: logs of a, b, n and of the length scales of the groups.
        factor: lower Cholesky factor of the kernel's matrix. weights: its inverse times the scaled values.
        middle, spread: the values are scaled by subtracting the one, and dividing by the other.
    """

    points: Array
    groups: Groups
    theta: Array
    factor: Array
    weights: Array
    middle: float
    spread: float

    @classmethod
    def fit(cls, points: Array, values: Array, groups: Groups, noise: float, steps: int) -> GaussianProcess:
        """Fit the hyperparameters and the process.

        Args:
            points: ``[points, columns]``. values: ``[points]``. groups: ``[columns]``.
            noise: expected standard deviation of a value's noise, in units of the values.
            steps: of the optimizer.
        """
        spread = max(float(values.std()), noise, _LEAST_SPREAD)
        scaled = (values - values.mean()) / spread
        theta = _fitted(_parts(points, points, groups), scaled, noise / spread, steps)
        return cls.given(points, values, groups, theta, spread)

    def refitted(self, points: Array, values: Array) -> GaussianProcess:
        """Fit the same process, with its hyperparameters, to other points."""
        return self.given(points, values, self.groups, self.theta, self.spread)

    @classmethod
    def given(cls, points: Array, values: Array, groups: Groups, theta: Array, spread: float) -> GaussianProcess:
        """Fit the process with given hyperparameters; see the attributes."""
        middle = float(values.mean())
        kernel = _kernel(_parts(points, points, groups), theta)
        kernel[np.diag_indices_from(kernel)] += np.exp(theta[2]) + _JITTER
        factor = cholesky(kernel, lower=True)
        weights = cho_solve((factor, True), (values - middle) / spread)
        return cls(points, groups, theta, factor, weights, middle, spread)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the values without noise, ``[points]`` each."""
        kernel = _kernel(_parts(points, self.points, self.groups), self.theta)
        solved = solve_triangular(self.factor, kernel.T, lower=True)
        variance = np.exp(self.theta[0]) + np.exp(self.theta[1]) - (solved**2).sum(axis=0)
        mean = self.middle + self.spread * (kernel @ self.weights)
        return mean, self.spread * np.sqrt(np.maximum(variance, 1e-12))


def _parts(one: Array, other: Array, groups: Groups) -> Array:
    """Return squared distances in each group, ``[groups, rows of one, rows of other]``."""
    count = int(groups.max()) + 1
    parts = np.empty((count, len(one), len(other)))
    for group in range(count):
        a, b = one[:, groups == group], other[:, groups == group]
        if a.shape[1] == 1:
            parts[group] = (a - b.T) ** 2
        else:
            squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
            parts[group] = np.maximum(squares, 0.0)
    return parts


def _matern(squared: Array) -> tuple[Array, Array]:
    """Return Matern's kernel at squared distances, and its derivative by a log length scale over the distance.

    Rasmussen and Williams 2006, equation 4.17.
    """
    distance = np.sqrt(5.0 * squared)
    decay = np.exp(-distance)
    return (1.0 + distance + distance**2 / 3.0) * decay, 5.0 / 3.0 * (1.0 + distance) * decay


def _kernel(parts: Array, theta: Array) -> Array:
    scaled = parts / np.exp(2 * theta[3:])[:, None, None]
    kernel: Array = np.exp(theta[0]) * _matern(scaled)[0].mean(axis=0)
    kernel += np.exp(theta[1]) * _matern(scaled.sum(axis=0) / _JOINT)[0]
    return kernel


def _fitted(parts: Array, values: Array, noise: float, steps: int) -> Array:
    """Return the hyperparameters of largest posterior density."""
    count = len(parts)
    means = np.log([_ADDITIVE, _INTERACTIONS, max(noise, _LEAST_NOISE) ** 2, *[_LENGTH] * count])
    deviations = np.array([0.7, 1.0, 0.7, *[0.7] * count])

    def objective(theta: Array) -> tuple[float, Array]:
        a, b, n = np.exp(theta[:3])
        scaled = parts / np.exp(2 * theta[3:])[:, None, None]
        own, own_slope = _matern(scaled)
        joint, joint_slope = _matern(scaled.sum(axis=0) / _JOINT)
        additive = own.mean(axis=0)
        kernel = a * additive + b * joint
        kernel[np.diag_indices_from(kernel)] += n + _JITTER
        factor = cholesky(kernel, lower=True)
        weights = cho_solve((factor, True), values)
        inner = np.outer(weights, weights) - cho_solve((factor, True), np.eye(len(values)))
        slopes = (own_slope * (a / count) + joint_slope * (b / _JOINT)) * scaled
        gradient = np.array(
            [
                (inner * additive).sum() * a,
                (inner * joint).sum() * b,
                np.trace(inner) * n,
                *np.einsum("ij,gij->g", inner, slopes),
            ]
        )
        away = (theta - means) / deviations
        fit = 0.5 * values @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        return float(fit), -0.5 * gradient + away / deviations

    bounds = np.column_stack([means - _BOUND * deviations, means + _BOUND * deviations])
    found = minimize(objective, means, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": steps})
    return np.asarray(found.x)
