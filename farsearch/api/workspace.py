"""Where studies are stored, mirrored and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farsearch.api import HOME
from farsearch.api.signature import takes_fields
from farsearch.search_spec import SearchSpec

if TYPE_CHECKING:
    from rich.console import Console

    from farsearch.api.progress import Callback
    from farsearch.api.study import Study
    from farsearch.records import Measurement
    from farsearch.study.read_only import StudyUse
    from farsearch.study.store import Store

__all__ = ["Workspace", "open_study", "search"]


@dataclass(frozen=True)
class Workspace:
    """Where studies are stored, mirrored and reported.

    Attributes:
        home: folder of the journal, saved tensors and caches.
        storage: database of the studies, ``postgresql://...``; None for the journal in ``home``.
        tracking_uri: MLflow's database, ``sqlite:///mlflow.db``, or server, ``http://...``, that studies are mirrored
            in; None for no mirror.
        progress: print notes and a line for each training on stderr.
        callbacks: called with each trial that ends, and the study after it.
        heartbeat_s: seconds between the signs of life of a running trial in a database; None for a minute.
        command: command line that is recorded in the studies that are searched.
    """

    home: Path = HOME
    storage: str | None = None
    tracking_uri: str | None = None
    progress: bool = True
    callbacks: Sequence[Callback] = ()
    heartbeat_s: int | None = None
    command: str | None = None

    @takes_fields(SearchSpec)
    def search(self, spec: SearchSpec) -> Study:
        """Search for the best trade-offs between accuracy, memory and time, and return the study.

        A study of that name is resumed, up to ``n_trials``. Arguments are the fields of ``SearchSpec``.

        Raises:
            BadInput: for a value that breaks a rule.
            NoFeasibleTrial: when no configuration fits the device and the bounds.
            StudyMismatch: when the study exists with other settings.
            MissingResource: for data, a model or a storage that can't be read.
            KeyboardInterrupt: when it was interrupted; finished trials are stored.
        """
        self.check_device(spec.device)
        from farsearch.api.study import Study
        from farsearch.api.training import run_search

        return Study(run_search(self, spec), self)

    @takes_fields(SearchSpec)
    def preview(self, spec: SearchSpec) -> Iterator[str]:
        """Describe a search and its duration in lines, and train nothing. Arguments and errors as ``search``.

        The first line comes before weights are loaded, and ``NoFeasibleTrial`` after the last.
        """
        self.check_device(spec.device)
        from farsearch.api.training import describe_search

        return describe_search(self, spec)

    def check_device(self, name: str) -> None:
        """Check the name of a device, or its file, which needs none of the imports that take seconds.

        Raises:
            ProfileError: for an unknown name, or a file that is no profile.
        """
        from farsearch.devices.registry import LOCAL, load_profile

        if name != LOCAL:
            load_profile(name, self.home / "devices")

    def open_study(self, name: str | None = None, *, wait: bool = False) -> Study:
        """Open an existing study, without a name the latest that has trials.

        Args:
            wait: wait for a database that does not answer.

        Raises:
            BadInput: when it does not exist.
        """
        from farsearch.api.study import Study
        from farsearch.study.read_only import ReadingStore, reading
        from farsearch.study.snapshot import snapshot_of

        if wait:
            store = self.store(self.console().print)
            study = store.load(name)
            return Study(store.ask(lambda: snapshot_of(study)), self)
        with reading():
            return Study(snapshot_of(ReadingStore(self.home, self.storage).load(name)), self)

    def studies(self) -> list[StudyUse]:
        """List all studies, the latest last."""
        from farsearch.study.read_only import ReadingStore, reading

        with reading():
            return ReadingStore(self.home, self.storage).uses()

    def rename(self, old: str, new: str) -> None:
        """Rename a study with its auxiliary studies, saved tensors and runs in MLflow.

        Raises:
            BadInput: when ``old`` does not exist, or ``new`` exists or is no valid name.
        """
        from farsearch.study.names import AUXILIARY_KINDS
        from farsearch.study.renaming import rename_study
        from farsearch.study.snapshot import snapshot_of
        from farsearch.tracking import is_there, open_tracking

        store = self.store()
        studies = [store.load(old), *(store.auxiliary(old, kind) for kind in AUXILIARY_KINDS)]
        snapshots = [snapshot_of(study) for study in studies if study is not None]
        uri = self.tracking_uri
        tracker = open_tracking(uri) if uri is not None and is_there(uri) else None
        if tracker is not None:
            tracker.check_rename(old, new)
        rename_study(store, old, new, lambda: None if tracker is None else tracker.rename(snapshots, new))

    def delete(self, name: str) -> None:
        """Delete a study with its auxiliary studies and saved tensors; its runs in MLflow stay."""
        self.store().delete(name)

    def delete_runs(self, name: str) -> int:
        """Delete the runs of a study in MLflow, and return their number."""
        from farsearch.tracking import is_there, open_tracking

        uri = self.tracking_uri
        return open_tracking(uri).delete(name) if uri is not None and is_there(uri) else 0

    def add_measurement(self, file: Path | str, study: str | None = None) -> tuple[Study, Measurement]:
        """Store a board's measurement in the study that its bundle was exported from.

        Args:
            file: ``measurement.json`` of a bundle's ``train.py``.
            study: expected name of the study; None for any.

        Raises:
            BadInput: when the measurement is of another study, or of a trial without a result.
        """
        from farsearch.calibration.board import read_measurement
        from farsearch.errors import BadInput
        from farsearch.far.display import shown
        from farsearch.study.measurements import add_measurement

        read = read_measurement(Path(file))
        if study is not None and study != read.study:
            raise BadInput(f"{file} is of the study {shown(read.study)}, not of {shown(study)}; leave the name away")
        store = self.store()
        from farsearch.api.study import Study

        return Study(add_measurement(store, store.load(read.study), read.measured), self), read.measured

    def store(self, note: Callable[[str], None] | None = None) -> Store:
        """Return the storage of the studies.

        Args:
            note: reports that a database does not answer and is waited for; None for no waiting.
        """
        from farsearch.study.store import HEARTBEAT_S, Store

        return Store(self.home, self.storage, self.heartbeat_s or HEARTBEAT_S, note)

    def console(self) -> Console:
        """Return the console that progress and notes are printed on: stderr, or nothing."""
        from farsearch.api.console import make_console

        return make_console(stderr=True, quiet=not self.progress)


search = Workspace().search


def open_study(
    name: str | None = None, *, home: Path = HOME, storage: str | None = None, tracking_uri: str | None = None
) -> Study:
    """Open an existing study, without a name the latest that has trials.

    Args:
        home, storage, tracking_uri: as in ``Workspace``.

    Raises:
        BadInput: when it does not exist.
    """
    return Workspace(home, storage, tracking_uri).open_study(name)
