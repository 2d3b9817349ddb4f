"""What trials saved, brought from an MLflow server into the study's folder of a host that has not trained them."""

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
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.study.predictions import trial_folder
from farsearch.study.retention import FILES, LEARNERS, LOGITS, near_front, primings_folder, trial_files
from farsearch.study.store import Store, storage_errors
from farsearch.tracking.connection import Connection, connect
from farsearch.tracking.content import family
from farsearch.tracking.tensors import (
    PRIMINGS,
    TENSORS,
    HeldTensors,
    KeptFile,
    Manifest,
    file_of,
    find_held,
    priming_name,
    status_of,
)

__all__ = ["RemoteTensors"]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the disk here refuses; an error of the network has none of these numbers."""


class RemoteTensors:
    """The tensors of a study's trials that this host lacks and the server has. Nothing is asked before it is needed.

    Args:
        uri: the server, as ``open_tracking``'s.
        tell: hears a line where something takes time, or is not to be had and can be done without.
    """

    def __init__(self, uri: str, snapshot: StudySnapshot, store: Store, tell: Callable[[str], None]) -> None:
        self._uri, self._snapshot, self._store, self._tell = uri, snapshot, store, tell
        self._folder = store.folder(snapshot.name)
        self._trials = {trial.number: trial for trial in snapshot.trials}
        self._connection: Connection | None = None
        self._held: list[HeldTensors] | None = None
        self._told = self._without = False

    def bring_trial(self, number: int) -> None:
        """See to it that all files of a complete trial are in the study's folder: checked, whole or not at all.

        Raises:
            MissingResource: where neither this host nor the server has them, or they are damaged there.
        """
        trial = self._trials[number]
        if trial_files(self._folder, trial) is not None:
            return
        if not near_front(self._snapshot.trials)(trial):
            raise MissingResource(
                f"the tensors of trial {number} are gone: they are kept for trials on the front or within noise of it; "
                "choose one of the front, see farsearch pareto"
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
        self._tell(f"fetching the tensors of trial {number} from {self._uri}, {manifest.mib:,.1f} MiB")
        with self._scratch() as scratch:
            primed = self._fetch_priming(manifest, scratch, number)
            for name in FILES:
                self._fetch(run, f"{TENSORS}/{name}", manifest.files[name], scratch, number)
            if not _names(scratch / LEARNERS, primed):
                raise self._damaged(f"{TENSORS}/{LEARNERS}", number, "names another priming than was kept beside it")
            self._place(scratch, number)

    def bring_predictions(self, number: int) -> None:
        """The same of a trial's predictions alone, which differences are judged by; what is not to be had is said."""
        target = trial_folder(self._folder, number) / LOGITS
        if self._without or target.is_file():
            return
        try:
            held = self._of(self._trials[number])
            if held is None:
                return
            if not self._told:
                self._tell(f"fetching the predictions that this host lacks from {self._uri}")
                self._told = True
            run, manifest = held
            with self._scratch() as scratch:
                self._fetch(run, f"{TENSORS}/{LOGITS}", manifest.files[LOGITS], scratch, number)
                self._place(scratch, number)
        except MissingResource as error:
            self._without = True
            self._tell(f"{error}; without predictions, trials are compared as if they were independent")

    def _server(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._uri)
        return self._connection

    def _of(self, trial: TrialRecord) -> tuple[Run, Manifest] | None:
        """The run that has a trial's tensors, and what they are; None where there is none.

        One that was deleted is good too: a sync replaces a run that it can't change, and its artifacts stay.
        """
        if self._held is None:
            with self._server().reading() as client:
                experiment = client.get_experiment_by_name(family(self._snapshot.name))
                found = (
                    []
                    if experiment is None
                    else find_held(client, experiment.experiment_id, self._snapshot.name, ViewType.ALL)
                )
            self._held = sorted(found, key=lambda one: one.run.info.lifecycle_stage != "active")
        for one in self._held:
            if one.number == trial.number and one.manifest is not None and one.manifest.metric == trial.metric:
                return one.run, one.manifest
        return None

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder on the disk of the study's."""
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            made = TemporaryDirectory(prefix=".fetching-", dir=self._folder)
        with made:
            yield Path(made.name)

    def _fetch_priming(self, manifest: Manifest, scratch: Path, number: int) -> str | None:
        """Download what the trial starts from, unless it is here. Its name, None where there is none."""
        if manifest.priming is None or manifest.priming_run is None:
            return None
        name = priming_name(manifest.priming)
        here = primings_folder(self._folder) / name
        if not here.is_file() or file_of(here) != manifest.priming:
            with self._server().reading() as client:
                run = client.get_run(manifest.priming_run)
            self._fetch(run, f"{PRIMINGS}/{name}", manifest.priming, scratch, number)
        return name

    def _fetch(self, run: Run, path: str, file: KeptFile, scratch: Path, number: int) -> None:
        """Download one file and check it."""
        target = scratch / path.rpartition("/")[2]
        server = self._server()
        with server.reading():
            repository = server.artifacts_of(run)
            try:
                # one file by its own name: what a server lists is not looked at
                repository._download_file(path, str(target))
            except (OSError, MlflowException) as error:
                if isinstance(error, OSError) and error.errno in _DISK:
                    with disk_errors(target):
                        raise
                if status_of(error) == 404:
                    raise self._damaged(path, number, "is not there any more") from error
                raise
        if target.stat().st_size != file.size or file_of(target) != file:
            raise self._damaged(path, number, "is damaged: its SHA-256 is not the one that was kept beside it")

    def _damaged(self, path: str, number: int, what: str) -> MissingResource:
        return MissingResource(
            f"{path} of trial {number} at {self._uri} {what}; delete the trial's run there, then run farsearch sync "
            f"{self._snapshot.name} on the host that trained it"
        )

    def _place(self, scratch: Path, number: int) -> None:
        """Move what was fetched to its place, the trained tensors last.

        In the study's turn: a worker of this host sweeps what does not look whole.
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
    """Whether a trial's notes name this priming, and so no file elsewhere."""
    try:
        notes = read_json(learners)
    except (OSError, ValueError):
        return False
    return isinstance(notes, dict) and "primed" in notes and notes["primed"] == primed
