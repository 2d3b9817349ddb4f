"""The known-cost sampler: its proposals, and the encoding of parameters in its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from farsearch.hypervolume import hypervolume
from farsearch.study.encoding import Encoder
from farsearch.study.known_cost import KnownCostSampler
from farsearch.study.pricing import KnownCosts
from farsearch.study.samplers import make_sampler
from farsearch.study.store import DIRECTIONS

LAYERS = 6
SPACE: dict[str, BaseDistribution] = {
    **{f"frozen_fraction_layer_{i}": FloatDistribution(0.0, 1.0, step=0.05) for i in range(LAYERS)},
    "learning_rate": FloatDistribution(3e-5, 5e-4, log=True),
    "priming_epochs": CategoricalDistribution([0.0, 0.03, 0.1, 0.3]),
    "frozen_embeddings": CategoricalDistribution([False, True]),
    "frozen_bottom_layers": IntDistribution(0, LAYERS - 1),
}


def frozen(params: Mapping[str, Any]) -> float:
    """Return the mean frozen fraction."""
    return float(np.mean([params[f"frozen_fraction_layer_{i}"] for i in range(LAYERS)]))


def price(params: Sequence[Mapping[str, Any]]) -> KnownCosts:
    """Return costs that decrease with freezing; with less than a tenth frozen nothing fits."""
    shares = np.array([frozen(each) for each in params])
    primings = np.array([float(each["priming_epochs"]) for each in params])
    return KnownCosts(2000.0 - 1000.0 * shares, 100.0 - 50.0 * shares, shares >= 0.1, primings, 1e5 * primings)


def metric(params: Mapping[str, Any]) -> float:
    """Return a metric with its best learning rate at 2e-4, which decreases with the frozen fraction."""
    return 0.9 - 0.05 * frozen(params) ** 2 - 0.2 * float(np.log10(params["learning_rate"] / 2e-4)) ** 2


def study_of(count: int, seed: int = 0) -> optuna.Study:
    """Return a study with random trials."""
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(count):
        finish(study, study.ask(SPACE))
    return study


def finish(study: optuna.Study, trial: optuna.Trial) -> None:
    """Record the trial's metric and costs."""
    costs = price([trial.params])
    study.tell(trial, [metric(trial.params), float(costs.memory_mib[0]), float(costs.time_s[0])])


def proposals(study: optuna.Study, seed: int, count: int = 1) -> list[dict[str, Any]]:
    """Return successive proposals of the sampler for one trial."""
    sampler = KnownCostSampler(price, SPACE, seed)
    trial = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    found = [sampler.sample_relative(study, trial, SPACE) for _ in range(count)]
    study.tell(trial.number, state=TrialState.FAIL)
    return found


def test_proposals_improve_and_all_fit() -> None:
    """Of ten trials after twelve random ones most have a learning rate near the best."""
    study = study_of(12)
    for number in range(10):
        study.sampler = KnownCostSampler(price, SPACE, number)
        trial = study.ask(SPACE)
        assert price([trial.params]).fits[0]
        finish(study, trial)
    near = [abs(np.log10(trial.params["learning_rate"] / 2e-4)) < 0.25 for trial in study.trials[12:]]
    assert sum(near) >= 6


def test_cached_priming_is_preferred() -> None:
    """With one length primed, and others as slow as several trials, proposals have that length or no priming."""
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(13):
        study.enqueue_trial({"priming_epochs": 0.1})
        finish(study, study.ask(SPACE))
    assert {params["priming_epochs"] for params in proposals(study, 0, 20)} == {0.0, 0.1}


def test_repeated_proposals_are_successively_next_best() -> None:
    """Rejected proposals are not repeated; equal seed and history give equal proposals, another seed does not."""
    study = study_of(13)
    first = proposals(study, 1, 50)
    assert len({repr(params) for params in first}) == 50
    assert proposals(study, 1, 50) == first
    assert proposals(study, 2, 1) != first[:1]


def limit(params: Mapping[str, Any]) -> float:
    """Return the learning rate above which a training diverges; it increases with the frozen fraction."""
    return float(1e-4 * 10 ** (0.6 * frozen(params))) * (1.3 if params["priming_epochs"] else 1.0)


