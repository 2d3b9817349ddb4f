"""A sampler that models the metric alone, because memory and time of every proposal are known before its training.

Thousands of candidates are priced. One Gaussian process predicts the metric of each, another the probability that its
training succeeds. The candidate with the largest expected hypervolume improvement per training time is proposed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

from farsearch.hypervolume import Array, expected_improvement
from farsearch.pareto import non_dominated
from farsearch.study.kernel import AdditiveMatern, Encoder, GroupedMatern
from farsearch.study.pricing import KnownCosts, PriceParams
from farsearch.study.random_configs import draw_params

__all__ = ["KnownCostSampler"]

_CANDIDATES = 1536
"""Random proposals that are priced for one trial."""

_NEIGHBOURS = 512
"""Further candidates, which differ from a trial of the front in one or two parameters."""

_LEAST_FITTED = 12
"""Trials from which the hyperparameters of the process are fitted; with fewer, a fit is worse than their defaults."""

_LEAST_CHANCE = 0.8
"""Probability of success below which a candidate ranks after all others."""

_FIT_STEPS = 8
"""Steps in which the hyperparameters of the classifier are fitted."""

_DEPTH = 3.0
"""Floor of the metrics: so many times as far below the best as the median is."""

_MOST_MODELLED = 250
"""Trials that the process is fitted to; its cost grows with their cube."""


class KnownCostSampler(BaseSampler):
    """Proposes by expected hypervolume improvement at known costs; one sampler per trial.

    A second proposal for the same trial, after the first was rejected, is the next best.

    Args:
        price: prices proposals.
        space: all parameters of the study.
        seed: of the candidates.
    """

    def __init__(self, price: PriceParams, space: Mapping[str, BaseDistribution], seed: int) -> None:
        self._price, self._space = price, dict(space)
        self._draw = np.random.default_rng(seed)
        self._ranked: Iterator[dict[str, Any]] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space: a proposal is priced with all parameters."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the best proposal that was not returned yet; a random one after the last."""
        if self._ranked is None:
            self._ranked = iter(self._rank(study, trial))
        return next(self._ranked, None) or draw_params(self._space, 1, self._draw)[0]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter outside of the space, which does not occur, at random."""
        return draw_params({param_name: param_distribution}, 1, self._draw)[0][param_name]

    def _rank(self, study: Study, trial: FrozenTrial) -> list[dict[str, Any]]:
        """Return the candidates that fit, the most promising first."""
        known = [t for t in study.get_trials(deepcopy=False) if set(t.params) == set(self._space)]
        done = _modelled([t for t in known if t.state == TrialState.COMPLETE], self._draw)
        pending = [t for t in known if t.state == TrialState.RUNNING and t.number != trial.number]
        candidates = draw_params(self._space, _CANDIDATES, self._draw)
        if not done:
            return candidates
        history = _History.of(done)
        candidates += self._neighbours([done[i].params for i in history.front], _NEIGHBOURS)
        prices = self._price(candidates)
        if not prices.fits.any():
            return []
        encode = Encoder(self._space)
        points = encode(t.params for t in done)
        model = _fitted(points, _lifted(history.metric), encode.groups)
        if pending:
            # running trials are assumed to have the expected metric, so that they are not proposed again
            ahead = encode(t.params for t in pending)
            history = history.with_trials(model.predict(ahead), self._price([t.params for t in pending]).both)
            model = _refitted(model, np.vstack([points, ahead]), _lifted(history.metric))
        mean, deviation = model.predict(encode(candidates), return_std=True)
        front = history.front
        worth = expected_improvement(
            prices.both, mean, deviation, history.metric[front], history.costs[front], _reference(history, prices)
        )
        worth /= self._effort_s(prices, [t.params for t in [*done, *pending]])
        failed = _drawn([t for t in known if _is_failed(t)], len(done), self._draw)
        chance = _success(points, encode(t.params for t in failed), encode(candidates), encode.groups)
        order = np.lexsort((-worth * chance, chance < _LEAST_CHANCE, ~prices.fits))[: int(prices.fits.sum())]
        return [candidates[i] for i in order]

    def _effort_s(self, prices: KnownCosts, known: Sequence[Mapping[str, Any]]) -> Array:
        """Return the training time of each candidate in seconds of the device; an existing priming takes none."""
        primed = np.isin(prices.priming_epochs, self._price(known).priming_epochs)
        return prices.time_s + np.where(primed, 0.0, prices.priming_s)

    def _neighbours(self, members: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
        """Return members of the front with one or two parameters redrawn."""
        drawn = draw_params(self._space, count, self._draw)
        names = list(self._space)
        neighbours = []
        for i, fresh in enumerate(drawn):
            changed = self._draw.choice(len(names), size=min(1 + i % 2, len(names)), replace=False)
            neighbours.append({**members[i % len(members)], **{names[j]: fresh[names[j]] for j in changed}})
        return neighbours


@dataclass(frozen=True)
class _History:
    """Objectives of trials: metric ``[trials]``, and memory and time ``[trials, 2]``."""

    metric: Array
    costs: Array

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> _History:
        values = np.array([trial.values for trial in trials], dtype=float)
        return cls(values[:, 0], values[:, 1:])

    def with_trials(self, metric: Array, costs: Array) -> _History:
        """Return the history with more trials."""
        return _History(np.append(self.metric, metric), np.vstack([self.costs, costs]))

    @property
    def front(self) -> list[int]:
        """Indices of the trials that no other dominates, in order; of equal trials all."""
        return sorted(non_dominated(np.column_stack([-self.metric, self.costs])).tolist())


def _modelled(trials: list[FrozenTrial], draw: np.random.Generator) -> list[FrozenTrial]:
    """Return at most ``_MOST_MODELLED`` trials: the front, and a draw of the others."""
    if len(trials) <= _MOST_MODELLED:
        return trials
    front = _History.of(trials).front[:_MOST_MODELLED]
    others = np.setdiff1d(np.arange(len(trials)), front)
    chosen = draw.choice(others, size=_MOST_MODELLED - len(front), replace=False)
    return [trials[i] for i in sorted([*front, *chosen.tolist()])]


def _drawn(trials: list[FrozenTrial], beside: int, draw: np.random.Generator) -> list[FrozenTrial]:
    """Draw as many trials as a process can have in addition to ``beside`` others."""
    return [
        trials[i] for i in sorted(draw.permutation(len(trials))[: max(_MOST_MODELLED - beside, _MOST_MODELLED // 5)])
    ]


def _few_steps(objective: Any, start: Array, bounds: Array) -> tuple[Array, float]:
    """Fit hyperparameters as scikit-learn does, but stop early: a classifier does not need exact ones."""
    fit = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": _FIT_STEPS})
    return fit.x, float(fit.fun)


def _fitted(
    points: Array, metric: Array, groups: NDArray[np.int64], optimizer: Any = "fmin_l_bfgs_b"
) -> GaussianProcessRegressor:
    """Fit the process of the metric; its hyperparameters too, from ``_LEAST_FITTED`` points on."""
    count = int(groups.max()) + 1
    # the main effects of the parameters, and a smaller part for their interactions
    kernel = ConstantKernel(1.0, (0.1, 10.0)) * AdditiveMatern(groups, np.full(count, 0.5), (0.1, 10.0))
    kernel += ConstantKernel(0.5, (0.05, 10.0)) * GroupedMatern(groups, np.full(count, 1.0), (0.1, 10.0))
    kernel += WhiteKernel(0.05, (1e-3, 1.0))
    fit = optimizer if len(metric) >= _LEAST_FITTED else None
    model = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=fit)
    with warnings.catch_warnings():
        # a length scale at its bound belongs to a parameter with hardly any effect
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(points, metric)


def _is_failed(trial: FrozenTrial) -> bool:
    """Return whether a training failed: it diverged, or exceeded the host's memory each time."""
    return trial.state == TrialState.PRUNED or (trial.state == TrialState.FAIL and "given_up" in trial.user_attrs)


