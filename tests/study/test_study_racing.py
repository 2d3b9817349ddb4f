"""Racing: the rule that stops trials, and its documented risk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.records import AnyTrial, MetricPoint
from farsearch.study.racing import LEAST, RISK, Race
from farsearch.training import EVALUATION_SHARES
from tests.factories import make_trial


def trial(
    number: int, metric: float, memory_mib: float, time_s: float, intermediate: float, feasible: bool = True
) -> AnyTrial:
    """Return a complete trial with one evaluation at half of its steps."""
    looks = (MetricPoint(0.5, 8, intermediate),)
    made: AnyTrial = make_trial(number, metric, memory_mib, time_s, metric_error=0.01, feasible=feasible, looks=looks)
    return made


HISTORY = [trial(i, 0.80 + 0.01 * (i % 2), 1000.0 + i, 100.0 + i, 0.75) for i in range(6)]


def test_trial_far_behind_is_stopped() -> None:
    """Gains of 5 to 6 points can't lift 60 % to the 81 % of a trial with equal costs, but they can lift 79 %."""
    race = Race.of(HISTORY, 2000.0, 200.0)
    assert race.needed == 0.81
    low, high = race.forecast(MetricPoint(0.5, 8, 0.60)), race.forecast(MetricPoint(0.5, 8, 0.79))
    assert low is not None
    assert high is not None
    assert low.stop
    assert not high.stop
    assert low.expected == pytest.approx(0.655)
    assert low.at_most < 0.81


def test_cheapest_trial_is_never_stopped() -> None:
    """If every complete trial needs more memory or more time, any metric reaches the front."""
    forecast = Race.of(HISTORY, 999.0, 200.0).forecast(MetricPoint(0.5, 8, 0.0))
    assert forecast is not None
    assert not forecast.stop


def test_infeasible_trials_set_no_threshold() -> None:
    """A trial that does not fit the device is on no front."""
    better = trial(9, 0.99, 10.0, 1.0, 0.75, feasible=False)
    assert Race.of([*HISTORY, better], 2000.0, 200.0).needed == 0.81


def test_race_needs_enough_complete_trials() -> None:
    """There is no forecast with too few evaluations at this point, or at a point without evaluations."""
    point = MetricPoint(0.5, 8, 0.0)
    assert Race.of(HISTORY[: LEAST - 1], 2000.0, 200.0).forecast(point) is None
    assert Race.of(HISTORY[:LEAST], 2000.0, 200.0).forecast(point) is not None
    assert Race.of(HISTORY, 2000.0, 200.0).forecast(MetricPoint(0.25, 4, 0.0)) is None


def test_stopped_trials_contribute_no_gain() -> None:
    """An extrapolated metric is not a measurement: it sets no threshold and adds no gain."""
    stopped = [
        make_trial(20 + i, None, 1.0, 1.0, extrapolated_metric=0.95, looks=(MetricPoint(0.5, 8, 0.1),))
        for i in range(6)
    ]
    assert Race.of([*HISTORY, *stopped], 2000.0, 200.0) == Race.of(HISTORY, 2000.0, 200.0)


def test_risk_is_at_most_the_documented_one() -> None:
    """Of 20,000 trials with normal gains that would reach the front, at most the documented share is stopped.

    All evaluations of a trial predict the same final metric, and one is enough to stop it.
    """
    draw = np.random.default_rng(0)
    stopped = reached = 0
    for _ in range(20_000):
        finals = draw.normal(0.8, 0.03, 7)
        metrics = {share: finals - draw.normal(0.05, 0.02, 7) for share in EVALUATION_SHARES}
        gains = {share: list(finals[:6] - values[:6]) for share, values in metrics.items()}
        race = Race(needed=float(finals[:6].max()), gains=gains, noise=0.0)
        if finals[6] < float(finals[:6].max()):
            continue
        reached += 1
        forecasts = [race.forecast(MetricPoint(share, 1, float(values[6]))) for share, values in metrics.items()]
        stopped += any(forecast is not None and forecast.stop for forecast in forecasts)
    assert reached > 1000
    assert stopped / reached <= RISK


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_decision_is_monotone_in_the_intermediate_metric(one: float, other: float) -> None:
    """A better metric is never stopped if a worse one continues."""
    race = Race.of(HISTORY, 2000.0, 200.0)
    worse, better = (race.forecast(MetricPoint(0.5, 8, metric)) for metric in sorted((one, other)))
    assert worse is not None
    assert better is not None
    assert worse.stop or not better.stop
