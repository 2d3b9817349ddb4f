"""The floor of the metric: points that learned, and are near the best, count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.floor import metric_floor

metric = st.floats(-1.0, 1.0)
error = st.floats(0.0, 0.2)
share = st.floats(0.0, 1.0)


def test_floor_is_half_of_what_was_learned() -> None:
    """With little noise, a point needs half of the best's advantage over a constant answer, or the given share."""
    assert metric_floor(0.9, 0.001, 0.5) == pytest.approx(0.7)
    assert metric_floor(0.9, 0.001, 0.5, near=0.75) == pytest.approx(0.8)
    assert metric_floor(0.3, 0.0, 0.0) == pytest.approx(0.15)


def test_unknown_constant_answer_sets_no_floor() -> None:
    """Studies made before it was recorded keep all their points."""
    assert metric_floor(0.9, 0.01, None) == -math.inf


@given(best=metric, error=error, constant=metric, near=share)
def test_nothing_counts_without_an_advantage_over_a_constant_answer(
    best: float, error: float, constant: float, near: float
) -> None:
    """A metric up to the constant answer's is never above the floor; nor is the best one where it is no better."""
    floor = metric_floor(best, error, constant, near)
    assert floor >= constant
    if best <= constant:
        assert floor >= best


@given(best=metric, error=error, constant=metric, near=share)
def test_points_within_noise_of_the_best_count_if_they_learned(
    best: float, error: float, constant: float, near: float
) -> None:
    """The floor is below the best by the noise of a difference, or decided by the constant answer."""
    floor = metric_floor(best, error, constant, near)
    assert floor <= max(constant + 1.645 * error, best - 2.326 * error) + 1e-9


def test_one_in_twenty_points_that_learned_nothing_is_above_the_floor() -> None:
    """A reference by sampling: metrics of a constant answer with noise, of which one is the best."""
    metrics = np.random.default_rng(0).normal(0.5, 0.02, 40_000)
    floor = metric_floor(0.52, 0.02, 0.5)
    assert np.mean(metrics > floor) == pytest.approx(0.05, abs=0.005)


@given(best=metric, error=error, constant=metric, shares=st.tuples(share, share))
def test_floor_rises_with_the_share(best: float, error: float, constant: float, shares: tuple[float, float]) -> None:
    """It does wherever something has learned."""
    low, high = (metric_floor(max(best, constant), error, constant, near) for near in sorted(shares))
    assert low <= high + 1e-12
