"""Selection within limits, near the best and under another plan, and comparison with noise."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from farsearch.errors import BadInput, NoFeasibleTrial
from farsearch.records import PlanPrice, StepPlan, StudySnapshot, flat
from farsearch.select import Intent, choose, pareto_front, under_plan
from farsearch.tasks.standard_errors import metric_error, paired_error
from tests.factories import make_snapshot, make_trial

STORE = StepPlan(feed_forward="store", attention="recompute", dropout="seed", layer_norm="output")
RECOMPUTE = dataclasses.replace(STORE, feed_forward="recompute")


def four() -> StudySnapshot:
    """Return a front of four trials, each with more memory, more time and a higher metric than the last."""
    return make_snapshot(
        make_trial(0, 0.880, 100.0, 100.0),
        make_trial(1, 0.900, 150.0, 120.0),
        make_trial(2, 0.903, 200.0, 180.0),
        make_trial(3, 0.905, 400.0, 200.0),
        front={0, 1, 2, 3},
    )


def planned(number: int, metric: float, *prices: tuple[StepPlan, float, float, bool]) -> Any:
    """Return a trial with a price under each plan, run under the first."""
    plan, memory, time, fits = prices[0]
    plans = tuple(PlanPrice(*price) for price in prices)
    return make_trial(number, metric, memory, time, plan=plan, feasible=fits, plans=plans)


@pytest.mark.parametrize(
    ("within", "prefer", "number"),
    [(0.1, None, 3), (0.2, None, 2), (0.5, None, 1), (3.0, None, 0), (0.5, "time", 1), (0.5, "memory", 1)],
)
def test_within_selects_the_cheapest_near_the_best(within: float, prefer: str | None, number: int) -> None:
    """Half a point below the best includes trial 1 exactly; the quickest is selected."""
    choice = choose(four(), Intent(within=within, prefer=prefer))  # type: ignore[arg-type]
    assert choice.trial.number == number
    assert f"within {within:g} points" in choice.reason


def test_within_names_the_best_and_compares_with_it() -> None:
    """The best is compared even if it is no neighbour, because it is the alternative."""
    first, second = choose(four(), Intent(within=0.5)).reason.splitlines()
    assert first.startswith(
        "Trial 1: cheapest (quickest, then least memory) of the 3 within 0.5 points of trial 3, the best of 4 on the "
    )
    assert "trial 3 with +250 MiB, +80 s, +0.5 ± 1.6 points" in second
    assert (
        "Trial 3: best metric of 4 on the front, with no other within 0.1 points"
        in choose(four(), Intent(within=0.1)).reason
    )


@given(
    st.lists(st.tuples(st.floats(0.5, 1), st.floats(1, 1e4), st.floats(1, 1e4)), min_size=1, max_size=20),
    st.floats(0.01, 30),
)
def test_no_trial_within_the_points_is_cheaper(rows: list[tuple[float, float, float]], within: float) -> None:
    """By brute force over all trials: of those as quick as the quickest, within 5 %, it takes the least memory."""
    trials = [make_trial(i, *row) for i, row in enumerate(rows)]
    chosen = choose(make_snapshot(*trials, front=pareto_front(trials)), Intent(within=within)).trial
    best = max(metric for metric, _, _ in rows)
    near = [row for row in rows if row[0] >= best - within / 100]
    metric = flat(chosen).metric
    assert metric is not None
    assert metric >= best - within / 100 - 1e-9
    most = 1.05 * min(time for _, _, time in near)
    assert chosen.cost.wall_time_s <= most
    assert chosen.cost.peak_memory_mib == min(memory for _, memory, time in near if time <= most)


def test_limits_apply_before_within() -> None:
    """The best is the best within the limits, and ``within`` is relative to it."""
    assert choose(four(), Intent(prefer="accuracy", max_memory_mib=200)).trial.number == 2
    assert choose(four(), Intent(prefer="accuracy", max_time_s=179.9)).trial.number == 1
    assert choose(four(), Intent(prefer="memory", min_metric=90.1)).trial.number == 2
    assert choose(four(), Intent(within=0.3, max_memory_mib=200)).trial.number == 1
    assert (
        "with at most 200 MiB and at least 90.0 %" in choose(four(), Intent(max_memory_mib=200, min_metric=90)).reason
    )


@pytest.mark.parametrize("metric", [90.3, 0.903])
def test_minimum_metric_is_a_share_up_to_1_and_points_above(metric: float) -> None:
    """91.5 and 0.915 are the same limit, and a trial with exactly that metric is within it."""
    assert choose(four(), Intent(prefer="memory", min_metric=metric)).trial.number == 2
    assert Intent(min_metric=1).least_metric == 1
    assert Intent(min_metric=51.2).least_metric == pytest.approx(0.512)


def test_nearest_trial_to_unreachable_limits_is_named() -> None:
    """The error has exit code 3, the nearest point, its distance, and a suggestion."""
    with pytest.raises(NoFeasibleTrial) as raised:
        choose(four(), Intent(max_memory_mib=140, min_metric=0.9))
    text = str(raised.value)
    assert "no trial on the front of sst2-minilm-jetson-nano-default has at most 140 MiB and at least 90.0 %" in text
    assert "the nearest is trial 0 (88.0 ± 1.1 %, 100 MiB, 100 s), off by −2.0 points; loosen a bound" in text
    assert "`plan`" not in text
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"trial": 1, "prefer": "time"}, "`trial` 1 and `prefer` time ask for different things; give one of them"),
        ({"trial": 1, "within": 0.5}, "`trial` 1 and `within` 0.5 ask for different things"),
        ({"trial": 1, "max_memory_mib": 900.0}, "`trial` 1 and `max_memory_mib` 900 ask for different things"),
        ({"within": 0.5, "prefer": "accuracy"}, "`within` 0.5 gives accuracy away"),
        ({"min_metric": 915.0}, "`min_metric` 915 is above 100 points; give 91.5 or 0.915"),
    ],
)
def test_contradicting_options_are_rejected(wanted: dict[str, object], message: str) -> None:
    """The error is one line that names both."""
    with pytest.raises(BadInput, match=message):
        Intent(**wanted)  # type: ignore[arg-type]


def two_plans() -> StudySnapshot:
    """Return a study in which trial 0 fits under recompute alone; trial 1 fits under both, and runs under store."""
    return make_snapshot(
        planned(0, 0.90, (STORE, 900.0, 50.0, False), (RECOMPUTE, 600.0, 80.0, True)),
        planned(1, 0.85, (STORE, 500.0, 40.0, True), (RECOMPUTE, 400.0, 60.0, True)),
        front={1},
    )


@pytest.mark.parametrize("plan", ["memory", "recompute"])
def test_trial_can_be_selected_under_another_plan(plan: str) -> None:
    """Plan, peak and time are the derived row's, energy follows the time, and unknown values are None."""
    choice = choose(two_plans(), Intent(trial=1, plan=plan))
    trial = choice.trial
    assert choice.derived
    assert (trial.plan, flat(trial).peak_memory_mib, flat(trial).wall_time_s) == (RECOMPUTE, 400.0, 60.0)
    assert (flat(trial).energy_j, flat(trial).metric) == (600.0, 0.85)
    assert flat(trial).peak_memory_range_mib is flat(trial).wall_time_range_s is None
    assert flat(trial).memory == flat(trial).time == {}
    assert choice.reason.startswith("Trial 1 under the plan recompute (derived): asked for, on the front")
    assert "trial 0 with +200 MiB, +20 s, +5.0 ± 1.6 points (beyond noise" in choice.reason


