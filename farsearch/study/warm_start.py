"""What a search starts from: the trials of an earlier study of the same model and space.

A new study stores a copy, so that its proposals do not change when the earlier one grows or is deleted, and workers on
other hosts do not need that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from farsearch.errors import BadInput, StudyMismatch
from farsearch.far.display import shown
from farsearch.json_records import Record
from farsearch.records import StudySettings, constant_answer
from farsearch.study.history import History, most_telling
from farsearch.study.store import Store

__all__ = ["WARM_START", "WarmStart", "find_warm_start"]

WARM_START = "warm_start"
"""Attribute of a study that has a warm start."""

_MOST_TRIALS = 100
"""Trials of the earlier study that are stored."""

_STARTS = 4
"""Configurations of the earlier front among the first trials."""


@dataclass(frozen=True)
class WarmStart(Record):
    """Complete trials of an earlier study.

    Attributes:
        study: its name.
        params: Optuna's parameters. values: metric, memory in MiB and time in s. One of each trial.
        error, constant: as in ``History``.
    """

    study: str
    params: tuple[Mapping[str, Any], ...]
    values: tuple[tuple[float, float, float], ...]
    error: float
    constant: float | None

    @classmethod
    def of(cls, study: Study) -> WarmStart | None:
        """Return the warm start of a study; None where it has none."""
        stored = study.user_attrs.get(WARM_START)
        return None if stored is None else cls.from_dict(stored)

    @classmethod
    def from_trials(cls, study: str, trials: Sequence[FrozenTrial], constant: float | None) -> WarmStart:
        """Return a warm start from at least one complete trial; ``constant`` as in ``History``."""
        chosen = most_telling(list(trials), _MOST_TRIALS, np.random.default_rng(0))
        history = History.of(chosen, constant)
        rows = np.column_stack([history.metric, history.costs]).tolist()
        values = tuple((metric, memory, time) for metric, memory, time in rows)
        return cls(study, tuple(trial.params for trial in chosen), values, history.error, constant)

    @property
    def history(self) -> History:
        """The results."""
        values = np.array(self.values)
        return History(values[:, 0], values[:, 1:], self.error, self.constant)

    @property
    def starts(self) -> list[Mapping[str, Any]]:
        """The parameters to begin at: of the front above the floor, the best and the cheapest metric and others."""
        history = self.history
        floor = history.floor(history.metric)
        front = sorted(history.front, key=lambda i: -history.metric[i])
        front = [i for i in front if history.metric[i] > floor] or front[:1]
        chosen = np.unique(np.linspace(0, len(front) - 1, _STARTS).round().astype(int))
        return [self.params[front[i]] for i in chosen]


def find_warm_start(store: Store, earlier: str, name: str, settings: StudySettings) -> WarmStart | None:
    """Return what a new study starts from; None where it has begun so already.

    Args:
        earlier: name of the study to start from.
        name, settings: of the new study.

    Raises:
        BadInput: when ``earlier`` does not exist, has no complete trial, or is ``name``.
        StudyMismatch: when it has another model or space, or ``name`` has begun without it.
    """
    if earlier == name:
        raise BadInput(f"`warm_start` is the study {shown(name)} itself; name the new one with `study`")
    if name in store.names():
        study = store.load(name)
        attrs = store.ask(lambda: study.user_attrs)
        if WARM_START in attrs or attrs.get("started"):
            _check_begun(name, attrs, earlier)
            return None
    source = store.load(earlier)
    attrs = store.ask(lambda: source.user_attrs)
    _check_alike(earlier, StudySettings.from_dict(attrs["settings"]), settings)
    trials = store.ask(lambda: source.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    trials = [trial for trial in trials if trial.params]  # those of an auxiliary study have none
    if not trials:
        raise BadInput(f"the study {shown(earlier)} has no complete trial to start from; leave `warm_start` away")
    return WarmStart.from_trials(earlier, trials, constant_answer(attrs["meta"]))


def _check_begun(name: str, attrs: Mapping[str, Any], earlier: str) -> None:
    begun = attrs.get(WARM_START, {}).get("study")
    if begun != earlier:
        how = "without a warm start" if begun is None else f"from {shown(begun)}"
        raise StudyMismatch(
            f"the study {shown(name)} has begun {how}, not from {shown(earlier)}; leave `warm_start` away to resume "
            "it, or name a new one with `study`"
        )


def _check_alike(earlier: str, theirs: StudySettings, settings: StudySettings) -> None:
    if theirs.job.model != settings.job.model:
        what = f"the model {shown(theirs.job.model)}, this search {shown(settings.job.model)}"
    elif theirs.space != settings.space:
        what = f"another space than this search ({theirs.space['name']}, {settings.space['name']})"
    else:
        return
    raise StudyMismatch(
        f"the study {shown(earlier)} has {what}; `warm_start` must name a study of the same model and space"
    )
