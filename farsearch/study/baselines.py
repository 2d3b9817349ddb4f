"""The baselines of a study: trained once per job, priced for each device, stored in an auxiliary study.

The auxiliary study has one finished trial per method and learning rate, added atomically. The results of a training are
cached before, for other studies of the same job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path

import filelock
import torch
from optuna.study import Study
from torch import Tensor

from farsearch.baselines import Method, price_method, train_method
from farsearch.cache import describe, touch
from farsearch.cost.plans import ordinary_plan
from farsearch.errors import MissingResource, TrialError
from farsearch.files import disk_errors, load_tensors, read_json, save_tensors, write_bytes, write_json
from farsearch.records import (
    Baseline,
    BaselineTrial,
    Completed,
    FarConfig,
    Stopped,
    StudySnapshot,
    TrialOutcome,
    is_complete,
    point_key,
)
from farsearch.study.activity import recorded
from farsearch.study.auxiliary import AuxiliaryTrial, AuxiliaryWatcher, add_once, trials_by_key
from farsearch.study.predictions import prediction_file
from farsearch.study.results import predictions_of, training_result
from farsearch.study.search import Search
from farsearch.study.snapshot import snapshot_of
from farsearch.study.space import Space
from farsearch.study.store import Store
from farsearch.training import Bench

__all__ = ["baseline_epochs", "baseline_logits", "first_configs", "has_baselines", "train_baselines"]

_VERSION = 3
"""Version of the trainings and of the cache's files. It rises when a method is trained differently."""


def baseline_epochs(space: Space) -> float:
    """Return the epochs of baselines: those of the space, or their maximum where they are searched."""
    if "epochs" in space.fixed:
        return float(space.fixed["epochs"])
    entry = space.search["epochs"]
    return float(max(entry["choices"]) if "choices" in entry else entry["high"])


def first_configs(snapshot: StudySnapshot) -> dict[str, FarConfig]:
    """Return the configurations of a study's baselines that learned, the best metric first, by their titles.

    Methods without a configuration of FAR have no trial that a search could train.
    """
    ranked = sorted(snapshot.baselines, key=lambda trial: -trial.outcome.metric)
    return {
        trial.baseline.title: trial.config
        for trial in ranked
        if trial.config is not None and trial.outcome.learned is not False
    }


def train_baselines(search: Search, methods: Sequence[Method], watcher: AuxiliaryWatcher) -> StudySnapshot:
    """Train the methods at each of their learning rates, except the trainings that the auxiliary study already has.

    A method that learned at none of them is tried at its further rates, until it learns.

    Args:
        search: of the study that they are compared with.

    Returns:
        The study with its baselines.

    Raises:
        MissingResource: when the auxiliary study or the cache can't be written; finished trainings are retained.
        KeyboardInterrupt: when it was interrupted; only the running training is repeated.
    """
    store, pricer, epochs = search.store, search.pricer, baseline_epochs(search.space)
    auxiliary = store.open_auxiliary(search.study, "baselines")
    cache = _Results(store.cache / "baselines", search.bench, epochs)
    done = store.ask(lambda: trials_by_key(auxiliary))
    costs = {method.name: price_method(method, epochs, pricer) for method in methods}

    while left := _left(methods, done):
        store.ask(partial(auxiliary.set_user_attr, "n_trials", len(done) + len(left)))
        trained = sum(trial.baseline is not None and trial.baseline.method in costs for trial in done.values())
        for number, (method, rate) in enumerate(left, trained + 1):
            title = f"{method.title}, rate {rate:.1e}"
            watcher.training_started(title, number, trained + len(left), costs[method.name])
            outcome: Completed | Stopped
            try:
                with recorded(search.folder, title, watcher.step, epochs=epochs) as on_step:
                    outcome = cache.get(method, rate, on_step, watcher.note)
            except TrialError as error:
                outcome = Stopped(str(error))
            trial = BaselineTrial[TrialOutcome](
                number=0,
                baseline=Baseline(method.name, method.title, rate, epochs),
                config=method.far_config(pricer.layers, rate, epochs),
                plan=ordinary_plan(pricer.profile),
                cost=costs[method.name],
                outcome=outcome,
            )
            predictions = cache.path(method.name, rate).with_suffix(".safetensors")
            if isinstance(outcome, Completed) and predictions.is_file():
                # beside those of the trials, for paired differences wherever the study is read
                write_bytes(prediction_file(search.folder, point_key(trial)), predictions.read_bytes())
            done[trial.key], snapshot = add_once(auxiliary, store, trial)
            watcher.training_ended(done[trial.key], snapshot)
    return store.ask(lambda: snapshot_of(search.study))


