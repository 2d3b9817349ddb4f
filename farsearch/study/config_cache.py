"""Configurations of a study's trials; that of a finished trial, which never changes, is parsed once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from optuna.trial import FrozenTrial, TrialState

from farsearch.records import FarConfig
from farsearch.study.optuna_adapter import queued_params
from farsearch.study.space import Space

__all__ = ["ConfigCache", "config_key"]


def config_key(config: FarConfig) -> str:
    """Return a key that is equal for configurations with the same training."""
    return json.dumps(config.canonical().to_dict(), sort_keys=True)


class ConfigCache:
    """The configurations of one study's trials.

    Args:
        parameters: names of all parameters of a proposal.
    """

    def __init__(self, space: Space, layers: int, parameters: Iterable[str]) -> None:
        self._space, self._layers, self._parameters = space, layers, set(parameters)
        self._finished: dict[int, str | None] = {}

    def keys(self, trials: Iterable[FrozenTrial], states: Collection[TrialState]) -> set[str]:
        """Return the keys of the trials in these states; a trial without all of its parameters has none."""
        keys = (self._key(trial) for trial in trials if trial.state in states)
        return {key for key in keys if key is not None}

    def _key(self, trial: FrozenTrial) -> str | None:
        if trial.number in self._finished:
            return self._finished[trial.number]
        params = trial.params or queued_params(trial) or {}
        key = config_key(self._space.config(params, self._layers)) if set(params) == self._parameters else None
        if trial.state.is_finished():
            self._finished[trial.number] = key
        return key