def tell_or_fail(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Finish a trial with metric and costs, or as diverged; return whether it diverged."""
    diverged = bool(trial.params["learning_rate"] > limit(trial.params))
    if diverged:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        finish(study, trial)
    return diverged


def failing_study(state: TrialState, **attrs: Any) -> optuna.Study:
    """Return a study of thirty random trials, in which diverging ones end in the given state."""
    study = optuna.create_study(directions=list(DIRECTIONS), sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask(SPACE)
        if trial.params["learning_rate"] > limit(trial.params):
            for key, value in attrs.items():
                trial.set_user_attr(key, value)
            study.tell(trial, state=state)
        else:
            finish(study, trial)
    return study


@pytest.mark.parametrize(("state", "attrs"), [(TrialState.PRUNED, {}), (TrialState.FAIL, {"given_up": True})])
def test_proposals_avoid_failing_parameters(state: TrialState, attrs: dict[str, Any]) -> None:
    """After trials that diverged, or killed their process each time, at most one of ten proposals would fail."""
    found = proposals(failing_study(state, **attrs), 0, 10)
    assert sum(params["learning_rate"] > limit(params) for params in found) <= 1


def test_interrupted_trial_does_not_count_as_failure() -> None:
    """A trial that failed because its process ended does not change proposals."""
    cut = failing_study(TrialState.FAIL)
    without = optuna.create_study(directions=list(DIRECTIONS))
    without.add_trials([trial for trial in cut.trials if trial.state == TrialState.COMPLETE])
    assert proposals(cut, 0, 10) == proposals(without, 0, 10)


@pytest.mark.slow
def test_fewer_trials_fail_than_with_tpe_if_part_of_the_space_diverges() -> None:
    """Of 40 trials at most as many fail, and the hypervolume is larger: medians of five seeds."""
    found = {}
    for name in ("tpe", "known-cost"):
        runs = [searched(name, seed) for seed in range(5)]
        found[name] = tuple(np.median(runs, axis=0))
    assert found["known-cost"][0] <= found["tpe"][0]
    assert found["known-cost"][1] >= found["tpe"][1]


def searched(name: str, seed: int) -> tuple[int, float]:
    """Return the number of diverged trials of 40, and the hypervolume of the others."""
    study = optuna.create_study(directions=list(DIRECTIONS))
    failed = 0
    for number in range(40):
        study.sampler = make_sampler(name, SPACE, price, seed, number)
        trial = study.ask(SPACE)
        trial.set_constraint("memory", -0.5)
        failed += tell_or_fail(study, trial)
    values = np.array([trial.values for trial in study.trials if trial.values])
    return failed, hypervolume(values[:, 0], values[:, 1:], np.array([0.6, 2000.0, 100.0]))


def test_first_proposals_are_random() -> None:
    """Proposals of an empty study lie in the space and differ."""
    drawn = proposals(study_of(0), 0, 5)
    assert len({repr(params) for params in drawn}) == 5
    for params in drawn:
        assert set(params) == set(SPACE)
        assert all(SPACE[name]._contains(SPACE[name].to_internal_repr(value)) for name, value in params.items())


def test_first_trials_freeze_layers_alike() -> None:
    """Independent draws hardly ever do, and leave out the extremes."""
    study = optuna.create_study(directions=list(DIRECTIONS))
    alike = 0
    for number in range(20):
        (params,) = proposals(study, number)
        alike += len({params[f"frozen_fraction_layer_{i}"] for i in range(LAYERS)}) == 1
    assert alike >= 16


def floored(params: Mapping[str, Any]) -> float:
    """Return a metric that is a constant answer's where more than 0.8 is frozen, else almost the best."""
    return 0.5 if frozen(params) > 0.8 else 0.9 - 0.02 * frozen(params)


def test_what_learns_nothing_is_not_proposed_for_its_costs() -> None:
    """Where everything is frozen a training is cheapest, and scores as a constant answer, which is below the floor."""
    study = optuna.create_study(directions=list(DIRECTIONS))
    study.set_user_attr("meta", {"constant_answer": {"validation": {"answer": "yes", "value": 0.5}}})
    for number in range(30):
        study.sampler = KnownCostSampler(price, SPACE, number)
        trial = study.ask(SPACE)
        trial.set_user_attr("record", {"metric_error": 0.01})
        costs = price([trial.params])
        study.tell(trial, [floored(trial.params), float(costs.memory_mib[0]), float(costs.time_s[0])])
    late = [frozen(trial.params) for trial in study.trials[15:]]
    assert sum(share > 0.8 for share in late) <= 5
    assert sum(0.5 < share <= 0.8 for share in late) >= 7


def test_two_workers_get_different_proposals() -> None:
    """A running trial counts with its expected metric."""
    study = study_of(12)
    study.sampler = KnownCostSampler(price, SPACE, 5)
    running = study.ask(SPACE)
    assert proposals(study, 5)[0] != running.params


def test_long_history_is_subsampled() -> None:
    """With 1,500 trials the model uses the front and a draw of the others."""
    study = study_of(0)
    draws = study_of(60).trials
    study.add_trials([draws[i % 60] for i in range(1500)])
    assert price(proposals(study, 0)).fits[0]


def test_parameters_are_encoded_in_the_unit_cube() -> None:
    """Ends of every scale are 0 and 1, numeric choices are ordered, and layers share one group."""
    encode = Encoder(SPACE)
    low = {name: _end(distribution, 0) for name, distribution in SPACE.items()}
    high = {name: _end(distribution, 1) for name, distribution in SPACE.items()}
    points = encode([low, high, {**low, "priming_epochs": 0.03}])
    assert points[0].tolist() == [0.0] * 11
    sizes = np.bincount(encode.groups)
    # the last is the mean of the layers
    assert sizes.tolist() == [6, 1, 1, 1, 1, 1]
    assert points[1] == pytest.approx(1.0 / np.sqrt(sizes[encode.groups]))
    assert points[2, 7] == pytest.approx(1 / 3)


def test_what_a_frozen_bottom_implies_is_encoded() -> None:
    """Parameters of the same training are the same point."""
    encode = Encoder(SPACE)
    params = {name: _end(distribution, 0) for name, distribution in SPACE.items()} | {"frozen_bottom_layers": 2}
    implied = {**params, "frozen_fraction_layer_0": 1.0, "frozen_fraction_layer_1": 0.4, "frozen_embeddings": True}
    other = {**params, "frozen_fraction_layer_2": 0.4}
    points = encode([params, implied, other])
    assert points[0].tolist() == points[1].tolist()
    assert points[0].tolist() != points[2].tolist()


def test_heads_of_frozen_attention_are_encoded_as_frozen() -> None:
    """In a group of layers that is frozen as a whole; above it they count."""
    encode = Encoder(
        {
            "frozen_heads_layers_0_to_2": FloatDistribution(0.0, 1.0, step=0.25),
            "frozen_heads_layers_3_to_5": FloatDistribution(0.0, 1.0, step=0.25),
            "frozen_attention_layers": IntDistribution(0, 6),
        }
    )
    params = {"frozen_heads_layers_0_to_2": 0.0, "frozen_heads_layers_3_to_5": 0.0, "frozen_attention_layers": 3}
    points = encode(
        [params, {**params, "frozen_heads_layers_0_to_2": 0.5}, {**params, "frozen_heads_layers_3_to_5": 0.5}]
    )
    assert points[0].tolist() == points[1].tolist()
    assert points[0].tolist() != points[2].tolist()


def test_unordered_choices_are_one_hot_encoded() -> None:
    """They are equally distant."""
    encode = Encoder({"part": CategoricalDistribution(["a", "b", "c"])})
    points = encode([{"part": "a"}, {"part": "b"}, {"part": "c"}])
    distances = [float(np.linalg.norm(points[i] - points[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert distances == pytest.approx([distances[0]] * 3)
    assert encode.groups.tolist() == [0, 0, 0]


def _end(distribution: BaseDistribution, which: int) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[-which]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return (distribution.low, distribution.high)[which]
