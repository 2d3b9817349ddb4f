"""A study as plain records: what everything outside of the search reads."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from optuna.study import Study, load_study
from optuna.trial import FrozenTrial

from farsearch.errors import BadInput
from farsearch.records import SCHEMA_VERSION, StudySettings, StudySnapshot, TrialRecord
from farsearch.select import pareto_front
from farsearch.study.store import sibling_name, storage_errors

__all__ = ["snapshot_of", "trial_record"]


_RESULTS = ("metric", "metric_error", "dev_metric", "host_seconds", "host_peak_mib")
"""What only a trial that was told complete has."""


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """One trial as a record. ``on_front`` is not known yet."""
    state = trial.state.name.lower()
    data = dict(trial.user_attrs.get("record", {}))
    if state != "complete":
        # a kill between the record and the end of the trial leaves the results of a trial that will be run again
        data.update(dict.fromkeys(_RESULTS))
    reason = trial.user_attrs.get("reason", data.get("reason"))
    return TrialRecord.from_dict({**data, "number": trial.number, "state": state, "reason": reason})


def snapshot_of(study: Study) -> StudySnapshot:
    """The study at this moment, its front included.

    Raises:
        BadInput: when another version of farsearch wrote it.
    """
    with storage_errors("of the study"):
        attrs = study.user_attrs
        trials = study.get_trials(deepcopy=False)
    version = attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BadInput(
            f"the study {study.study_name!r} has schema version {version!r}, this farsearch reads {SCHEMA_VERSION}; "
            "use the version that made it"
        )
    records = [trial_record(trial) for trial in trials]
    baselines = [record for record in records if record.baseline is not None]
    # a sibling's trials are compared with a front, and have none of their own
    front = set() if baselines else pareto_front(records)
    records = [dataclasses.replace(record, on_front=record.number in front) for record in records]
    rejected: Counter[str] = Counter()
    for trial in trials:
        rejected.update(trial.user_attrs.get("rejected", {}))
    meta = attrs["meta"]
    return StudySnapshot(
        name=study.study_name,
        settings=StudySettings.from_dict(attrs["settings"]),
        metric_name=meta["metric"],
        budget_mib=float(meta["budget_mib"]),
        n_trials=int(attrs.get("n_trials", 0)),
        trials=tuple(records),
        rejected=dict(rejected),
        meta=meta,
        baselines=_best(baselines or _sibling_records(study)),
    )


def _sibling_records(study: Study) -> list[TrialRecord]:
    try:
        with storage_errors("of the study"):
            sibling = load_study(study_name=sibling_name(study.study_name), storage=study._storage)
            return [trial_record(trial) for trial in sibling.get_trials(deepcopy=False)]
    except KeyError:
        return []


def _best(baselines: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Of each method the trial that is best on validation, in the order of their training."""
    best: dict[str, TrialRecord] = {}
    for record in baselines:
        if record.baseline is None or record.metric is None:
            continue
        held = best.get(record.baseline.method)
        if held is None or held.metric is None or record.metric > held.metric:
            best[record.baseline.method] = record
    return tuple(best.values())
