"""Samplers by name, and the gate that rejects proposals that do not fit the device.

Each trial gets a new sampler, seeded by the study's seed and the trial's number: a resumed study makes the same
proposals as an uninterrupted one, and does not repeat them.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from farsearch.errors import BadInput, NoFeasibleTrial
from farsearch.far.display import shown
from farsearch.study.known_cost import KnownCostSampler
from farsearch.study.optuna_adapter import queued_params
from farsearch.study.pricing import PriceParams
from farsearch.study.random_configs import draw_params

__all__ = ["PROPOSALS", "SAMPLERS", "GatedSampler", "check_sampler", "make_sampler"]

PROPOSALS = 200
"""Proposals for one trial after which the search ends because none fits."""

Gate = Callable[[Mapping[str, Any]], str | None]
"""Returns why parameters are rejected (``memory``, ``time``, ``duplicate``), or None."""


Space = Mapping[str, BaseDistribution]


def _tpe(seed: int, _space: Space, _price: PriceParams) -> BaseSampler:
    with warnings.catch_warnings():
        # multivariate and group are marked experimental; Optuna is pinned to its minor release
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def _gp(seed: int, _space: Space, _price: PriceParams) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed)


def _nsga2(seed: int, _space: Space, _price: PriceParams) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=12, seed=seed)


def _random(seed: int, _space: Space, _price: PriceParams) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _known_cost(seed: int, space: Space, price: PriceParams) -> BaseSampler:
    return KnownCostSampler(price, space, seed)


SAMPLERS: Mapping[str, Callable[[int, Space, PriceParams], BaseSampler]] = {
    "known-cost": _known_cost,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": _gp,
    "random": _random,
}
"""Factories of a sampler from a seed, the parameters of the study, and their price. The first is the default."""


def check_sampler(name: str) -> None:
    """Raise for an unknown name.

    Raises:
        BadInput: naming the known ones.
    """
    if name not in SAMPLERS:
        raise BadInput(f"the sampler {shown(name)} is unknown; it must be one of {', '.join(SAMPLERS)}")


def make_sampler(name: str, space: Space, price: PriceParams, *seed_parts: object) -> BaseSampler:
    """Make a sampler by name.

    Args:
        space: the parameters of the study.
        price: prices proposals.
        seed_parts: all of them determine the seed.

    Raises:
        BadInput: for an unknown name.
    """
    check_sampler(name)
    digest = hashlib.sha256(repr(seed_parts).encode()).digest()
    return SAMPLERS[name](int.from_bytes(digest[:4], "little"), space, price)


class GatedSampler(BaseSampler):
    """Draws from ``inner`` until the gate accepts a proposal.

    It raises ``NoFeasibleTrial`` after 200 rejected proposals; ``refusals`` counts them by reason.
    """

    def __init__(self, inner: BaseSampler, space: Mapping[str, BaseDistribution], gate: Gate) -> None:
        self._inner, self._space, self._gate = inner, dict(space), gate
        self.refusals: Counter[str] = Counter()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space, so that a proposal has all parameters and can be priced."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the first proposal that the gate accepts; for a queued trial, its own parameters."""
        queued = queued_params(trial)
        if queued is not None:
            return {name: value for name, value in queued.items() if name in search_space}
        # a model of the metric can propose the same parameters for ever
        draw = np.random.default_rng(trial.number)
        for attempt in range(PROPOSALS):
            if attempt < PROPOSALS // 2:
                params = self._propose(study, trial, search_space)
            else:
                params = draw_params(search_space, 1, draw)[0]
            reason = self._gate(params)
            if reason is None:
                return params
            self.refusals[reason] += 1
        counts = ", ".join(f"{reason} {count}" for reason, count in self.refusals.most_common())
        raise NoFeasibleTrial(f"none of {PROPOSALS} proposals can be trained (refused for: {counts})")

    def _propose(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        related = self._inner.infer_relative_search_space(study, trial)
        params = self._inner.sample_relative(study, trial, related) if related else {}
        for name, distribution in search_space.items():
            if name not in params:
                params[name] = self._inner.sample_independent(study, trial, name, distribution)
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Delegate to the inner sampler; the space has no such parameters."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Delegate to the inner sampler."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Delegate to the inner sampler, which stores its own attributes (NSGA-II its constraints)."""
        self._inner.after_trial(study, trial, state, values)
