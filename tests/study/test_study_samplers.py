"""Samplers behind the gate: rejected proposals never become trials, and restarts do not change proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from farsearch.errors import BadInput, NoFeasibleTrial
from farsearch.study.journal import open_journal
from farsearch.study.pricing import KnownCosts
from farsearch.study.samplers import PROPOSALS, SAMPLERS, GatedSampler, make_sampler
from farsearch.study.store import DIRECTIONS

SPACE = {
    "priming": CategoricalDistribution([0.0, 0.1]),
    **{f"fraction_{i}": FloatDistribution(0.0, 1.0, step=0.05) for i in range(3)},
    "rate": FloatDistribution(1e-5, 1e-3, log=True),
}


def open_gate(_params: Mapping[str, Any]) -> str | None:
    """Accept everything."""
    return None


def objective(params: Mapping[str, Any]) -> list[float]:
    """Return smooth values in which the first objective conflicts with the others."""
    trained = sum(1 - params[f"fraction_{i}"] for i in range(3))
    return [trained - abs(params["rate"] - 3e-4) * 1e3 + params["priming"], 100 + 50 * trained, 10 + trained]


def price(params: Sequence[Mapping[str, Any]]) -> KnownCosts:
    """Return the objective's costs; everything fits."""
    costs = np.array([objective(each)[1:] for each in params])
    zeros = np.zeros(len(costs))
    return KnownCosts(costs[:, 0], costs[:, 1], np.ones(len(costs), dtype=np.bool_), zeros, zeros)


def study_in(journal: Path) -> optuna.Study:
    """Open the study of a journal as a new process does."""
    return optuna.create_study(
        study_name="s", storage=open_journal(journal), directions=DIRECTIONS, load_if_exists=True
    )


def search(journal: Path, name: str, trials: int, gate: Any = open_gate) -> optuna.Study:
    """Add trials as the search does, with a new sampler for each."""
    study = study_in(journal)
    for _ in range(trials):
        count = len(study.get_trials(deepcopy=False))
        study.sampler = GatedSampler(make_sampler(name, SPACE, price, 0, count), SPACE, gate)
        trial = study.ask(SPACE)
        trial.set_constraint("memory", -0.5)
        study.tell(trial, objective(trial.params))
    return study


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_restart_does_not_change_proposals(tmp_path: Path, name: str) -> None:
    """Half of the trials, a new process's view of the study, and the other half equal all trials of one run.

    All trials are distinct. Optuna's samplers draw the first ten trials at random, NSGA-II twelve, before they use a
    model.
    """
    half = 7 if name == "nsga2" else 6
    search(tmp_path / "two.journal", name, half)
    halves = search(tmp_path / "two.journal", name, half)
    uninterrupted = search(tmp_path / "one.journal", name, 2 * half)
    proposals = [[trial.params for trial in study.trials] for study in (halves, uninterrupted)]
    assert proposals[0] == proposals[1]
    assert len({tuple(params.values()) for params in proposals[0]}) == 2 * half


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_rejected_proposals_never_become_trials(tmp_path: Path, name: str) -> None:
    """Infeasible and repeated proposals are counted by reason and proposed again."""
    seen: list[Mapping[str, Any]] = []

    def gate(params: Mapping[str, Any]) -> str | None:
        if set(params) != set(SPACE):
            return "incomplete"
        if params["fraction_0"] < 0.5:
            return "memory"
        return "duplicate" if params in seen else None

    study = study_in(tmp_path / "journal")
    refused = 0
    for number in range(12):
        study.sampler = sampler = GatedSampler(make_sampler(name, SPACE, price, 1, number), SPACE, gate)
        trial = study.ask(SPACE)
        seen.append(trial.params)
        study.tell(trial, objective(trial.params))
        assert set(sampler.refusals) <= {"memory", "duplicate"}
        refused += sampler.refusals["memory"]
    # a model of the metric may stay in the good region, which the gate accepts
    assert refused > 0 or name == "known-cost"
    assert len(study.trials) == 12
    assert all(trial.params["fraction_0"] >= 0.5 for trial in study.trials)


def test_proposing_ends_after_two_hundred_rejections(tmp_path: Path) -> None:
    """The error counts the reasons."""
    study = study_in(tmp_path / "journal")
    study.sampler = sampler = GatedSampler(make_sampler("random", SPACE, price, 0), SPACE, lambda params: "memory")
    with pytest.raises(NoFeasibleTrial, match=r"none of 200 proposals .*memory 200"):
        study.ask(SPACE)
    assert sampler.refusals == {"memory": PROPOSALS}


def test_queued_trials_bypass_the_gate(tmp_path: Path) -> None:
    """Their parameters were accepted when they were queued."""
    study = study_in(tmp_path / "journal")
    params = {"priming": 0.1, "fraction_0": 0.2, "fraction_1": 0.4, "fraction_2": 0.6, "rate": 1e-4}
    study.enqueue_trial(params)
    study.sampler = sampler = GatedSampler(make_sampler("tpe", SPACE, price, 0), SPACE, lambda params: "memory")
    assert study.ask(SPACE).params == params
    assert not sampler.refusals


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samplers_continue_after_stopped_and_failed_trials(tmp_path: Path, name: str) -> None:
    """Trials without values, after divergence or a kill, break no sampler's model of several objectives."""
    study = search(tmp_path / "journal", name, 10)
    for state in (TrialState.PRUNED, TrialState.FAIL):
        trial = study.ask(SPACE)
        trial.set_constraint("memory", -0.5)
        study.tell(trial, state=state)
    assert len(search(tmp_path / "journal", name, 1).trials) == 13


def test_unknown_sampler_is_reported_with_known_names() -> None:
    with pytest.raises(BadInput, match=r"'tqe' is unknown; it must be one of known-cost, tpe, nsga2, gp, random"):
        make_sampler("tqe", SPACE, price)


def test_repeating_sampler_gets_random_proposals(tmp_path: Path) -> None:
    """The gate draws random proposals if an inner sampler proposes the same again and again."""
    only: dict[str, BaseDistribution] = {"rate": FloatDistribution(1e-5, 1e-3, log=True)}

    class Stubborn(optuna.samplers.RandomSampler):
        def sample_independent(self, *_args: Any) -> Any:
            return 1e-4

    study = study_in(tmp_path / "journal")
    study.sampler = GatedSampler(Stubborn(), only, lambda params: "duplicate" if params["rate"] == 1e-4 else None)
    assert study.ask(only).params["rate"] != 1e-4


def test_seeds_depend_on_study_and_trial() -> None:
    """Another study seed or another trial gives another stream; equal parts give an equal one."""

    def draw(*parts: object) -> float:
        study = optuna.create_study(sampler=make_sampler("random", SPACE, price, *parts))
        return float(study.ask({"x": FloatDistribution(0, 1)}).params["x"])

    assert draw(0, 1) == draw(0, 1)
    assert len({draw(0, 1), draw(1, 0), draw(0, 2), draw(0, 11)}) == 4
