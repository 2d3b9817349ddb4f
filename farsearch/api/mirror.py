"""A study's mirror in MLflow, updated during a search."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from farsearch.addresses import is_server
from farsearch.errors import FarsearchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from farsearch.records import StudySnapshot
    from farsearch.study.store import Store
    from farsearch.tracking.fetch import RemoteTensors
    from farsearch.tracking.tracker import Tracker

__all__ = ["LiveMirror", "open_mirror", "remote_tensors", "with_predictions"]


def open_mirror(console: Console, store: Store, tracking_uri: str | None) -> LiveMirror:
    """Open the mirror at an address; without an address it mirrors nothing.

    Raises:
        BadInput, MissingResource: as ``tracking.open_tracking``.
    """
    if tracking_uri is None:
        return LiveMirror(store, None)
    from farsearch.tracking import open_tracking

    with console.status("opening MLflow's database"):
        return LiveMirror(store, open_tracking(tracking_uri))


def remote_tensors(
    store: Store, snapshot: StudySnapshot, tracking_uri: str | None, note: Callable[[str], None]
) -> RemoteTensors | None:
    """Return access to the tensors that other hosts uploaded; None where no MLflow server is shared."""
    if tracking_uri is None or not is_server(tracking_uri) or "/" in snapshot.name:
        return None
    from farsearch.tracking.fetch import RemoteTensors

    return RemoteTensors(tracking_uri, snapshot, store, note)


def with_predictions(
    snapshot: StudySnapshot, store: Store, bring: Callable[[int], None] | None = None
) -> StudySnapshot:
    """Return the study with the errors of differences from the predictions that are stored.

    Args:
        bring: fetches a trial's predictions from another host.
    """
    from farsearch.study.predictions import paired_errors

    paired = paired_errors(store.folder(snapshot.name), snapshot.metric_name, bring)
    return dataclasses.replace(snapshot, paired=paired)


class LiveMirror:
    """Mirrors a growing study, with its saved tensors where MLflow is a server.

    An error of MLflow is returned as a warning and does not stop the search.
    """

    def __init__(self, store: Store, tracker: Tracker | None) -> None:
        self._store, self._tracker = store, tracker

    def __call__(self, snapshot: StudySnapshot) -> str | None:
        """Mirror the changes, unless another worker mirrors now. Return a warning on failure."""
        return self._mirror(snapshot, wait=False)

    def last(self, snapshot: StudySnapshot) -> str | None:
        """Mirror the whole study with its report, waiting for another worker's lock. Return a warning on failure."""
        return self._mirror(snapshot, wait=True)

    def _mirror(self, snapshot: StudySnapshot, wait: bool) -> str | None:
        if self._tracker is None:
            return None
        from farsearch.study.store import storage_errors

        snapshot = with_predictions(snapshot, self._store)
        try:
            with storage_errors(self._store.where), self._store.mirror_lock(snapshot.name, wait) as locked:
                if locked:
                    if wait:
                        self._tracker.sync(snapshot, report=True)
                    else:
                        self._tracker.follow(snapshot)
                    self._tracker.upload_tensors(snapshot, self._store.folder(snapshot.name))
        except FarsearchError as error:
            return f"{error}; the search goes on, farsearch sync catches up"
        return None
