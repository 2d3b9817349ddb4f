"""A study in MLflow, kept up to date while it is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farsearch.cli.terminal import make_console

if TYPE_CHECKING:
    from rich.console import Console

    from farsearch.records import StudySnapshot
    from farsearch.study.store import Store
    from farsearch.tracking.fetch import RemoteTensors
    from farsearch.tracking.tracker import Tracker

__all__ = ["LiveMirror", "open_mirror", "remote_tensors"]


def open_mirror(console: Console, store: Store, tracking_uri: str) -> LiveMirror:
    """The mirror at an address.

    Raises:
        BadInput, MissingResource: as ``tracking.open_tracking``.
    """
    from farsearch.tracking import open_tracking

    with console.status("opening MLflow's database"):
        return LiveMirror(store, open_tracking(tracking_uri))


def remote_tensors(store: Store, snapshot: StudySnapshot, tracking_uri: str) -> RemoteTensors | None:
    """What trials saved on other hosts, for a command that reads them; None where no other host has a part in this."""
    from farsearch.addresses import is_server

    if not is_server(tracking_uri) or "/" in snapshot.name:
        return None
    from farsearch.tracking.fetch import RemoteTensors

    return RemoteTensors(tracking_uri, snapshot, store, make_console(stderr=True).print)


class LiveMirror:
    """Mirrors a study as it grows, and what its trials saved where MLflow is a server.

    Where MLflow fails, the search goes on without it.
    """

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self._store, self._tracker = store, tracker

    def __call__(self, snapshot: StudySnapshot) -> str | None:
        """Mirror what changed, unless another worker is at it. The reason why that failed, where it did."""
        return self._mirror(snapshot, wait=False)

    def last(self, snapshot: StudySnapshot) -> str | None:
        """The whole study at its end, when nobody comes after: wait for another worker's turn; with the report."""
        return self._mirror(snapshot, wait=True)

    def _mirror(self, snapshot: StudySnapshot, wait: bool) -> str | None:
        from farsearch.errors import FarsearchError
        from farsearch.study.store import storage_errors

        try:
            with storage_errors(self._store.where), self._store.mirror_lock(snapshot.name, wait) as ours:
                if ours:
                    if wait:
                        self._tracker.sync(snapshot, report=True)
                    else:
                        self._tracker.follow(snapshot)
                    self._tracker.upload_tensors(snapshot, self._store.folder(snapshot.name))
        except FarsearchError as error:
            return f"{error}; the search goes on, farsearch sync catches up"
        return None
