"""Hypervolume and its expected improvement equal a grid count and sampling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farsearch.hypervolume import expected_improvement, hypervolume

CELLS = 6
REFERENCE = np.array([0.0, float(CELLS), float(CELLS)])

point = st.tuples(*[st.integers(0, CELLS)] * 3)
points = st.lists(point, min_size=0, max_size=6)


def split(trials: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return metrics and costs separately."""
    table = np.array(trials, dtype=float).reshape(-1, 3)
    return table[:, 0], table[:, 1:]


def counted(trials: list[tuple[int, int, int]]) -> int:
    """Return the hypervolume of integers, by counting the dominated unit cubes."""
    return sum(
        any(z < metric and m >= memory and t >= time for metric, memory, time in trials)
        for z, m, t in itertools.product(range(CELLS), repeat=3)
    )


@given(points)
def test_hypervolume_is_the_number_of_dominated_cubes(trials: list[tuple[int, int, int]]) -> None:
    """Ties, duplicates, dominated trials and trials on the reference point are included."""
    assert hypervolume(*split(trials), REFERENCE) == pytest.approx(counted(trials))


@given(points, point)
def test_certain_metric_improves_by_the_difference_of_hypervolumes(
    trials: list[tuple[int, int, int]], candidate: tuple[int, int, int]
) -> None:
    """With a deviation of 0 the expectation is exact."""
    metric, costs = split(trials)
    found = expected_improvement(
        np.array([candidate[1:]], dtype=float), np.array([float(candidate[0])]), np.zeros(1), metric, costs, REFERENCE
    )
    assert found[0] == pytest.approx(counted([*trials, candidate]) - counted(trials))


@settings(max_examples=25)
@given(points, point, st.floats(0.1, 3.0), st.integers(0, 2**32 - 1))
def test_closed_form_is_the_mean_over_draws(
    trials: list[tuple[int, int, int]], candidate: tuple[int, int, int], deviation: float, seed: int
) -> None:
    """A mean over 4,000 draws of the metric agrees within five standard errors."""
    metric, costs = split(trials)
    draws = np.random.default_rng(seed).normal(candidate[0], deviation, 4000)
    at = np.array([candidate[1:]] * len(draws), dtype=float)
    gains = expected_improvement(at, draws, np.zeros(len(draws)), metric, costs, REFERENCE)
    found = expected_improvement(
        at[:1], np.array([float(candidate[0])]), np.array([deviation]), metric, costs, REFERENCE
    )
    assert found[0] == pytest.approx(gains.mean(), abs=5 * gains.std() / len(draws) ** 0.5 + 1e-2)


@given(points, point, st.floats(0.0, 2.0))
def test_improvement_is_monotone(
    trials: list[tuple[int, int, int]], candidate: tuple[int, int, int], deviation: float
) -> None:
    """It falls with either cost and rises with the mean."""
    metric, costs = split(trials)
    at = np.array([candidate[1:]] * 4, dtype=float) + np.array([[0, 0], [-1, 0], [0, -1], [0, 0]])
    mean = np.array([candidate[0]] * 3 + [candidate[0] + 1.0])
    found = expected_improvement(at, mean, np.full(4, deviation), metric, costs, REFERENCE)
    assert (found[1:] >= found[0] - 1e-9).all()
