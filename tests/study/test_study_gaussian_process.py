"""The Gaussian process of the sampler equals that of ``sklearn``, and its fit is a maximum."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern

from farsearch.study.gaussian_process import GaussianProcess

GROUPS = np.array([0, 0, 1])
THETA = np.log([0.8, 0.4, 0.05, 0.3, 0.9])


class OnColumns(Matern):  # type: ignore[misc]
    """Matern's kernel of some columns."""

    def __init__(self, columns: tuple[int, ...], length_scale: float = 1.0) -> None:
        super().__init__(length_scale, nu=2.5)
        self.columns = columns

    def __call__(self, X: np.ndarray, Y: np.ndarray | None = None, eval_gradient: bool = False) -> np.ndarray:
        """Return the kernel of the columns."""
        chosen = list(self.columns)
        return np.asarray(super().__call__(X[:, chosen], None if Y is None else Y[:, chosen]))


def reference(theta: np.ndarray) -> Kernel:
    """Return the same kernel, of parts of ``sklearn``."""
    a, b, _, *scales = np.exp(theta)
    parts = [OnColumns(tuple(np.flatnonzero(g == GROUPS).tolist()), scale) for g, scale in enumerate(scales)]
    # a joint length scale is twice that of a group
    joint = Matern([2 * scales[g] for g in GROUPS], nu=2.5)
    return ConstantKernel(a / 2) * (parts[0] + parts[1]) + ConstantKernel(b) * joint


def data(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points, and values of a smooth function with a little noise."""
    draw = np.random.default_rng(seed)
    points = draw.uniform(size=(count, 3))
    return points, np.sin(4 * points[:, 2]) + points[:, 0] * points[:, 1] + 0.05 * draw.normal(size=count)


def test_predictions_equal_those_of_sklearn() -> None:
    """Mean and deviation, with the same hyperparameters."""
    points, values = data(12)
    at, _ = data(30, seed=1)
    mean, deviation = GaussianProcess.given(points, values, GROUPS, THETA, spread=1.0).predict(at)
    theirs = GaussianProcessRegressor(reference(THETA), alpha=0.05 + 1e-6, optimizer=None)
    expected, spread = theirs.fit(points, values - values.mean()).predict(at, return_std=True)
    assert mean == pytest.approx(expected + values.mean())
    assert deviation == pytest.approx(spread)


def test_fit_raises_the_evidence() -> None:
    """The hyperparameters are more probable, by sklearn's likelihood and the priors, than others nearby."""
    points, values = data(25)
    process = GaussianProcess.fit(points, values, GROUPS, noise=0.05, steps=100)
    scaled = (values - values.mean()) / process.spread
    prior = np.log([0.7, 0.3, (0.05 / process.spread) ** 2, 0.5, 0.5]), np.array([0.7, 1.0, 0.7, 0.7, 0.7])

    def density(theta: np.ndarray) -> float:
        model = GaussianProcessRegressor(reference(theta), alpha=float(np.exp(theta[2])) + 1e-6, optimizer=None)
        away = (theta - prior[0]) / prior[1]
        return float(model.fit(points, scaled).log_marginal_likelihood_value_ - 0.5 * away @ away)

    best = density(process.theta)
    for i in range(len(THETA)):
        for step in (-0.1, 0.1):
            assert density(process.theta + step * np.eye(len(THETA))[i]) < best


def test_few_points_do_not_mislead_a_fit() -> None:
    """From three points on, predictions are finite, and far away as uncertain as before."""
    points, values = data(3)
    mean, deviation = GaussianProcess.fit(points, values, GROUPS, noise=0.1, steps=15).predict(points + 100.0)
    assert mean == pytest.approx(values.mean(), abs=1e-6)
    assert (deviation > 0.3 * values.std()).all()


def test_equal_values_have_no_effect_to_predict() -> None:
    """All trials of a task at its constant answer: the mean is that value."""
    points, _ = data(8)
    mean, deviation = GaussianProcess.fit(points, np.full(8, 0.5), GROUPS, noise=0.01, steps=15).predict(points)
    assert mean == pytest.approx(0.5)
    assert np.isfinite(deviation).all()


def test_noise_is_not_part_of_a_prediction() -> None:
    """Repeated measurements of one point: the mean is their average, more certain than any of them."""
    draw = np.random.default_rng(3)
    points, values = np.zeros((40, 3)), draw.normal(0.8, 0.02, 40)
    mean, deviation = GaussianProcess.fit(points, values, GROUPS, noise=0.02, steps=15).predict(points[:1])
    assert mean[0] == pytest.approx(values.mean(), abs=0.005)
    assert deviation[0] < 0.01
