"""Significance of a verification equals reference intervals and rank counts; properties of verdicts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.records import AnyTrial, StudySnapshot, Verification
from farsearch.significance import (
    Verdict,
    agreement_text,
    rank_agreement,
    verdict_json,
    verdict_rows,
    verdicts,
)
from tests.factories import changed, make_baselines, make_snapshot, make_trial

Costs = tuple[float, float]
Scores = Mapping[int, float | None]
"""By seed; None for a training that could not be finished."""

CHEAP, DEAR = (1000.0, 100.0), (1500.0, 200.0)


def again(number: int, costs: Costs, scores: Scores, samples: int = 480) -> list[AnyTrial]:
    """Return the trainings of trial ``number``."""
    return [
        make_trial(0, score, *costs, verifies=Verification(number, seed, samples))
        if score is not None
        else make_trial(0, None, *costs, verifies=Verification(number, seed, samples), state="pruned", reason="nan")
        for seed, score in scores.items()
    ]


def study(*points: Sequence[AnyTrial], searched: Mapping[int, float] | None = None) -> StudySnapshot:
    """Return a study whose trials had these metrics in the search, with its verification."""
    trials = [make_trial(number, metric, *CHEAP) for number, metric in (searched or {0: 0.8}).items()]
    return make_snapshot(*trials, verified=tuple(record for point in points for record in point))


def by_title(snapshot: StudySnapshot) -> dict[str, Verdict]:
    """Return the verdicts by title; titles must be unique."""
    found = verdicts(snapshot)
    named = {verdict.title: verdict for verdict in found}
    assert len(named) == len(found)
    return named


def critical(freedom: int) -> float:
    """Return the 97.5 % point of Student's t by Simpson's rule over its density and bisection."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def up_to(end: float, parts: int = 4000) -> float:
        step = end / parts
        weights = [1, *([4, 2] * (parts // 2 - 1)), 4, 1]
        values = (scale * (1 + (i * step) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(parts + 1))
        return 0.5 + step / 3 * math.fsum(weight * value for weight, value in zip(weights, values, strict=True))

    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if up_to(middle) < 0.975 else (low, middle)
    return low


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_advantage_is_noise_within_the_t_interval_only(seeds: int) -> None:
    """Compare values just inside and outside the bound, which is computed here from the density of Student's t."""
    draw = random.Random(seeds)
    cheap = {seed: 0.8 + 0.01 * draw.gauss(0, 1) for seed in range(seeds)}
    spread = [0.01 * draw.gauss(0, 1) for _ in range(seeds)]
    middle = statistics.fmean(spread)
    bound = critical(seeds - 1) * statistics.stdev(spread) / math.sqrt(seeds)
    for factor, noise in ((0.999, True), (1.001, False)):
        dear = {s: cheap[s] + spread[s] - middle + factor * bound for s in range(seeds)}
        verdict = by_title(study(again(0, CHEAP, cheap), again(1, DEAR, dear)))["trial 1"]
        assert verdict.judged
        assert verdict.noise == noise
        assert verdict.not_better_than == ("trial 0" if noise else None)


def test_pairing_by_seed_detects_more_than_separate_intervals() -> None:
    """Seeds that are hard for both do not hide an advantage that every seed shows."""
    cheap = {seed: 0.7 + 0.05 * seed for seed in range(4)}
    dear = {seed: score + 0.01 + 0.001 * seed for seed, score in cheap.items()}
    assert not by_title(study(again(0, CHEAP, cheap), again(1, DEAR, dear)))["trial 1"].noise
    other_way = dict(zip(range(4), reversed(dear.values()), strict=True))
    assert by_title(study(again(0, CHEAP, cheap), again(1, DEAR, other_way)))["trial 1"].noise


def test_only_common_seeds_are_compared() -> None:
    """A seed that one of the two lacks, or failed with, counts in the mean but in no difference."""
    cheap = {1: 0.80, 2: 0.81, 3: 0.10, 4: None, 5: 0.82}
    dear = {1: 0.85, 2: 0.861, 4: 0.2, 5: 0.872}
    found = by_title(study(again(0, CHEAP, cheap), again(1, DEAR, dear)))
    assert not found["trial 1"].noise
    assert found["trial 1"].judged
    assert found["trial 0"].mean == pytest.approx((0.80 + 0.81 + 0.10 + 0.82) / 4)
    assert found["trial 0"].failed == 1


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        ({1: 0.52}, {1: 0.75}),
        ({1: 0.52, 2: 0.53}, {1: 0.75, 2: 0.77}),
        ({1: 0.52, 2: 0.53}, {1: 0.75, 2: 0.58}),
        ({1: 0.52, 2: 0.53, 3: 0.5}, {2: 0.75, 3: 0.77, 4: 0.76}),
        ({1: 0.52, 2: 0.53, 3: 0.5}, {1: 0.62, 2: 0.63, 3: 0.6}),
    ],
    ids=["one", "two", "two that differ", "two in common", "the same gap thrice"],
)
def test_too_few_seeds_give_no_verdict(cheap: Scores, dear: Scores) -> None:
    """This holds for any gap; the cheapest point needs no verdict."""
    snapshot = study(again(0, CHEAP, cheap), again(1, DEAR, dear))
    below, above = verdicts(snapshot)
    assert (above.judged, above.noise, above.interval) == (False, False, None)
    assert below.cheapest
    assert [row["advantage"] for row in verdict_rows(snapshot)] == ["nothing costs less", "too few seeds to tell"]
    assert verdict_json(snapshot)["verified"][1]["judged"] is False


def test_deviation_needs_three_seeds() -> None:
    """One or two seeds have a mean without ±."""
    rows = [verdict_rows(study(again(0, CHEAP, dict.fromkeys(range(n), 0.8) | {0: 0.83})))[0] for n in (1, 2, 3)]
    assert [row["development set"] for row in rows] == ["83.0 %", "81.5 %", "81.0 ± 1.7 %"]


def test_sign_of_the_interval_decides() -> None:
    """An interval with 0 is within noise; one below 0 is worse. Differences −1, 0, 1 points: 0 ± t / sqrt(3)."""
    cheap, reach = {1: 0.8, 2: 0.8, 3: 0.8}, critical(2) / math.sqrt(3)
    equal = study(again(0, CHEAP, cheap), again(1, DEAR, {1: 0.79, 2: 0.8, 3: 0.81}))
    worse = study(again(0, CHEAP, cheap), again(1, DEAR, {1: 0.69, 2: 0.7, 3: 0.71}))
    assert verdict_json(equal)["verified"][1]["interval"] == pytest.approx((-reach / 100, reach / 100), rel=1e-6)
    assert [verdict_rows(each)[1]["advantage"] for each in (equal, worse)] == [
        f"within noise of trial 0, which costs less: −{reach:.1f} to +{reach:.1f} points",
        f"worse than trial 0, which costs less: −{10 + reach:.1f} to −{10 - reach:.1f} points",
    ]


def test_failed_trainings_are_counted_without_a_score() -> None:
    """A point without a finished training has no advantage, and does not change others."""
    snapshot = study(
        again(0, CHEAP, {1: None, 2: None}),
        again(1, (1200.0, 150.0), {1: 0.8, 2: 0.81, 3: 0.82, 4: None}),
        again(2, DEAR, {1: 0.9, 2: 0.911, 3: 0.922, 4: None}),
    )
    broken, half, complete = verdicts(snapshot)
    assert (broken.failed, half.failed) == (2, 1)
    assert math.isnan(broken.mean)
    assert half.cheapest
    assert (complete.judged, complete.noise) == (True, False)
    rows = verdict_rows(snapshot)
    assert [row["seeds"] for row in rows] == ["0, 2 failed", "3, 1 failed", "3, 1 failed"]
    assert rows[0]["development set"] == ""
    assert [row["advantage"] for row in rows] == ["no training came to its end", "nothing costs less", "beyond noise"]
    first = verdict_json(snapshot)["verified"][0]
    assert (first["mean"], first["scores"], first["failed"]) == (None, {}, 2)


def test_equal_scores_at_equal_costs_have_no_advantage() -> None:
    """Of two with equal costs neither is cheaper; a tie with a cheaper one is no advantage."""
    scores = {1: 0.8, 2: 0.82, 3: 0.81}
    snapshot = study(again(0, CHEAP, scores), again(1, CHEAP, scores), again(2, DEAR, scores))
    found = by_title(snapshot)
    assert [found[f"trial {i}"].not_better_than for i in range(3)] == [None, None, "trial 0"]
    assert found["trial 0"].cheapest
    assert found["trial 1"].cheapest


def test_point_with_less_memory_and_more_time_is_not_cheaper() -> None:
    """Scores do not change this."""
    snapshot = study(again(0, (900.0, 300.0), {1: 0.9, 2: 0.9}), again(1, (1000.0, 100.0), {1: 0.5, 2: 0.5}))
    assert [(verdict.noise, verdict.cheapest) for verdict in verdicts(snapshot)] == [(False, True)] * 2


def test_cheapest_of_several_rivals_is_named() -> None:
    """The order is by the product of memory and time, as everywhere; baselines count."""
    full, lora = make_baselines()
    same = {1: 0.8, 2: 0.8, 3: 0.8}
    records = [
        changed(lora, metric=score, peak_memory_mib=700.0, wall_time_s=90.0,
                            verifies=Verification(None, seed, 480))
        for seed, score in same.items()
    ]  # fmt: skip
    snapshot = study(again(0, (600.0, 180.0), same), again(1, DEAR, same), records)
    assert by_title(snapshot)["trial 1"].not_better_than == "LoRA r=8"
    assert [verdict.title for verdict in verdicts(snapshot)] == ["trial 0", "trial 1", "LoRA r=8"]
    assert full.baseline is not None


def test_point_that_did_not_learn_is_no_rival() -> None:
    """A cheaper point at chance is not compared with, and has no verdict itself."""
    idle = [changed(r, learned=False) for r in again(0, (900.0, 90.0), {1: 0.52, 2: 0.53, 3: 0.5})]
    once = [changed(r, learned=i == 0) for i, r in enumerate(again(1, (950.0, 95.0), {1: 0.7, 2: 0.5, 3: 0.51}))]
    best = {1: 0.9, 2: 0.91, 3: 0.93}
    snapshot = study(idle, again(2, CHEAP, best))
    rows = verdict_rows(snapshot)
    assert [row["advantage"] for row in rows] == [
        "did not learn: no better than a constant answer", "nothing that learned costs less",
    ]  # fmt: skip
    assert [entry["learned"] for entry in verdict_json(snapshot)["verified"]] == [False, True]
    # a point that learned with one seed is a rival
    assert verdict_rows(study(once, again(2, CHEAP, best)))[0]["advantage"] == "nothing costs less"
    assert by_title(study(idle, once, again(2, CHEAP, best)))["trial 2"].judged


def test_trainings_on_fewer_rows_than_the_most_do_not_count() -> None:
    """Different amounts are never mixed in a mean, nor compared."""
    few = again(0, CHEAP, {1: 0.1, 2: 0.1}, samples=100)
    many = again(0, CHEAP, {1: 0.8, 2: 0.9})
    snapshot = study(few, many, again(1, DEAR, {1: 0.7}, samples=100))
    (only,) = verdicts(snapshot)
    assert (only.title, only.train_samples) == ("trial 0", 480)
    assert only.mean == pytest.approx(0.85)
    assert only.scores == {1: 0.8, 2: 0.9}


def test_baseline_at_a_superseded_rate_has_its_own_row() -> None:
    """After a better rate was trained the method has two rows and names, each with its search's metric."""
    lora = make_baselines()[1]
    old = changed(lora, baseline=dataclasses.replace(lora.baseline, learning_rate=2e-5))
    records = [
        changed(record, number=i, metric=metric, verifies=Verification(None, 1, 480))
        for i, (record, metric) in enumerate(((old, 0.7), (lora, 0.8)))
    ]
    found = by_title(dataclasses.replace(study(records), baselines=make_baselines()))
    assert {title: verdict.mean for title, verdict in found.items()} == {"LoRA r=8, rate 2e-05": 0.7, "LoRA r=8": 0.8}
    assert found["LoRA r=8"].searched == lora.outcome.metric
    assert found["LoRA r=8, rate 2e-05"].searched is None


def test_auxiliary_study_has_no_metrics_of_the_search() -> None:
    """Equal trial numbers do not refer to the trials of the search."""
    records = again(0, CHEAP, {1: 0.6, 2: 0.7})
    auxiliary = make_snapshot(*records, verified=tuple(records))
    assert [verdict.searched for verdict in verdicts(auxiliary)] == [None]


def test_no_verdicts_without_a_verification() -> None:
    """There is no row, no agreement, and no sentence."""
    snapshot = make_snapshot()
    assert verdicts(snapshot) == []
    assert verdict_rows(snapshot) == []
    assert agreement_text(snapshot) == ""
    assert verdict_json(snapshot) == {"verified": [], "constant_answer": None, "rank_agreement": None}


_METRIC = st.sampled_from([None, *(i / 20 for i in range(21))])
_COST = st.sampled_from([100.0, 200.0, 300.0])
_POINT = st.tuples(st.tuples(_COST, _COST), st.dictionaries(st.integers(1, 6), _METRIC, min_size=1))
_POINTS = st.lists(_POINT, min_size=1, max_size=6)


def _study_of(points: Sequence[tuple[Costs, Scores]]) -> StudySnapshot:
    return study(*(again(i, costs, scores) for i, (costs, scores) in enumerate(points)))


@given(_POINTS)
def test_only_cheaper_points_are_compared_with(points: list[tuple[Costs, dict[int, float | None]]]) -> None:
    """A rival needs at most as much of both and less of one; the cheapest point is never noise."""
    named = by_title(_study_of(points))
    for verdict in named.values():
        if verdict.not_better_than is not None:
            other = named[verdict.not_better_than]
            assert other.peak_memory_mib <= verdict.peak_memory_mib
            assert other.wall_time_s <= verdict.wall_time_s
            assert (other.peak_memory_mib, other.wall_time_s) != (verdict.peak_memory_mib, verdict.wall_time_s)
            assert len(other.scores.keys() & verdict.scores.keys()) >= 3
            assert verdict.interval is not None
            assert verdict.interval[0] <= 0
            assert not verdict.cheapest
        elif verdict.judged and verdict.scores:
            below = [
                other
                for other in named.values()
                if other.scores
                and other.peak_memory_mib <= verdict.peak_memory_mib
                and other.wall_time_s <= verdict.wall_time_s
                and (other.peak_memory_mib, other.wall_time_s) != (verdict.peak_memory_mib, verdict.wall_time_s)
            ]
            # a point beyond noise is better than all cheaper ones, at least in the mean over common seeds
            for other in below:
                common = other.scores.keys() & verdict.scores.keys()
                assert sum(verdict.scores[s] - other.scores[s] for s in common) > 0


@given(_POINTS, st.randoms(use_true_random=False))
def test_order_of_trainings_does_not_matter(
    points: list[tuple[Costs, dict[int, float | None]]], draw: random.Random
) -> None:
    """Workers finish seeds in any order, and a second run adds some: rows and JSON are the same."""
    snapshot = _study_of(points)
    shuffled = list(snapshot.verified)
    draw.shuffle(shuffled)
    other = dataclasses.replace(snapshot, verified=tuple(shuffled))
    assert verdict_rows(other) == verdict_rows(snapshot)
    assert verdict_json(other) == verdict_json(snapshot)


@given(_POINTS, st.floats(-0.4, 0.4))
def test_shift_of_all_scores_changes_no_verdict(
    points: list[tuple[Costs, dict[int, float | None]]], shift: float
) -> None:
    """Verdicts depend on differences. Scores are rounded, so that adding the shift is exact enough."""
    shift = round(shift * 1024) / 1024
    exact = [
        (costs, {s: None if v is None else round(v * 1024) / 1024 for s, v in scores.items()})
        for costs, scores in points
    ]
    moved = [(c, {s: None if v is None else v + shift for s, v in scores.items()}) for c, scores in exact]
    one, other = by_title(_study_of(exact)), by_title(_study_of(moved))
    assert {t: (v.noise, v.judged) for t, v in one.items()} == {t: (v.noise, v.judged) for t, v in other.items()}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=7))
