"""Candidates of the known-cost sampler: draws that reach the extremes of a space, and variations of the best trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from farsearch.study.groups import kind_of
from farsearch.study.random_configs import draw_params

__all__ = ["Candidates"]

_RATES = 4
"""Candidates that differ in the learning rate alone: their costs are equal, and are computed once."""

_FREE = "learning_rate"

Params = dict[str, Any]


class Candidates:
    """Draws candidates from a space.

    Args:
        space: all parameters of the study.
        draw: advances with each call.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], draw: np.random.Generator) -> None:
        self._space, self._draw = dict(space), draw
        kinds: dict[str, list[str]] = {}
        for name in self._space:
            kinds.setdefault(kind_of(name), []).append(name)
        self._kinds = list(kinds.values())

    def spread(self, count: int) -> list[Params]:
        """Return draws; in every second one, the first among them, all layers are frozen alike.

        Independent draws of six fractions have a mean near a half: where nearly everything is frozen, or nothing, there
        is hardly one.
        """
        drawn = draw_params(self._space, count, self._draw)
        for params in drawn[::2]:
            for names in self._kinds:
                params.update(dict.fromkeys(names, params[names[0]]))
        return drawn

    def around(self, members: Sequence[Mapping[str, Any]], count: int) -> list[Params]:
        """Return variations of ``members`` in turn, with one or two kinds of parameters redrawn.

        Of layers all get the same new value, or each its own, or one alone a new one.
        """
        found = []
        for i, fresh in enumerate(draw_params(self._space, count, self._draw)):
            params = dict(members[i % len(members)])
            chosen = self._draw.choice(len(self._kinds), size=min(1 + i % 2, len(self._kinds)), replace=False)
            for names in (self._kinds[k] for k in chosen):
                params.update(self._redrawn(names, fresh))
            found.append(params)
        return found

    def _redrawn(self, names: Sequence[str], fresh: Mapping[str, Any]) -> Params:
        how = self._draw.integers(3) if len(names) > 1 else 0
        if how == 0:
            return dict.fromkeys(names, fresh[names[0]])
        changed = names if how == 1 else [names[int(self._draw.integers(len(names)))]]
        return {name: fresh[name] for name in changed}

    def at_rates(self, candidates: Sequence[Mapping[str, Any]]) -> list[Params]:
        """Return the candidates, and each of them at further learning rates if they are searched."""
        again = [dict(each) for each in candidates for _ in range(_RATES - 1)] if _FREE in self._space else []
        rates = draw_params({_FREE: self._space[_FREE]}, len(again), self._draw) if again else []
        return [*map(dict, candidates), *({**each, **rate} for each, rate in zip(again, rates, strict=True))]