def _success(succeeded: Array, failed: Array, candidates: Array, groups: NDArray[np.int64]) -> Array:
    """Return the probability that each candidate's training ends with a metric.

    A candidate is worth its expected improvement times this probability (Schonlau 1998), and those with a low
    probability are only proposed when there are no others (Gelbart, Snoek and Adams 2014). The probability is that of a
    least-squares classifier (Rasmussen and Williams 2006, section 6.5): a Gaussian process like that of the metric is
    fitted to +1 where a training succeeded and to -1 where it failed; with its mean m and deviation s at a candidate

        P(success) = Phi(m / s).

    It is 1 where no training failed.
    """
    if len(failed) == 0:
        return np.ones(len(candidates))
    labels = np.repeat([1.0, -1.0], [len(succeeded), len(failed)])
    model = _fitted(np.vstack([succeeded, failed]), labels, groups, _few_steps)
    mean, deviation = model.predict(candidates, return_std=True)
    chance: Array = norm.cdf(mean / deviation)
    return chance


def _lifted(metric: Array) -> Array:
    """Return the metrics, raised to a floor: the metric of a training that learned nothing carries no information.

    Without the floor it would stretch the scale on which the good trainings differ.
    """
    best, middle = float(metric.max()), float(np.median(metric))
    return np.maximum(metric, best - _DEPTH * (best - middle)) if best > middle else metric


def _refitted(model: GaussianProcessRegressor, points: Array, metric: Array) -> GaussianProcessRegressor:
    """Fit the same process to more trials, with fixed hyperparameters."""
    return GaussianProcessRegressor(model.kernel_, normalize_y=True, optimizer=None).fit(points, metric)


def _reference(history: _History, prices: KnownCosts) -> Array:
    """Return the reference point of the hypervolume: the metric of the cheapest trial, and 5 % above all costs."""
    cheapest = np.lexsort((history.costs[:, 1], history.costs[:, 0]))[0]
    most = np.vstack([history.costs, prices.both[prices.fits]]).max(axis=0)
    return np.array([history.metric[cheapest], *(1.05 * most)])
