"""Selection from a study: the front equals brute force, and choices have known answers."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.errors import BadInput, NoFeasibleTrial
from farsearch.records import AnyTrial, PrimingReport, flat
from farsearch.select import Intent, choose, objectives, pareto_front
from tests.factories import FRONT, changed, make_snapshot, make_trial

# few distinct values make ties and duplicates common
_coarse = st.tuples(*[st.integers(0, 5).map(float)] * 3)
_fine = st.tuples(st.floats(0, 1), st.floats(1, 1e5), st.floats(1e-3, 1e6))


def _brute_force(trials: list[AnyTrial]) -> set[int]:
    """Return the front by pairwise comparison."""
    able = [t for t in trials if flat(t).state == "complete" and flat(t).feasible and flat(t).metric is not None]

    def dominates(a: AnyTrial, b: AnyTrial) -> bool:
        here = (flat(a).metric, -flat(a).peak_memory_mib, -flat(a).wall_time_s)  # type: ignore[operator]
        there = (flat(b).metric, -flat(b).peak_memory_mib, -flat(b).wall_time_s)  # type: ignore[operator]
        return all(x >= y for x, y in zip(here, there, strict=True)) and here != there  # type: ignore[operator]

    best = [t for t in able if not any(dominates(other, t) for other in able)]
    first: dict[Any, int] = {}
    for t in sorted(best, key=lambda t: t.number):
        first.setdefault((flat(t).metric, flat(t).peak_memory_mib, flat(t).wall_time_s), t.number)
    return set(first.values())


@given(st.lists(st.tuples(_coarse | _fine, st.booleans(), st.sampled_from(["complete", "pruned"])), max_size=40))
def test_front_equals_brute_force(rows: list[tuple[tuple[float, float, float], bool, str]]) -> None:
    """Trials include ties, duplicates, infeasible and stopped ones."""
    trials = [
        make_trial(i, *values, feasible=feasible or i % 3 == 0, state=state)
        for i, (values, feasible, state) in enumerate(rows)
    ]
    assert pareto_front(trials) == _brute_force(trials)


@given(st.lists(_coarse, max_size=20), st.randoms(use_true_random=False))
def test_front_does_not_depend_on_order(rows: list[tuple[float, float, float]], shuffle: random.Random) -> None:
    trials = [make_trial(i, *values) for i, values in enumerate(rows)]
    shuffled = list(trials)
    shuffle.shuffle(shuffled)
    assert pareto_front(shuffled) == pareto_front(trials)


def test_front_has_no_duplicates_and_only_valid_trials() -> None:
    """Trials without a result, that do not fit or with a NaN metric are never on it; of equal ones the first is."""
    trials = [
        make_trial(0, 0.8, 100.0, 10.0),
        make_trial(1, 0.8, 100.0, 10.0),
        make_trial(2, 0.9, 50.0, 5.0, feasible=False),
        make_trial(3, 0.9, 50.0, 5.0, feasible=None),
        make_trial(4, float("nan"), 50.0, 5.0),
        make_trial(5, None, 50.0, 5.0, state="pruned"),
    ]
    assert pareto_front(trials) == {0}
    assert pareto_front([]) == set()
    assert objectives(trials[0]) == (-0.8, 100.0, 10.0)


def test_front_of_the_factory_study() -> None:
    """The marked front of the factory equals the computed one."""
    assert pareto_front(make_snapshot().trials) == FRONT


def test_front_of_ten_thousand_trials_takes_under_a_second() -> None:
    """This includes the case that every trial is on the front."""
    draw = random.Random(1)
    points = [(draw.random(), draw.random(), draw.random()) for _ in range(10_000)]
    mixed = [make_trial(i, *point) for i, point in enumerate(points)]
    plane = [make_trial(i, a + b, a, b) for i, (a, b, _) in enumerate(points)]
    started = time.process_time()
    assert 10 < len(pareto_front(mixed)) < 1000
    assert len(pareto_front(plane)) > 9000
    assert time.process_time() - started < 1


@pytest.mark.parametrize(("prefer", "number"), [("accuracy", 4), ("memory", 0), ("time", 0), ("knee", 2)])
def test_each_intent_selects_its_point(prefer: str, number: int) -> None:
    """On the factory's front 0 is small and fast, 4 is accurate, and 2 has most of both."""
    choice = choose(make_snapshot(), Intent(prefer=prefer))  # type: ignore[arg-type]
    assert choice.trial.number == number
    assert len(choice.reason.splitlines()) == 2


def test_knee_is_nearest_to_the_ideal_point() -> None:
    """By hand: without a known floor, trial 0 has lost the whole metric; 1 takes 50 of 2,200 MiB and a third more."""
    trials = [make_trial(0, 0.80, 100.0, 10.0), make_trial(1, 0.88, 150.0, 15.0), make_trial(2, 0.90, 200.0, 20.0)]
    assert choose(make_snapshot(*trials, front={0, 1, 2}), Intent(prefer="knee")).trial.number == 1


