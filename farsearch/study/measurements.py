"""What boards measured with bundles of a study, kept in the study."""

from __future__ import annotations

from optuna.study import Study

from farsearch.errors import BadInput
from farsearch.records import Measurement, StudySnapshot
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store, storage_errors

__all__ = ["add_measurement"]

_KEY = "measurements"


def add_measurement(store: Store, study: Study, measured: Measurement) -> StudySnapshot:
    """Keep a measurement, unless the study has it already. The study with it.

    Raises:
        BadInput: for a trial that the study has not, or that has no result.
    """
    with storage_errors(store.where), store.lock(study.study_name):
        snapshot = snapshot_of(study)
        if measured.trial not in {trial.number for trial in snapshot.complete}:
            raise BadInput(
                f"the measurement is of trial {measured.trial}, which study {snapshot.name} has not trained to its "
                "end; give the study that the bundle was exported from"
            )
        if measured not in snapshot.measurements:
            study.set_user_attr(_KEY, [one.to_dict() for one in (*snapshot.measurements, measured)])
    return snapshot_of(study)