def test_kendalls_tau_is_a_count_of_pairs(pairs: list[tuple[int, int]]) -> None:
    """Tau-b from concordant and discordant pairs, ties in the denominator; 0 if one side is all tied."""
    points = [again(i, CHEAP, {1: 0.5 + 0.1 * verified}) for i, (_, verified) in enumerate(pairs)]
    found = rank_agreement(study(*points, searched={i: 0.5 + 0.1 * first for i, (first, _) in enumerate(pairs)}))
    assert found is not None
    signs = [
        ((a > c) - (a < c), (b > d) - (b < d)) for (a, b), (c, d) in itertools.combinations(pairs, 2)
    ]  # fmt: skip
    both = sum(x * y for x, y in signs)
    sides = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    assert found.tau == pytest.approx(both / math.sqrt(sides) if sides else 0.0)
    assert found.trials == len(pairs)


def test_agreement_needs_three_trials() -> None:
    """Baselines have rates of their own and don't count, nor does a trial that never ended."""
    searched = {0: 0.7, 1: 0.8, 2: 0.9}
    lora = changed(make_baselines()[1], verifies=Verification(None, 1, 480))
    two = study(again(0, CHEAP, {1: 0.7}), again(1, CHEAP, {1: 0.8}), again(2, CHEAP, {1: None}), [lora],
                searched=searched)  # fmt: skip
    assert rank_agreement(two) is None
    assert agreement_text(two) == ""
    scores = {0: 0.9, 1: 0.8, 2: 0.7}
    reversed_order = study(*(again(i, CHEAP, {1: score}) for i, score in scores.items()), searched=searched)
    text = "Kendall's tau of search (2,048 rows, one seed) and verification (480 rows) over 3 trials: −1.00"
    assert agreement_text(reversed_order).startswith(text)
    assert verdict_json(reversed_order)["rank_agreement"] == {"kendall_tau": pytest.approx(-1.0), "trials": 3}
