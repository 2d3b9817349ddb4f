"""The selection of the best plan for a goal."""

from __future__ import annotations

import numpy as np
import pytest

from farsearch.goals import GOALS, Goal, best_plan


@pytest.mark.parametrize(("goal", "expected"), [("memory", [1, 0, 2]), ("time", [0, 0, 0]), ("balanced", [2, 0, 2])])
def test_each_goal_selects_its_minimum(goal: Goal, expected: list[int]) -> None:
    """Of three plans and three configurations, select the least peak, the least time, the least product."""
    memory = [[30.0, 10.0, 20.0], [10.0, 10.0, 20.0], [15.0, 40.0, 10.0]]
    time = [[1.0, 1.0, 2.0], [5.0, 2.0, 9.0], [1.5, 8.0, 2.5]]
    assert best_plan(memory, time, np.ones((3, 3)), goal).tolist() == expected


@pytest.mark.parametrize("goal", GOALS)
def test_first_plan_wins_a_tie(goal: Goal) -> None:
    """Values equal up to rounding are equal; the second figure decides if the first is equal."""
    assert best_plan([100.0, 100.0 * (1 - 1e-12)], [7.0, 7.0], [True, True], goal) == 0
    assert best_plan([100.0, 100.0], [7.0, 6.0], [True, True], goal) == 1


@pytest.mark.parametrize("goal", GOALS)
def test_feasible_plans_precede_infeasible_ones(goal: Goal) -> None:
    """A plan that does not fit is never selected if another fits; if none does, the least peak is."""
    assert best_plan([1.0, 50.0], [1.0, 50.0], [False, True], goal) == 1
    assert best_plan([50.0, 40.0], [1.0, 99.0], [False, False], goal) == 1
