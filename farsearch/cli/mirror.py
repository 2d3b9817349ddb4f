"""A study in MLflow, kept up to date while it is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from farsearch.records import StudySnapshot
    from farsearch.study.store import Store
    from farsearch.tracking.tracker import Tracker

__all__ = ["LiveMirror", "open_mirror"]


def open_mirror(console: Console, store: Store, tracking_uri: str) -> LiveMirror:
    """The mirror at an address.

    Raises:
        BadInput, MissingResource: as ``tracking.open_tracking``.
    """
    from farsearch.tracking import open_tracking

    with console.status("opening MLflow's database"):
        return LiveMirror(store, open_tracking(tracking_uri))


class LiveMirror:
    """Mirrors a study as it grows. Where MLflow fails, the search goes on without it."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self._store, self._tracker = store, tracker

    def __call__(self, snapshot: StudySnapshot) -> str | None:
        """Mirror the study, unless another worker is at it. The reason why that failed, where it did."""
        return self._sync(snapshot, wait=False)

    def last(self, snapshot: StudySnapshot) -> str | None:
        """The same at the end, when nobody comes after: wait for another worker's turn to be over; with the report."""
        return self._sync(snapshot, wait=True)

    def _sync(self, snapshot: StudySnapshot, wait: bool) -> str | None:
        from farsearch.errors import FarsearchError
        from farsearch.study.store import storage_errors

        try:
            with storage_errors(self._store.where), self._store.mirroring(snapshot.name, wait) as ours:
                if ours:
                    self._tracker.sync(snapshot, report=wait)
        except FarsearchError as error:
            return f"{error}; the search goes on, farsearch sync catches up"
        return None
