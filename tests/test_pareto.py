"""Pareto dominance, compared with its definition pair by pair."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.pareto import dominates, non_dominated


def is_dominated(point: tuple[float, ...], points: list[tuple[float, ...]]) -> bool:
    return any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)


def tables(objectives: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    """Generate points with few distinct values, so that ties and equal points are frequent, among arbitrary ones."""
    coarse = st.tuples(*[st.integers(0, 4).map(float)] * objectives)
    fine = st.tuples(*[st.floats(-1e6, 1e6)] * objectives)
    return st.lists(coarse | fine, max_size=40)


any_table = st.sampled_from((2, 3)).flatmap(tables)


@given(any_table)
def test_the_front_equals_the_definition(points: list[tuple[float, ...]]) -> None:
    front = non_dominated(points).tolist()
    assert set(front) == {i for i, point in enumerate(points) if not is_dominated(point, points)}
    assert front == sorted(front, key=lambda i: (points[i], i))


@given(any_table)
def test_a_distinct_front_has_the_first_of_equal_points(points: list[tuple[float, ...]]) -> None:
    front = non_dominated(points, distinct=True).tolist()
    assert [points[i] for i in front] == sorted({point for point in points if not is_dominated(point, points)})
    assert front == [points.index(points[i]) for i in front]


@given(any_table)
def test_a_pair_dominates_by_the_same_definition(points: list[tuple[float, ...]]) -> None:
    for a in points[:8]:
        for b in points[:8]:
            assert dominates(a, b) == is_dominated(b, [a])


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_large_front_takes_under_a_second(objectives: int) -> None:
    """On the plane sum(x) = 0 no point dominates another."""
    points = np.random.default_rng(0).random((20_000, objectives))
    points[:, 0] = -points[:, 1:].sum(axis=1)
    started = time.process_time()
    assert len(non_dominated(points)) > 19_000
    assert time.process_time() - started < 1
