"""Measurements of boards, stored in the study of their bundle."""

from __future__ import annotations

from optuna.study import Study

from farsearch.errors import BadInput
from farsearch.records import Measurement, StudySnapshot
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store, storage_errors

__all__ = ["add_measurement"]

_KEY = "measurements"


def add_measurement(store: Store, study: Study, measured: Measurement) -> StudySnapshot:
    """Store a measurement idempotently, and return the study with it.

    Raises:
        BadInput: for a trial that is not in the study, or has no result.
    """
    with storage_errors(store.where), store.lock(study.study_name):
        snapshot = snapshot_of(study)
        if measured.trial not in {trial.number for trial in snapshot.complete}:
            raise BadInput(
                f"the measurement is of trial {measured.trial}, which study {snapshot.name} has not trained to its "
                "end; give the study that the bundle was exported from"
            )
        if measured not in snapshot.measurements:
            study.set_user_attr(_KEY, [entry.to_dict() for entry in (*snapshot.measurements, measured)])
    return snapshot_of(study)
