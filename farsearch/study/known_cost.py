"""A sampler that models the metric alone, because memory and time of every proposal are known before its training.

Hundreds of candidates are priced. One Gaussian process predicts the metric of each, another the probability that its
training succeeds. The candidate with the largest expected hypervolume improvement per training time is proposed; every
fourth one is the candidate with the largest expected improvement of the metric alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from farsearch.floor import metric_floor
from farsearch.hypervolume import Array, expected_improvement
from farsearch.pareto import non_dominated
from farsearch.records import constant_answer
from farsearch.study.candidates import Candidates
from farsearch.study.encoding import Encoder
from farsearch.study.gaussian_process import GaussianProcess
from farsearch.study.pricing import KnownCosts, PriceParams
from farsearch.study.random_configs import draw_params

__all__ = ["KnownCostSampler"]

_MOST_SPREAD = 10
"""Trials, the starts of the space included, before the model proposes: one less than the space has parameters, at most
these."""

_DRAWN = 64
"""Candidates drawn from the whole space; as many vary trials of the front."""

_METRIC_EVERY = 4
"""Every so many proposals aim at the metric alone, the first after ``_MOST_SPREAD`` trials."""

_STEPS = 15
_CLASSIFIER_STEPS = 8
"""Steps in which hyperparameters are fitted."""

_PAIRED = 0.7
"""Deviation of a metric between trials, by its standard error, of which the rows that all share are a part."""

_UNKNOWN = 0.1
"""Standard error of a metric where it is not recorded, by the deviation of the metrics."""

_LABEL_NOISE = 0.3
"""Deviation of the noise of the labels +1 and -1 of the classifier."""

_LEAST_CHANCE = 0.8
"""Probability of success below which a candidate ranks after all others."""

_DEPTH = 0.5
"""Metrics are raised to so far below the floor, as a share of what the best one is above it."""

_MOST_MODELLED = 150
"""Trials that a process is fitted to; its cost grows with their cube."""


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
        self._candidates = Candidates(space, self._draw)
        self._encode = Encoder(space)
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
        known = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number and self._is_known(t)]
        complete = [t for t in known if t.state == TrialState.COMPLETE]
        if not complete or len(known) < min(len(self._space) - 1, _MOST_SPREAD):
            return self._fitting(self._candidates.spread(2 * _DRAWN))
        done = _modelled(complete, self._draw)
        history = _History.of(done, constant_answer(study.user_attrs.get("meta", {})))
        candidates = self._candidates.spread(_DRAWN)
        candidates += self._candidates.around([done[i].params for i in history.front], _DRAWN)
        candidates = self._candidates.at_rates(candidates)
        prices = self._price(candidates)
        if not prices.fits.any():
            return []
        points = self._encode(t.params for t in done)
        model = GaussianProcess.fit(points, history.lifted, self._encode.groups, _PAIRED * history.error, _STEPS)
        pending = [t for t in known if t.state == TrialState.RUNNING]
        if pending:
            # running trials are assumed to have the expected metric, so that they are not proposed again
            ahead = self._encode(t.params for t in pending)
            history = history.with_trials(model.predict(ahead)[0], self._price([t.params for t in pending]).both)
            points = np.vstack([points, ahead])
            model = model.refitted(points, history.lifted)
        at = self._encode(candidates)
        believed, predicted = model.predict(points)[0], model.predict(at)
        if len(known) >= _MOST_SPREAD and len(known) % _METRIC_EVERY == 0:
            worth = _metric_improvement(float(believed.max()), *predicted)
        else:
            worth = _improvement(history, prices, believed, *predicted) / self._effort_s(prices, known)
        failed = _drawn([t for t in known if _is_failed(t)], len(done), self._draw)
        chance = _success(points, self._encode(t.params for t in failed), at, self._encode.groups)
        order = np.lexsort((-worth * chance, chance < _LEAST_CHANCE, ~prices.fits))[: int(prices.fits.sum())]
        return [candidates[i] for i in order]

    def _is_known(self, trial: FrozenTrial) -> bool:
        """Return whether the trial has a result, or will have one: not where its process was interrupted."""
        ended = trial.state in (TrialState.COMPLETE, TrialState.RUNNING) or _is_failed(trial)
        return ended and trial.params.keys() == self._space.keys()

    def _fitting(self, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the candidates that fit, in order."""
        return [params for params, fits in zip(candidates, self._price(candidates).fits, strict=True) if fits]

    def _effort_s(self, prices: KnownCosts, known: Sequence[FrozenTrial]) -> Array:
        """Return the training time of each candidate in seconds of the device; an existing priming takes none."""
        lengths = {trial.params.get("priming_epochs"): trial.params for trial in known}
        primed = np.isin(prices.priming_epochs, self._price(list(lengths.values())).priming_epochs)
        return prices.time_s + np.where(primed, 0.0, prices.priming_s)


