"""Copy a study to another device: the same trainings with that device's costs. Nothing is trained.

The metric of a training does not depend on the device. Trials keep their numbers, and the copy can be searched further;
until it is, another call adds the trials that the study has got meanwhile. Each step can be repeated, so the same
command continues after a kill.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from farsearch.baselines import find_method, price_method
from farsearch.cost.plans import ordinary_plan
from farsearch.cost.pricer import Pricer
from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.files import disk_errors, replacing
from farsearch.goals import Goal
from farsearch.records import BaselineTrial, CompleteTrial, Trial, is_complete, point_key, trial_to_dict
from farsearch.study.auxiliary import add_once, trials_by_key
from farsearch.study.names import auxiliary_name, check_new_name
from farsearch.study.predictions import prediction_file, trial_folder
from farsearch.study.results import excess_of, priced_trial
from farsearch.study.retention import FILES, primings_folder, trial_files
from farsearch.study.snapshot import trial_record
from farsearch.study.store import Store

__all__ = ["check_copy", "copy_baselines", "copy_trials"]

_STATE = "copied_from"
"""Attribute of a copy: the study's name, and the number of copied trials, None until all are."""
_SEARCH = ("sampler", "racing", "n_trials")
"""Attributes of a study with which others join its search."""
_KEPT = ("reason", "start", "given_up", "kills")
"""Attributes of a trial that do not depend on the device or on its worker."""


def check_copy(store: Store, source: str, name: str) -> None:
    """Raise where ``name`` is another study than a copy of ``source`` without trials of its own.

    Raises:
        BadInput: for a name that is taken or not valid.
    """
    names = store.names()
    if name not in names:
        check_new_name(name, names)
        return
    study = store.load(name)
    state = store.ask(lambda: study.user_attrs).get(_STATE, {})
    if state.get("study") != source:
        raise BadInput(f"the study {shown(name)} exists; give the copy another name with `name`")
    if state["trials"] not in (None, store.ask(lambda: len(study.get_trials(deepcopy=False)))):
        raise BadInput(f"the copy {shown(name)} has been searched further; give another one a name with `name`")


def copy_trials(source: Study, target: Study, store: Store, pricer: Pricer, goal: Goal) -> None:
    """Add the finished trials of a study to a new one, at the costs of the pricer's device, with their saved tensors.

    A trial that is not finished is not copied; where finished ones follow it, a failed one has its number.

    Args:
        target: a study without trials, or with those of an earlier call.
        goal: objective by which the step plan of each trial is chosen.
    """

    def step() -> None:
        trials = _finished(source.get_trials(deepcopy=False))
        with store.lock(target.study_name):
            target.set_user_attr(_STATE, {"study": source.study_name, "trials": None})
            target.set_user_attr("started", True)  # the starts of the space are among the copies
            for trial in trials[len(target.get_trials(deepcopy=False)) :]:
                record = trial_record(trial)
                if is_complete(record):
                    _link_tensors(store.folder(source.study_name), store.folder(target.study_name), record)
                target.add_trial(_copy_of(trial, pricer, goal))
            for name in _SEARCH:
                target.set_user_attr(name, source.user_attrs[name])
            target.set_user_attr(_STATE, {"study": source.study_name, "trials": len(trials)})

    store.ask(step)


def copy_baselines(source: Study, target: Study, store: Store, pricer: Pricer) -> None:
    """Add the baselines of a study to those of another, at the costs of the pricer's device."""
    if auxiliary_name(source.study_name, "baselines") not in store.all_names():
        return
    theirs = store.open_auxiliary(source, "baselines")
    mine = store.open_auxiliary(target, "baselines")
    trials = store.ask(lambda: trials_by_key(theirs)).values()
    store.ask(lambda: mine.set_user_attr("n_trials", len(trials)))
    plan, costs = ordinary_plan(pricer.profile), {}
    for trial in trials:
        method = find_method(trial.baseline.method) if isinstance(trial, BaselineTrial) else None
        if not isinstance(trial, BaselineTrial) or method is None:
            continue
        # the same for all learning rates
        key = method.name, trial.baseline.epochs
        if key not in costs:
            costs[key] = price_method(method, trial.baseline.epochs, pricer)
        predictions = prediction_file(store.folder(source.study_name), point_key(trial))
        if predictions.is_file():
            _link(predictions, prediction_file(store.folder(target.study_name), point_key(trial)))
        add_once(mine, store, dataclasses.replace(trial, number=0, cost=costs[key], plan=plan))


def _finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials up to the last finished one."""
    last = max((trial.number for trial in trials if trial.state.is_finished()), default=-1)
    return list(trials[: last + 1])


def _copy_of(trial: FrozenTrial, pricer: Pricer, goal: Goal) -> FrozenTrial:
    """Return a trial with the device's costs; what was running or waiting as a failed one."""
    attrs = {name: trial.user_attrs[name] for name in _KEPT if name in trial.user_attrs}
    record, state, values, excess = trial_record(trial), trial.state, None, {}
    if not state.is_finished():
        state, attrs["reason"] = TrialState.FAIL, "it was not finished when the study was copied"
    if isinstance(record, Trial):
        priced, cost = priced_trial(pricer, goal, trial.number, record.config)
        attrs["record"] = trial_to_dict(dataclasses.replace(priced, outcome=record.outcome))
        excess = excess_of(cost, pricer)
        if state == TrialState.COMPLETE:
            values = [trial.values[0], cost.peak_memory_mib, cost.wall_time_s]
    copy = create_trial(
        state=state, values=values, params=trial.params, distributions=trial.distributions, user_attrs=attrs,
        constraints=excess,
    )  # fmt: skip
    copy.datetime_start, copy.datetime_complete = (
        trial.datetime_start,
        trial.datetime_complete or copy.datetime_complete,
    )
    return copy


def _link_tensors(source: Path, target: Path, trial: CompleteTrial) -> None:
    """Give the copy the trial's saved tensors, where the study retains them."""
    files = trial_files(source, trial)
    if files is None:
        return
    if files.priming is not None:
        _link(files.priming, primings_folder(target) / files.priming.name)
    for name in FILES:
        _link(files.folder / name, trial_folder(target, trial.number) / name)


def _link(file: Path, target: Path) -> None:
    """Link a file, whose content never changes under its name, or copy it where the file system has no links."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(file, target)
        except OSError:
            with replacing(target) as part:
                shutil.copy2(file, part)
