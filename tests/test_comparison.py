"""Comparison of trials: noise, the choices of a front, full fine-tuning as the reference, and what was won in words."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.comparison import difference, full_fine_tuning_of, leads, ratios
from farsearch.records import FarConfig, PointKey, StudySnapshot
from farsearch.select import Intent, choose, pareto_front, won
from tests.factories import changed, make_baselines, make_snapshot, make_trial

FULL, LORA = make_baselines()
NOTHING_BUT_FFN = FarConfig((1.0,) * 4, 1e-4, 1.0)


def front_of(*rows: tuple[float, float, float], **changes: Any) -> StudySnapshot:
    """Return a study whose trials, numbered from 0, are all on the front."""
    trials = [make_trial(i, *row) for i, row in enumerate(rows)]
    return make_snapshot(*trials, front=set(range(len(rows))), **changes)


# Noise.


def test_difference_is_paired_where_predictions_are_known() -> None:
    """Keys are numbers of trials, and method and rate of baselines; unknown pairs count as independent."""
    asked: list[tuple[PointKey, PointKey]] = []

    def paired(one: PointKey, other: PointKey) -> float | None:
        asked.append((one, other))
        return 0.002 if one == 0 else None

    study = front_of((0.80, 1000.0, 10.0), (0.81, 1100.0, 11.0), paired=paired)
    first, second = study.front
    known, unknown = difference(study, first, FULL), difference(study, second, first)
    assert known.value == pytest.approx(-0.053)
    assert (known.error, known.paired) == (0.002, True)
    assert unknown.error == pytest.approx(0.011 * 2**0.5)
    assert not unknown.paired
    assert (known.within_noise, unknown.within_noise) == (False, True)
    assert asked == [(0, "full-5e-05"), (1, 0)]


def test_difference_without_an_error_is_not_noise() -> None:
    """An error of 0 beside a difference of a row or two says nothing."""
    rows = [make_trial(i, 0.8 + i / 100, 100.0, 10.0, metric_error=0.0) for i in range(2)]
    study = make_snapshot(*rows)
    assert not difference(study, rows[1], rows[0]).within_noise
    assert difference(study, rows[0], rows[0]).within_noise


# The choices of a front.


def test_dearer_trial_within_noise_stands_behind_the_cheapest() -> None:
    """A gain beyond noise, or a real saving of time, is a choice of its own; 2 % of cost is none."""
    study = front_of(
        (0.80, 1000.0, 100.0),  # the cheapest
        (0.82, 1001.0, 100.1),  # within noise of it
        (0.86, 1200.0, 150.0),  # better beyond noise
        (0.79, 1100.0, 60.0),  # quicker
        (0.81, 995.0, 101.0),  # a little less memory for a little more time
    )
    assert {lead.trial.number: [t.number for t in lead.behind] for lead in leads(study)} == {3: [], 0: [1, 4], 2: []}


@given(
    st.lists(
        st.tuples(st.sampled_from([0.7, 0.78, 0.8, 0.82, 0.9]), st.floats(1, 100), st.floats(1, 100)),
        min_size=1, max_size=15,
    )
)  # fmt: skip
def test_every_member_of_a_front_leads_or_stands_behind_one_leader(rows: list[tuple[float, float, float]]) -> None:
    """A leader costs no more than those behind it, and is better than every cheaper leader, beyond noise."""
    trials = [make_trial(i, *row) for i, row in enumerate(rows)]
    study = make_snapshot(*trials, front=pareto_front(trials))
    found = leads(study)
    members = [trial.number for lead in found for trial in (lead.trial, *lead.behind)]
    assert sorted(members) == sorted(trial.number for trial in study.front)
    for lead in found:
        for trial in lead.behind:
            assert lead.trial.cost.peak_memory_mib <= 1.0201 * trial.cost.peak_memory_mib
            assert lead.trial.cost.wall_time_s <= 1.0201 * trial.cost.wall_time_s
            assert trial.outcome.metric - lead.trial.outcome.metric <= 2 * 0.011 * 2**0.5 + 1e-9
        for other in found:
            cheaper = (
                lead.trial.cost.peak_memory_mib <= other.trial.cost.peak_memory_mib
                and lead.trial.cost.wall_time_s <= other.trial.cost.wall_time_s
            )
            no_better = other.trial.outcome.metric - lead.trial.outcome.metric <= 2 * 0.011 * 2**0.5 - 1e-9
            assert lead is other or not (cheaper and no_better)


def test_trials_near_a_constant_answer_are_on_no_front() -> None:
    """With a constant answer of 50 %, the point at 55 % is no choice; where nothing learned, all points stay."""
    trials = [make_trial(0, 0.55, 900.0, 9.0), make_trial(1, 0.80, 1000.0, 10.0), make_trial(2, 0.85, 1100.0, 11.0)]
    assert pareto_front(trials) == {0, 1, 2}
    assert pareto_front(trials, 0.5) == {1, 2}
    assert pareto_front(trials, 0.9) == {0, 1, 2}
    assert pareto_front([], 0.5) == set()


# The recommended choice.


def test_within_noise_is_the_cheapest_choice_near_the_best() -> None:
    """It is at most the error of the difference, and a point, below the best; then the quickest decides."""
    rows = ((0.80, 1000.0, 50.0), (0.897, 1500.0, 60.0), (0.90, 1400.0, 80.0), (0.892, 1100.0, 78.0))
    few = front_of(*rows, paired=lambda *_: 0.001)
    assert choose(few, Intent(within="noise")).trial.number == 2
    more = front_of(*rows, paired=lambda *_: 0.004)
    assert choose(more, Intent(within="noise")).trial.number == 1
    independent = front_of(*rows)
    assert choose(independent, Intent(within="noise")).trial.number == 1


def test_choice_names_a_rival_that_export_cannot_write() -> None:
    """LoRA that costs no more and is as good is named in a line of its own; full fine-tuning can be a trial."""
    study = front_of((0.81, 1000.0, 200.0), baselines=(FULL, LORA))
    lines = choose(study, Intent()).reason.splitlines()
    assert "LoRA r=8 costs no more and is as good" in lines[2]
    assert "export can't write it" in lines[2]
    for other in (changed(LORA, metric=0.7), changed(LORA, wall_time_s=300.0), changed(LORA, learned=False)):
        assert len(choose(dataclasses.replace(study, baselines=(FULL, other)), Intent()).reason.splitlines()) == 2


def test_knee_names_one_step_up() -> None:
    study = front_of((0.70, 1000.0, 10.0), (0.88, 1100.0, 11.0), (0.95, 3000.0, 40.0))
    choice = choose(study, Intent(prefer="knee"))
    assert choice.trial.number == 1
    assert "one step up in the metric is trial 2" in choice.reason


# What was won.


def test_reference_is_the_baseline_or_the_best_trial_that_trains_everything() -> None:
    everything = FarConfig((0.0,) * 4, 1e-4, 1.0)
    trials = [
        make_trial(0, 0.80, 1000.0, 10.0, config=everything),
        make_trial(1, 0.81, 1000.0, 10.0, config=dataclasses.replace(everything, learning_rate=2e-4)),
        make_trial(2, 0.90, 1000.0, 10.0, config=dataclasses.replace(everything, frozen_embeddings=True)),
    ]
    reference = full_fine_tuning_of(make_snapshot(*trials))
    assert reference == trials[1]
    assert full_fine_tuning_of(make_snapshot(*trials, baselines=(LORA, FULL))) == FULL
    assert full_fine_tuning_of(make_snapshot()) is None
    assert ratios(trials[1], FULL) == pytest.approx((1000 / 1700, 10 / 320))


@pytest.mark.parametrize(("metric", "verb"), [(0.850, "keeps"), (0.853 + 0.04, "is above"), (0.853 - 0.04, "is below")])
def test_sentence_states_metric_memory_and_time(metric: float, verb: str) -> None:
    """In the words of a person, with the difference's error."""
    study = front_of((metric, 782.0, 185.6), baselines=(FULL,))
    (sentence,) = won(study)
    gap = f"{100 * (metric - 0.853):+.1f}".replace("-", "−")
    assert sentence == (
        f"trial 0 {verb} full fine-tuning's accuracy ({gap} ± 1.6 points) with 0.46 of its memory and 0.58 of its time"
    )