def has_baselines(store: Store, study: Study, methods: Sequence[Method]) -> bool:
    """Return whether ``train_baselines`` would train nothing."""
    if not methods:
        return True
    auxiliary = store.auxiliary(study.study_name, "baselines")
    return auxiliary is not None and not _left(methods, store.ask(lambda: trials_by_key(auxiliary)))


def _left(methods: Sequence[Method], done: Mapping[Hashable, AuxiliaryTrial]) -> list[tuple[Method, float]]:
    """Return the next trainings: at all learning rates, then one further rate of a method that has not learned."""
    left = [(method, rate) for method in methods for rate in method.learning_rates if (method.name, rate) not in done]
    if left:
        return left
    for method in methods:
        mine = [trial for trial in done.values() if trial.baseline and trial.baseline.method == method.name]
        further = [rate for rate in method.further_rates if (method.name, rate) not in done]
        if further and not any(is_complete(trial) and trial.outcome.learned for trial in mine):
            return [(method, further[0])]
    return []


def baseline_logits(store: Store, bench: Bench, baseline: Baseline) -> dict[str, Tensor]:
    """Load the predictions of a finished baseline on ``validation`` and ``dev`` rows, ``[rows, classes]`` each.

    Raises:
        MissingResource: when they are no longer in the cache.
    """
    path = _Results(store.cache / "baselines", bench, baseline.epochs).path(baseline.method, baseline.learning_rate)
    logits = load_tensors(path.with_suffix(".safetensors"))
    if logits is None:
        raise MissingResource(
            f"the predictions of {baseline.title} at {baseline.learning_rate:g} are gone from {store.cache}; train it "
            "again under another `study`"
        )
    return logits


class _Results:
    """Cached results of one job's trainings: ``METHOD-RATE.json``, and the predictions as tensors.

    The key of the folder has everything that they depend on, which is neither a device nor a step plan.
    """

    def __init__(self, folder: Path, bench: Bench, epochs: float) -> None:
        self._bench, self._epochs = bench, epochs
        micro = bench.primings.micro_batch_size
        identity = {**bench.job.to_dict(), "epochs": epochs, "torch": torch.__version__, "micro": micro}
        self._identity = {**identity, "version": _VERSION}
        text = json.dumps(self._identity, sort_keys=True)
        self._folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]

    def path(self, method: str, learning_rate: float) -> Path:
        """Return the file of a training's results, next to that of its predictions."""
        return self._folder / f"{method}-{learning_rate:g}.json"

    def get(
        self,
        method: Method,
        learning_rate: float,
        on_step: Callable[[int, int, float], None],
        on_note: Callable[[str], None],
    ) -> Completed:
        """Return the results of a method at a learning rate, from the cache or from a training."""
        path = self.path(method.name, learning_rate)
        with disk_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
        # two processes never run the same training: the second waits and reads
        with filelock.FileLock(path.with_suffix(".lock")):
            cached = _read(path)
            if cached is not None:
                touch(path.with_suffix(".safetensors"), path)
                on_note(f"{method.title} at {learning_rate:g}: from the cache")
                return cached
            outcome = train_method(method, learning_rate, self._epochs, self._bench, on_step, on_note)
            result = training_result(outcome)
            describe(self._folder, self._identity)
            save_tensors(path.with_suffix(".safetensors"), predictions_of(outcome))
            write_json(path, {"schema_version": _VERSION, "results": result.to_dict()})
            return result


def _read(path: Path) -> Completed | None:
    """Read cached results; None where they are missing, damaged or of another version."""
    try:
        content = read_json(path)
        return Completed.from_dict(content["results"]) if content["schema_version"] == _VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
