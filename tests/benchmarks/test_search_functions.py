"""Replays of searches on synthetic metrics: functions by seed, real prices, and what a result counts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.function_replay import Ground, Problem, replay
from benchmarks.metric_functions import KINDS, draw_function
from benchmarks.search_functions import main, summarize
from farsearch.cost.pricer import full_fine_tuning
from farsearch.study.samplers import make_sampler


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Return the space and its prices."""
    return Ground()


@pytest.mark.parametrize("kind", KINDS)
def test_functions_are_between_a_constant_answer_and_their_best(ground: Ground, kind: str) -> None:
    """The best of the sample has nearly the whole gain; the same seed gives the same function, another does not."""
    function = draw_function(kind, 3, ground.sample)  # type: ignore[arg-type]
    metric = function.metric(ground.sample)
    able = metric[~function.fails(ground.sample)]
    assert metric.min() >= function.constant
    assert function.constant + 0.8 * function.gain <= able.max() <= function.constant + function.gain + 1e-12
    assert (metric == draw_function(kind, 3, ground.sample).metric(ground.sample)).all()  # type: ignore[arg-type]
    assert (metric != draw_function(kind, 4, ground.sample).metric(ground.sample)).any()  # type: ignore[arg-type]


def test_some_trainings_fail_where_they_diverge(ground: Ground) -> None:
    """In no other kind."""
    failing = {kind: draw_function(kind, 0, ground.sample).fails(ground.sample).mean() for kind in KINDS}
    assert failing.pop("diverging") > 0.05
    assert set(failing.values()) == {0.0}


def test_noise_has_its_deviation(ground: Ground) -> None:
    """Metrics after a full training are measured with noise, of a part of the rows' error and of the training."""
    function = draw_function("flat", 0, ground.sample)
    best = np.array([function.constant + function.gain])
    assert 0.0 < function.noise(best)[0] < 2 * function.error(best)[0]
    # less was learned, more noise of the training
    assert function.noise(best - 0.3 * function.gain)[0] > 0.0
    assert function.error(best, 128)[0] == pytest.approx(math.sqrt(function.rows / 128) * function.error(best)[0])


def test_search_counts_seconds_of_trainings_evaluations_and_new_primings(ground: Ground) -> None:
    """The starts, by hand: full fine-tuning, FAR with a priming, feed-forward blocks frozen."""
    problem = Problem.draw(ground, "additive", 0)
    run = replay(problem, lambda number: make_sampler("random", ground.distributions, ground.price, 0, number), 3)
    starts = list(ground.space.starts(ground.layers).values())
    times = ground.price(starts).time_s
    assert times[0] == pytest.approx(ground.full[1])
    assert ground.full[1] == pytest.approx(ground._pricer.price(full_fine_tuning(ground.layers)).wall_time_s)
    evaluation = problem.evaluation_s(problem.function.rows)
    expected = np.cumsum(times + evaluation + np.array([0.0, ground.priming_s[0.03], 0.0]))
    assert run.seconds == pytest.approx(expected.tolist())
    assert list(run.failed) == [0, 0, 0]


def test_race_stops_trials_and_saves_their_seconds(ground: Ground) -> None:
    """The same proposals, a random sampler's, take less time."""
    problem = Problem.draw(ground, "interacting", 1)

    def run(race: bool) -> tuple[float, int]:
        result = replay(
            problem, lambda n: make_sampler("random", ground.distributions, ground.price, 0, n), 30, race=race
        )
        return result.seconds[-1], result.stopped[-1]

    (whole, none), (raced, stopped) = run(False), run(True)
    assert none == 0
    assert stopped > 0
    assert raced < whole


def test_sampler_is_compared_with_itself_as_equal(ground: Ground) -> None:
    """Ratios are 1 where all three did the same; a faster one has the ratio of its seconds."""
    problem = Problem.draw(ground, "additive", 0)
    run = replay(problem, lambda number: make_sampler("random", ground.distributions, ground.price, 0, number))
    same = summarize("additive", "known-cost", {"random": [run], "tpe": [run], "known-cost": [run]})
    assert same.hypervolume == (1.0, 1.0, 1.0)
    assert (same.seconds_to_30, same.seconds_to_60, same.best_gain) == (1.0, 1.0, 0.0)
    faster = dataclasses.replace(run, seconds=[s / 2 for s in run.seconds])
    assert summarize("a", "known-cost", {"random": [run], "tpe": [run], "known-cost": [faster]}).seconds_to_30 == 0.5


@pytest.mark.slow
def test_command_prints_a_table() -> None:
    """One function of a kind, three samplers."""
    done = CliRunner().invoke(main, ["--count", "1", "--kind", "flat", "--markdown"])
    assert done.exit_code == 0, done.output
    assert "known-cost" in done.stdout