def test_knee_ties_are_broken_by_priming_memory_and_number() -> None:
    def primed(trial: AnyTrial, steps: int) -> Any:
        return changed(trial, priming=PrimingReport(steps, 1.0, False, 0.1, None, None))

    a, b = make_trial(0, 0.9, 200.0, 10.0), make_trial(1, 0.9, 100.0, 20.0)
    both = {0, 1}
    assert (
        choose(
            make_snapshot(primed(a, 8), primed(b, 64), front=both, budget_mib=200.0), Intent(prefer="knee")
        ).trial.number
        == 0
    )
    assert (
        choose(
            make_snapshot(primed(a, 8), primed(b, 8), front=both, budget_mib=200.0), Intent(prefer="knee")
        ).trial.number
        == 1
    )
    twins = [primed(make_trial(n, 0.9, 100.0, 10.0), 8) for n in (3, 7)]
    assert choose(make_snapshot(*reversed(twins), front={3, 7}), Intent(prefer="knee")).trial.number == 3


def test_ties_in_the_preferred_objective_are_broken_by_the_others() -> None:
    """Of two equally accurate trials, the one that needs less memory is selected."""
    trials = [make_trial(0, 0.9, 200.0, 10.0), make_trial(1, 0.9, 100.0, 20.0), make_trial(2, 0.8, 90.0, 9.0)]
    assert choose(make_snapshot(*trials, front={0, 1, 2}), Intent(prefer="accuracy")).trial.number == 1


def test_reason_compares_neighbours_and_noise() -> None:
    """The second line compares with the next smaller and the next larger point, in readable units."""
    trials = [
        make_trial(0, 0.80, 1000.0, 60.0, metric_error=0.01),
        make_trial(1, 0.84, 1200.0, 65.0, metric_error=0.01),
        make_trial(2, 0.85, 1500.0, 200.0, metric_error=0.01),
    ]
    reason = choose(make_snapshot(*trials, front={0, 1, 2}), Intent(trial=1)).reason
    first, second = reason.splitlines()
    assert first == "Trial 1: asked for, on the front (84.0 ± 1.0 %, 1,200 MiB, 65 s)."
    assert "trial 0 with −200 MiB, −5.0 s, −4.0 ± 1.4 points (beyond noise, taken as independent)" in second
    assert "trial 2 with +300 MiB, +2.2 min, +1.0 ± 1.4 points (within noise, taken as independent)" in second


def test_reason_without_noise_or_neighbours() -> None:
    """With an error of 0, of very few rows, noise is unknown, and a front of one point has no neighbours."""
    trials = [make_trial(i, 0.8 + i / 10, 100.0 + i, 10.0 + i, metric_error=0.0) for i in range(2)]
    assert "noise unknown" in choose(make_snapshot(*trials, front={0, 1}), Intent(prefer="accuracy")).reason
    assert choose(make_snapshot(trials[1], front={1}), Intent(prefer="knee")).reason.endswith(
        "The front has no other trial."
    )


def test_choice_off_the_front_has_a_reason() -> None:
    """The reason names a trial that dominates it, or states that it does not fit."""
    snapshot = make_snapshot()
    assert "trial 2 is as good or better in all three" in choose(snapshot, Intent(trial=1)).reason
    assert "does not fit" in choose(snapshot, Intent(trial=5)).reason
    twins = make_snapshot(make_trial(0, 0.8, 100.0, 10.0), make_trial(1, 0.8, 100.0, 10.0), front={0})
    assert "trial 0 is the same in all three" in choose(twins, Intent(trial=1)).reason
    idle = make_snapshot(make_trial(0, 0.8, 100.0, 10.0), make_trial(1, 0.5, 50.0, 5.0), front={0})
    assert "too near that of a constant answer" in choose(idle, Intent(trial=1)).reason


def test_correlations_are_not_shown_in_points() -> None:
    """Matthews correlation is no share, so its differences are plain numbers."""
    reason = choose(make_snapshot(metric_name="matthews_correlation"), Intent(prefer="knee")).reason
    assert "0.840 ± 0.011" in reason
    assert "points" not in reason


def test_invalid_choice_is_rejected_in_one_line() -> None:
    """Unknown and unfinished trials, unknown intents and empty fronts name the value and a suggestion."""
    snapshot = make_snapshot()
    with pytest.raises(BadInput, match=r"trial 99 is not in study .*; it has 0 to 5"):
        choose(snapshot, Intent(trial=99))
    with pytest.raises(BadInput, match=r"trial 3 is pruned \(cannot reach the front\).*choose a complete one"):
        choose(snapshot, Intent(trial=3))
    with pytest.raises(BadInput, match=r"'cheap' is unknown; it must be knee, accuracy, memory, time"):
        Intent(prefer="cheap")  # type: ignore[arg-type]
    with pytest.raises(NoFeasibleTrial, match="no trial on its front"):
        choose(make_snapshot(make_trial(0, 0.8, 1.0, 1.0)), Intent(prefer="knee"))


def test_choice_that_did_not_learn_is_marked() -> None:
    """The cheapest point of a front may be no better than a constant answer: the reason states it."""
    snapshot = make_snapshot(
        make_trial(0, 0.52, 900.0, 90.0, learned=False),
        make_trial(1, 0.85, 1000.0, 100.0, learned=True),
        front={0, 1},
    )
    reasons = [choose(snapshot, Intent(prefer=prefer)).reason.splitlines()[0] for prefer in ("memory", "accuracy")]
    assert ["did not learn" in reason for reason in reasons] == [True, False]
