"""Download tensors of trials from an MLflow server into the study's folder of a host that has not trained them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from farsearch.errors import MissingResource
from farsearch.files import disk_errors, move_into_place, read_json
from farsearch.records import CompleteTrial, StudySnapshot
from farsearch.study.predictions import trial_folder
from farsearch.study.retention import FILES, LEARNERS, LOGITS, near_front, primings_folder, trial_files
from farsearch.study.store import Store, storage_errors
from farsearch.tracking.connection import Connection, connect
from farsearch.tracking.content import family
from farsearch.tracking.tensors import (
    PRIMINGS,
    TENSORS,
    HeldTensors,
    Manifest,
    UploadedFile,
    file_of,
    find_held,
    priming_name,
    status_of,
)

__all__ = ["RemoteTensors"]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of the local disk; errors of the network have other numbers."""


class RemoteTensors:
    """Tensors of a study's trials that are on the server and not on this host. Connects on the first request.

    Args:
        uri: of the server, as for ``open_tracking``.
        note: called with a line about downloads, and about missing files that are optional.
    """

    def __init__(self, uri: str, snapshot: StudySnapshot, store: Store, note: Callable[[str], None]) -> None:
        self._uri, self._snapshot, self._store, self._note = uri, snapshot, store, note
        self._folder = store.folder(snapshot.name)
        self._trials = {trial.number: trial for trial in snapshot.complete}
        self._connection: Connection | None = None
        self._held: list[HeldTensors] | None = None
        self._noted = self._unavailable = False

    def bring_trial(self, number: int) -> None:
        """Download all files of a complete trial that are missing in the study's folder, checked, all or none.

        Raises:
            MissingResource: where neither this host nor the server has them, or they are damaged there.
        """
        trial = self._trials[number]
        if trial_files(self._folder, trial) is not None:
            return
        if not near_front(self._snapshot.trials)(trial):
            raise MissingResource(
                f"the tensors of trial {number} were deleted: only trials on the front or within noise of it retain "
                "them; choose one of the front, see farsearch pareto"
            )
        try:
            held = self._of(trial)
        except MissingResource as error:
            raise MissingResource(f"the tensors of trial {number} are not on this host, and {error}") from error
        if held is None:
            raise MissingResource(
                f"the tensors of trial {number} are neither on this host nor at {self._uri}; the host that trained it "
                f"uploads them with: farsearch sync {self._snapshot.name} --tracking-uri {self._uri}"
            )
        run, manifest = held
        self._note(f"fetching the tensors of trial {number} from {self._uri}, {manifest.mib:,.1f} MiB")
        with self._scratch() as scratch:
            primed = self._fetch_priming(manifest, scratch, number)
            for name in FILES:
                self._fetch(run, f"{TENSORS}/{name}", manifest.files[name], scratch, number)
            if not _names(scratch / LEARNERS, primed):
                raise self._damaged(f"{TENSORS}/{LEARNERS}", number, "names another priming than its manifest")
            self._place(scratch, number)

    def bring_predictions(self, number: int) -> None:
        """Download only a trial's predictions, for paired differences; report it if they are unavailable."""
        target = trial_folder(self._folder, number) / LOGITS
        if self._unavailable or target.is_file():
            return
        try:
            held = self._of(self._trials[number])
            if held is None:
                return
            if not self._noted:
                self._note(f"fetching the predictions that this host lacks from {self._uri}")
                self._noted = True
            run, manifest = held
            with self._scratch() as scratch:
                self._fetch(run, f"{TENSORS}/{LOGITS}", manifest.files[LOGITS], scratch, number)
                self._place(scratch, number)
        except MissingResource as error:
            self._unavailable = True
            self._note(f"{error}; without predictions, trials are compared as if they were independent")

    def _server(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._uri)
        return self._connection

    def _of(self, trial: CompleteTrial) -> tuple[Run, Manifest] | None:
        """Return the run with a trial's tensors, and their manifest; None if there is no such run.

        A deleted run will do: a sync replaces a run that it can't change, and its artifacts remain.
        """
        if self._held is None:
            with self._server().reading() as client:
                experiment = client.get_experiment_by_name(family(self._snapshot.name))
                runs = (
                    []
                    if experiment is None
                    else find_held(client, experiment.experiment_id, self._snapshot.name, ViewType.ALL)
                )
            self._held = sorted(runs, key=lambda one: one.run.info.lifecycle_stage != "active")
        for one in self._held:
            if one.number == trial.number and one.manifest is not None and one.manifest.metric == trial.outcome.metric:
                return one.run, one.manifest
        return None

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield a temporary folder on the study's disk."""
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            made = TemporaryDirectory(prefix=".fetching-", dir=self._folder)
        with made:
            yield Path(made.name)

    def _fetch_priming(self, manifest: Manifest, scratch: Path, number: int) -> str | None:
        """Download the trial's primed start, if it is missing. Return its name; None without priming."""
        if manifest.priming is None or manifest.priming_run is None:
            return None
        name = priming_name(manifest.priming)
        here = primings_folder(self._folder) / name
        if not here.is_file() or file_of(here) != manifest.priming:
            with self._server().reading() as client:
                run = client.get_run(manifest.priming_run)
            self._fetch(run, f"{PRIMINGS}/{name}", manifest.priming, scratch, number)
        return name

    def _fetch(self, run: Run, path: str, file: UploadedFile, scratch: Path, number: int) -> None:
        """Download one file and check it."""
        target = scratch / path.rpartition("/")[2]
        server = self._server()
        with server.reading():
            repository = server.artifacts_of(run)
            try:
                # by its own name: the server's listing is not used
                repository._download_file(path, str(target))
            except (OSError, MlflowException) as error:
                if isinstance(error, OSError) and error.errno in _DISK:
                    with disk_errors(target):
                        raise
                if status_of(error) == 404:
                    raise self._damaged(path, number, "is missing") from error
                raise
        if target.stat().st_size != file.size or file_of(target) != file:
            raise self._damaged(path, number, "is damaged: its SHA-256 is not that of its manifest")

    def _damaged(self, path: str, number: int, problem: str) -> MissingResource:
        return MissingResource(
            f"{path} of trial {number} at {self._uri} {problem}; delete the trial's run there, then run farsearch sync "
            f"{self._snapshot.name} on the host that trained it"
        )

    def _place(self, scratch: Path, number: int) -> None:
        """Move the downloaded files to their places, the trained tensors last.

        Under the study's lock: a worker of this host removes incomplete trials.
        """
        folder = trial_folder(self._folder, number)
        primings = [path.name for path in scratch.iterdir() if path.name not in FILES]
        places = {name: primings_folder(self._folder) / name for name in primings}
        places |= {name: folder / name for name in FILES if (scratch / name).exists()}
        with storage_errors(self._store.where), self._store.lock(self._snapshot.name), disk_errors(folder):
            for name, place in places.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                move_into_place(scratch / name, place)


def _names(learners: Path, primed: str | None) -> bool:
    """Return whether a trial's notes name exactly this priming, and no other file."""
    try:
        notes = read_json(learners)
    except (OSError, ValueError):
        return False
    return isinstance(notes, dict) and "primed" in notes and notes["primed"] == primed