def test_trial_under_its_own_plan_is_unchanged() -> None:
    study = two_plans()
    for intent in (Intent(trial=1), Intent(trial=1, plan="time"), Intent(trial=1, plan="store")):
        choice = choose(study, intent)
        assert not choice.derived
        assert choice.trial == study.trials[1]
        assert choice.reason.startswith("Trial 1: ")


def test_front_follows_the_plan() -> None:
    """A trial that fits only under the plan is on the front, and an error names a plan within the limits."""
    assert [trial.number for trial in under_plan(two_plans(), "memory").front] == [1, 0]
    assert choose(two_plans(), Intent(prefer="accuracy", plan="memory")).trial.number == 0
    with pytest.raises(NoFeasibleTrial, match="give `plan` memory, under which one is"):
        choose(two_plans(), Intent(max_memory_mib=450))


def test_plan_without_a_price_is_refused() -> None:
    """The error has the unknown and the known names."""
    with pytest.raises(BadInput, match="under the plan 'speed'; give memory, time, balanced, store, recompute"):
        choose(two_plans(), Intent(trial=1, plan="speed"))
    with pytest.raises(BadInput, match="priced under other plans; choose one without `plan`"):
        choose(four(), Intent(plan="memory"))


def test_noise_is_paired_if_predictions_are_known() -> None:
    """The callable's error decides and is shown; if it is unknown, trials are assumed independent."""
    study = make_snapshot(make_trial(0, 0.90, 100.0, 10.0), make_trial(1, 0.92, 200.0, 20.0), front={0, 1})

    def reason(error: float | None) -> str:
        known = dataclasses.replace(study, paired=lambda a, b: error if {a, b} == {0, 1} else None)
        return choose(known, Intent(trial=0)).reason

    assert "+2.0 ± 0.4 points (beyond noise, paired)" in reason(0.004)
    assert "+2.0 ± 1.1 points (within noise, paired)" in reason(0.011)
    assert "+2.0 ± 1.6 points (within noise, taken as independent)" in reason(None)
    assert "+2.0 ± 0.0 points (noise unknown)" in reason(0.0)


_answers = st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=2, max_size=80)


def evidence(predicted: list[int], truth: list[int]) -> NDArray[np.float64]:
    """Return the evidence of each row: prediction and answer."""
    return np.stack([np.asarray(predicted, float), np.asarray(truth, float)], axis=1)


@given(_answers)
def test_paired_errors_are_within_their_bounds(rows: list[tuple[int, int, int]]) -> None:
    """They are 0 for equal predictions, symmetric, and equal the other's own error if one model is always wrong."""
    first, second, truth = (list(column) for column in zip(*rows, strict=True))
    one, other, wrong = (evidence(predicted, truth) for predicted in (first, second, [1 - label for label in truth]))
    share = sum(a == t for a, t in zip(first, truth, strict=True)) / len(rows)
    assert metric_error("accuracy", one) == pytest.approx(math.sqrt(share * (1 - share) / len(rows)))
    assert paired_error("accuracy", one, wrong) == pytest.approx(metric_error("accuracy", one))
    for name in ("accuracy", "matthews_correlation"):
        assert paired_error(name, one, one) == 0
        assert paired_error(name, one, other) == pytest.approx(paired_error(name, other, one))


def test_pairing_detects_more_than_independence() -> None:
    """Two models that are wrong on the same hard rows differ by 2 points: beyond noise paired, within it otherwise."""
    draw = random.Random(0)
    truth = [draw.randint(0, 1) for _ in range(1000)]
    first = evidence([1 - label if i < 200 else label for i, label in enumerate(truth)], truth)
    second = evidence([1 - label if i < 180 else label for i, label in enumerate(truth)], truth)
    paired = paired_error("accuracy", first, second)
    alone = math.hypot(metric_error("accuracy", first), metric_error("accuracy", second))
    assert 2 * paired < 0.02 < 2 * alone