@pytest.mark.parametrize(
    ("budget", "begin"),
    [
        (1600.0, "full fine-tuning does not fit jetson-nano"),
        (2200.0, "trial 0 keeps"),
        (4000.0, "full fine-tuning fits jetson-nano with room to spare"),
    ],
)
def test_first_sentence_is_whether_full_fine_tuning_fits(budget: float, begin: str) -> None:
    """The high end of its memory, 2,040 MiB, decides."""
    study = front_of((0.85, 782.0, 185.6), baselines=(FULL, LORA), budget_mib=budget)
    sentences = won(study)
    assert sentences[0].startswith(begin)
    assert any("LoRA r=8's accuracy" in sentence for sentence in sentences)


def test_method_that_did_not_learn_is_not_compared_with() -> None:
    (sentence,) = won(front_of((0.85, 782.0, 185.6), baselines=(changed(FULL, learned=False),)))
    assert "did not learn" in sentence
    assert "keeps" not in sentence


def test_study_without_a_front_or_a_rival_won_nothing() -> None:
    assert won(make_snapshot(make_trial(0, None, 1.0, 1.0), baselines=(FULL,))) == ()
    assert won(make_snapshot()) == ()


@pytest.mark.parametrize(
    ("metric", "memory", "said"), [(0.81, 1200.0, True), (0.9, 1200.0, False), (0.81, 900.0, False)]
)
def test_training_of_neurons_that_never_pays_is_reported(metric: float, memory: float, said: bool) -> None:
    """It pays where a trial with neurons is better beyond noise, or takes less memory."""
    frozen = changed(FULL, baseline={"method": "ffn-frozen", "title": "F", "learning_rate": 1e-4, "epochs": 1.0})
    frozen = changed(frozen, metric=0.80, peak_memory_mib=1000.0, wall_time_s=100.0, config=NOTHING_BUT_FFN)
    study = front_of((metric, memory, 120.0), baselines=(frozen,))
    assert ("nothing here is better than freezing all feed-forward blocks" in won(study)) == said
