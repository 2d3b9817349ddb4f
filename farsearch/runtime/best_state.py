"""The best state of a phase by its validation metric, which is kept, and the end of a phase that no longer improves.

A phase is evaluated after each tenth of its steps, and stops after some evaluations in a row without a better metric. A
copy of the trained tensors is all that the best state takes: frozen ones do not change. As long as the metric is the
first one, to the last digit, the model still gives one answer to all rows: such evaluations do not count.
"""

import json
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional

from ..far.features import Features

__all__ = ["EVALUATED_ROWS", "EVALUATIONS", "BestState", "EarlyStop", "Watch"]

EVALUATIONS = 10
"""Evaluations of a whole phase; of a phase of fewer steps one after each."""

EVALUATED_ROWS = 256
"""Rows of an evaluation at most: training a row costs three times as much."""


class Watch(NamedTuple):
    """How a phase is evaluated on its way.

    ``patience`` is the number of evaluations in a row without a better metric after which it stops. ``metric`` is that
    of the logits of ``features``, as ``predict`` returns them.
    """

    patience: int
    features: Features
    metric: Callable[[Any], float]


class EarlyStop(Exception):
    """The phase has not improved for as many evaluations as its patience allows."""


class BestState:
    """The best metric of a phase so far, and the trained tensors that had it.

    Args:
        patience: as in ``Watch``.
        steps: of the whole phase.
        trained: tensors or arrays by name, which are trained in place.
        copy: returns a copy of one.
        evaluate: returns the metric of the present state, which it does not change.

    Attributes:
        step: number of the best state's step, counted from 1; 0 before the first evaluation.
        tensors: copies by name; empty before the first evaluation.
    """

    def __init__(
        self, patience: int, steps: int, trained: Mapping[str, Any], copy: Callable[[Any], Any],
        evaluate: Callable[[], float],
    ) -> None:  # fmt: skip
        count = min(EVALUATIONS, steps)
        self._due = {int(round(steps * i / float(count))) for i in range(1, count + 1)}
        self._patience, self._trained, self._copy, self._evaluate = patience, trained, copy, evaluate
        self._metric: Optional[float] = None
        self._misses = 0
        self._moved = False
        self.step = 0
        self.tensors: Dict[str, Any] = {}

    def after(self, step: int) -> None:
        """Evaluate the state after a step, counted from 1, if that is due.

        Raises:
            EarlyStop: when the patience is exhausted.
        """
        if step not in self._due:
            return
        metric = self._evaluate()
        if self._metric is None or metric > self._metric:
            self._moved = self._metric is not None
            self._metric, self._misses, self.step = metric, 0, step
            self._keep()
            return
        self._moved = self._moved or metric != self._metric
        self._misses += self._moved
        if self._misses >= self._patience:
            raise EarlyStop

    def _keep(self) -> None:
        for name, value in self._trained.items():
            if name in self.tensors:  # the one copy of it is written over
                self.tensors[name][...] = value
            else:
                self.tensors[name] = self._copy(value)

    def restore(self) -> None:
        """Put the best state back into the trained tensors."""
        for name, value in self.tensors.items():
            self._trained[name][...] = value

    @property
    def text(self) -> str:
        """All but the tensors, for a savepoint."""
        return json.dumps([self._metric, self._misses, self.step, self._moved])

    def resume(self, text: str, tensors: Mapping[str, Any]) -> None:
        """Continue from a savepoint's ``text`` and tensors.

        Raises:
            ValueError: if they are damaged, or of another model.
        """
        values = json.loads(text)
        if not isinstance(values, list) or len(values) != 4:
            raise ValueError("its best state is {!r}".format(text[:40]))
        metric, misses, step, moved = values
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        if step and shapes != {name: tuple(value.shape) for name, value in self._trained.items()}:
            raise ValueError("its best state is of other tensors")
        self._metric, self._misses, self.step, self._moved = metric, misses, step, moved
        self.tensors = {name: self._copy(value) for name, value in tensors.items()}
