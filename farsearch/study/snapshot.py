"""Read a study as plain records, for everything outside of the search."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from optuna.study import Study, load_study
from optuna.trial import FrozenTrial

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.records import (
    SCHEMA_VERSION,
    AnyTrial,
    BaselineTrial,
    Completed,
    Measurement,
    StudySettings,
    StudySnapshot,
    Trial,
    VerifiedTrial,
    constant_answer,
    is_complete,
    read_trial,
)
from farsearch.select import pareto_front
from farsearch.study.names import AuxiliaryKind, auxiliary_name
from farsearch.study.optuna_adapter import StoredTrial, is_same, storage_of
from farsearch.study.read_only import stored_trials
from farsearch.study.store import storage_errors

__all__ = ["SnapshotReader", "snapshot_of", "trial_record"]


def trial_record(trial: StoredTrial | FrozenTrial) -> AnyTrial:
    """Return a trial, not marked as on the front."""
    data = trial.user_attrs.get("record", {})
    state = trial.state.name.lower()
    if state == "complete" and data.get("extrapolated_metric") is not None:
        state = "pruned"  # complete in Optuna, so that every sampler learns from it
    reason = trial.user_attrs.get("reason", data.get("reason"))
    return read_trial({**data, "number": trial.number, "state": state, "reason": reason})


def snapshot_of(study: Study) -> StudySnapshot:
    """Read a study, and mark its front.

    Raises:
        BadInput: when a version of farsearch with another schema wrote it.
    """
    with storage_errors("of the study"):
        trials = stored_trials(study)
    return SnapshotReader(study).snapshot(trials)


class SnapshotReader:
    """Reads one study repeatedly, and parses each finished trial once."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ended: dict[int, AnyTrial] = {}
        self._rejected: Counter[str] = Counter()

    def reads(self, study: Study) -> bool:
        """Return whether this is the reader's study, and not a later one of the same name."""
        return is_same(self._study, study)

    def read(self) -> StudySnapshot:
        """Read the study as ``snapshot_of``; a trial that has not changed since the last call is the same object."""
        with storage_errors("of the study"):
            trials = self._study.get_trials(deepcopy=False)
        return self.snapshot(trials)

    def snapshot(self, trials: Sequence[StoredTrial | FrozenTrial]) -> StudySnapshot:
        """Return the study with these trials, which were just read."""
        study = self._study
        with storage_errors("of the study"):
            attrs = study.user_attrs
        version = attrs.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BadInput(
                f"the study {shown(study.study_name)} has schema version {shown(version)}, this farsearch reads "
                f"{SCHEMA_VERSION}; use the version that made it"
            )
        records, live = self._parsed(trials)
        auxiliary = "/" in study.study_name
        # an auxiliary's trials are compared with a front, and have none of their own
        meta = attrs["meta"]
        front = set() if auxiliary else pareto_front(records, constant_answer(meta))
        for i, record in enumerate(records):
            if isinstance(record, Trial) and record.on_front != (record.number in front):
                records[i] = dataclasses.replace(record, on_front=not record.on_front)
                if record.number in self._ended:
                    self._ended[record.number] = records[i]
        return StudySnapshot(
            name=study.study_name,
            settings=StudySettings.from_dict(attrs["settings"]),
            metric_name=meta["metric"],
            budget_mib=float(meta["budget_mib"]),
            n_trials=int(attrs.get("n_trials", 0)),
            trials=tuple(records),
            rejected=dict(self._rejected + live),
            meta=meta,
            baselines=_best(_auxiliary_trials(study, "baselines")),
            verified=tuple(t for t in _auxiliary_trials(study, "verified") if isinstance(t, VerifiedTrial)),
            measurements=tuple(map(Measurement.from_dict, attrs.get("measurements", []))),
        )

    def records(self, trials: Sequence[StoredTrial | FrozenTrial]) -> list[AnyTrial]:
        """Return the records of these trials, which were just read. ``on_front`` may be out of date."""
        return self._parsed(trials)[0]

    def _parsed(self, trials: Sequence[StoredTrial | FrozenTrial]) -> tuple[list[AnyTrial], Counter[str]]:
        """Return the records, and the proposals rejected before unfinished trials."""
        live: Counter[str] = Counter()
        return [self._record(trial, live) for trial in trials], live

    def _record(self, trial: StoredTrial | FrozenTrial, live: Counter[str]) -> AnyTrial:
        """Return a trial's record; add the proposals rejected before an unfinished trial to ``live``."""
        known = self._ended.get(trial.number)
        if known is not None:
            return known
        record, ended = trial_record(trial), trial.state.is_finished()
        (self._rejected if ended else live).update(trial.user_attrs.get("rejected", {}))
        if ended:
            self._ended[trial.number] = record
        return record


def _auxiliary_trials(study: Study, kind: AuxiliaryKind) -> list[AnyTrial]:
    """Return the trials of an auxiliary study, which may be ``study`` itself."""
    own = study.study_name.endswith(f"/{kind}")
    name = study.study_name if own else auxiliary_name(study.study_name, kind)
    try:
        with storage_errors("of the study"):
            auxiliary = load_study(study_name=name, storage=storage_of(study))
            return [trial_record(trial) for trial in stored_trials(auxiliary)]
    except KeyError:
        return []


def _best(trials: Iterable[AnyTrial]) -> tuple[BaselineTrial[Completed], ...]:
    """Return the best trial of each method on validation, preferring those that learned, in order of training."""
    best: dict[str, BaselineTrial[Completed]] = {}
    for trial in filter(is_complete, trials):
        if isinstance(trial, BaselineTrial):
            previous = best.get(trial.baseline.method)
            if previous is None or _standing(trial.outcome) > _standing(previous.outcome):
                best[trial.baseline.method] = trial
    return tuple(best.values())


def _standing(result: Completed) -> tuple[bool, float]:
    return result.learned is not False, result.metric