@dataclass(frozen=True)
class _History:
    """Results of trials.

    Attributes:
        metric: ``[trials]``. costs: memory and time, ``[trials, 2]``.
        error: standard error of a metric. constant: metric of a constant answer; None where it is not recorded.
    """

    metric: Array
    costs: Array
    error: float
    constant: float | None

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], constant: float | None) -> _History:
        values = np.array([trial.values for trial in trials], dtype=float)
        errors = [trial.user_attrs.get("record", {}).get("metric_error") for trial in trials]
        known = [error for error in errors if error]  # that of a constant answer can be 0
        error = float(np.median(known)) if known else _UNKNOWN * float(values[:, 0].std())
        return cls(values[:, 0], values[:, 1:], error, constant)

    def with_trials(self, metric: Array, costs: Array) -> _History:
        """Return the history with more trials."""
        return replace(self, metric=np.append(self.metric, metric), costs=np.vstack([self.costs, costs]))

    @property
    def front(self) -> list[int]:
        """Indices of the trials that no other dominates, in order; of equal trials all."""
        return sorted(non_dominated(np.column_stack([-self.metric, self.costs])).tolist())

    def floor(self, metric: Array) -> float:
        """Return the metric that a point has to exceed, if these are the trials' metrics; the lowest if unknown."""
        return max(metric_floor(float(metric.max()), self.error, self.constant), float(metric.min()))

    @property
    def lifted(self) -> Array:
        """The metrics, raised to below the floor: how badly a training failed carries no information.

        Otherwise it would stretch the scale on which the good trainings differ.
        """
        best, floor = float(self.metric.max()), self.floor(self.metric)
        return np.maximum(self.metric, floor - _DEPTH * (best - floor))


def _improvement(history: _History, prices: KnownCosts, believed: Array, mean: Array, deviation: Array) -> Array:
    """Return the expected hypervolume improvement of each candidate.

    The front is that of the metrics that the model believes, because measured ones have noise: the best of thirty is
    the luckiest too. The reference point is the metric floor, and 5 % above all costs.

    Args:
        believed: metrics of the trials, ``[trials]``.
    """
    most = np.vstack([history.costs, prices.both[prices.fits]]).max(axis=0)
    reference = np.array([history.floor(believed), *(1.05 * most)])
    return expected_improvement(prices.both, mean, deviation, believed, history.costs, reference)


def _metric_improvement(best: float, mean: Array, deviation: Array) -> Array:
    """Return the expected improvement of the best metric, of each candidate (Jones, Schonlau and Welch 1998)."""
    score = (mean - best) / deviation
    improvement: Array = (mean - best) * norm.cdf(score) + deviation * norm.pdf(score)
    return improvement


def _modelled(trials: list[FrozenTrial], draw: np.random.Generator) -> list[FrozenTrial]:
    """Return at most ``_MOST_MODELLED`` trials: half of them of the front, and a draw of the others."""
    if len(trials) <= _MOST_MODELLED:
        return trials
    front = _History.of(trials, None).front[: _MOST_MODELLED // 2]
    others = np.setdiff1d(np.arange(len(trials)), front)
    chosen = draw.choice(others, size=_MOST_MODELLED - len(front), replace=False)
    return [trials[i] for i in sorted([*front, *chosen.tolist()])]


def _drawn(trials: list[FrozenTrial], beside: int, draw: np.random.Generator) -> list[FrozenTrial]:
    """Draw as many trials as a process can have in addition to ``beside`` others."""
    most = max(_MOST_MODELLED - beside, _MOST_MODELLED // 3)
    return [trials[i] for i in sorted(draw.permutation(len(trials))[:most])]


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
    process = GaussianProcess.fit(np.vstack([succeeded, failed]), labels, groups, _LABEL_NOISE, _CLASSIFIER_STEPS)
    mean, deviation = process.predict(candidates)
    chance: Array = norm.cdf(mean / deviation)
    return chance
