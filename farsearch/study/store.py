"""Storage of studies: open, list, load, lock and delete them in a journal or a database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from farsearch.addresses import shown_address
from farsearch.errors import BadInput, MissingResource, StudyMismatch
from farsearch.far.display import shown
from farsearch.records import SCHEMA_VERSION, StudySettings
from farsearch.runtime.near_names import did_you_mean
from farsearch.study.database import is_postgres, open_database
from farsearch.study.journal import open_journal
from farsearch.study.locks import DatabaseLocks, FileLocks, Locks
from farsearch.study.names import AUXILIARY_KINDS, AuxiliaryKind, auxiliary_name, check_new_name
from farsearch.study.optuna_adapter import user_attrs_of_studies
from farsearch.study.settings_check import add_meta, check_settings, differences_of
from farsearch.study.storage_errors import StorageAway, retry_while_away, storage_errors

__all__ = [
    "DIRECTIONS",
    "HEARTBEAT_S",
    "StorageAway",
    "Store",
    "storage_errors",
]

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
"""Metric up, peak memory down, wall time down."""

HEARTBEAT_S = 60
"""Seconds between the heartbeats of a running trial, in a database."""

T = TypeVar("T")

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Store:
    """The studies of one working directory, or of one database.

    Args:
        home: folder ``.farsearch`` for the journal, saved tensors, caches and locks.
        url: a database instead of the journal, ``postgresql://...``; None for the journal.
        heartbeat_s: seconds between the heartbeats of a running trial, in a database.
        note: receives a line when the store waits for a database that does not answer; None to raise at once.

    Attributes:
        reached: the database has answered before, so its address is right and it is worth a longer wait.
    """

    def __init__(
        self,
        home: Path,
        url: str | None = None,
        heartbeat_s: int = HEARTBEAT_S,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.home = home
        self.url = url
        self._heartbeat_s = heartbeat_s
        self._note, self.reached = note, False
        self._journal = home / "studies.journal"
        self._storage: BaseStorage | None = None

    @property
    def where(self) -> str:
        """The storage as named in messages, without a password."""
        return str(self._journal) if self.url is None else shown_address(self.url)

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage, opened at first use."""
        if self._storage is None:
            self._storage = self.ask(self._open)
        return self._storage

    def ask(self, step: Callable[[], T]) -> T:
        """Run a step that reads or writes the storage, again while the storage is away if the store has a ``note``.

        Raises:
            MissingResource: as ``storage_errors`` and ``retry_while_away``.
        """
        if self._note is None:
            with storage_errors(self.where):
                return step()
        result = retry_while_away(step, self.where, self._note, self.reached)
        self.reached = True
        return result

    def _open(self) -> BaseStorage:
        if self.url is None:
            self.home.mkdir(parents=True, exist_ok=True)
            return open_journal(self._journal)
        shown = self.where
        try:
            # processes that create the tables at the same time would disturb each other
            with self.locks.hold("open"):
                return open_database(self.url, self._heartbeat_s)
        except (ArgumentError, NoSuchModuleError) as error:
            raise BadInput(f"--storage {shown} can't be used: {error}; give postgresql://user@host/name") from error
        except ImportError as error:
            raise MissingResource(
                f"--storage {shown} can't be used: {error}; install its driver, for PostgreSQL: "
                "pip install 'farsearch[postgres]'"
            ) from error

    @cached_property
    def locks(self) -> Locks:
        """Locks shared by all workers of these studies: on any host with PostgreSQL, otherwise on this host."""
        return DatabaseLocks(self.url) if self.url is not None and is_postgres(self.url) else FileLocks(self.home)

    def exists(self) -> bool:
        """Return whether there is a storage, without creating it."""
        return self.url is not None or self._journal.is_file()

    def names(self) -> list[str]:
        """Return the names of the studies, the latest last, without auxiliary studies and those of other programs."""
        return [name for name in self.all_names() if "/" not in name]

    def all_names(self) -> list[str]:
        """Return the names of the studies and of their auxiliary studies, the latest last."""
        if not self.exists():
            return []
        attrs = self.ask(lambda: user_attrs_of_studies(self.storage))
        return sorted((name for name in attrs if "settings" in attrs[name]), key=lambda name: _touched(attrs[name]))

    def load(self, name: str | None = None) -> Study:
        """Load a study or an auxiliary study by name; the latest study by default.

        Raises:
            BadInput: when there is no such study.
        """
        names = self.names()
        if not names:
            raise BadInput(f"there is no study in {self.where}; make one with: farsearch run --device D --task T")
        if name is not None and name not in self.all_names():
            hint = did_you_mean(name, names, cutoff=0.4) or "see farsearch studies list"
            raise BadInput(f"the study {shown(name)} is not in {self.where}; {hint}")
        return self.ask(lambda: optuna.load_study(study_name=name or names[-1], storage=self.storage))

    def auxiliary(self, name: str, kind: AuxiliaryKind) -> Study | None:
        """Load the auxiliary study with the baselines or the verification of ``name``; None where it does not exist."""
        auxiliary = auxiliary_name(name, kind)
        return self.load(auxiliary) if auxiliary in self.all_names() else None

    def check(self, name: str, settings: StudySettings, meta: Mapping[str, Any] | None = None) -> None:
        """Check whether ``open`` accepts a name with these settings, without creating anything.

        Args:
            meta: of the job; names a data file that has changed.

        Raises:
            BadInput: for a name that can't be a folder's.
            StudyMismatch: when the study exists with other settings.
        """
        names = self.names()
        if name in names:
            study = self.load(name)
            self.ask(lambda: check_settings(study, settings, meta or {}))
        else:
            check_new_name(name, names)

    def check_here(self, study: Study, settings: StudySettings, meta: Mapping[str, Any]) -> None:
        """Check whether this host has the data, model and profile that a study was made with.

        Args:
            settings, meta: of the study's job, as resolved on this host.

        Raises:
            StudyMismatch: naming the differences.
        """
        differences = self.ask(lambda: differences_of(study, settings, meta))
        if differences:
            raise StudyMismatch(
                f"this host has other data, model or device than the study {shown(study.study_name)} (here, there): "
                f"{differences}; give the same with `data_dir`, `model` or `device`"
            )

    def open(self, name: str, settings: StudySettings, meta: Mapping[str, Any]) -> Study:
        """Open a study, and create it where it does not exist.

        Raises:
            BadInput: for a name that can't be a folder's, or that another program uses.
            StudyMismatch: when it exists with other settings.
        """
        self.check(name, settings, meta)
        return self._open_study(name, settings, meta)

    def open_auxiliary(self, study: Study, kind: AuxiliaryKind) -> Study:
        """Open the auxiliary study with the baselines or the verification of a study, and create it if needed."""
        attrs = self.ask(lambda: study.user_attrs)
        return self._open_study(
            auxiliary_name(study.study_name, kind), StudySettings.from_dict(attrs["settings"]), attrs["meta"]
        )

    def _open_study(self, name: str, settings: StudySettings, meta: Mapping[str, Any]) -> Study:
        def step() -> Study:
            self.home.mkdir(parents=True, exist_ok=True)
            with self.locks.hold("create"):
                study = optuna.create_study(
                    study_name=name, storage=self.storage, directions=DIRECTIONS, load_if_exists=True
                )
                if study.directions != list(DIRECTIONS):
                    raise BadInput(
                        f"the study {shown(name)} in {self.where} is no farsearch study; give another `study`"
                    )
                if "settings" in study.user_attrs:
                    check_settings(study, settings, meta)
                    add_meta(study, meta)
                else:
                    # settings last: the next run completes a study that a kill left without them
                    study.set_user_attr("schema_version", SCHEMA_VERSION)
                    study.set_user_attr("meta", dict(meta))
                    study.set_user_attr("settings", settings.to_dict())
                study.set_user_attr("touched", 1 + max(map(_touched, user_attrs_of_studies(self.storage).values())))
                return study

        return self.ask(step)

    def delete(self, name: str) -> None:
        """Delete a study with its tensors and its auxiliary studies; the cache is not changed."""
        with storage_errors(self.where):
            # auxiliary studies first: without their study they could not be found
            for member in (*(auxiliary_name(name, kind) for kind in AUXILIARY_KINDS), name):
                if member in self.all_names():
                    optuna.delete_study(study_name=member, storage=self.storage)
        shutil.rmtree(self.folder(name), ignore_errors=True)

    def folder(self, study: str) -> Path:
        """Return the folder of a study's tensors and locks."""
        return self.home / "studies" / study

    @property
    def cache(self) -> Path:
        """Folder of the caches."""
        return self.home / "cache"

    @contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """Hold a study's lock, under which a worker proposes, recovers and finishes trials.

        Raises:
            SQLAlchemyError: when the database does not answer, or the lock was lost meanwhile. The block must then be
                repeated.
        """
        # the name is fixed: workers of older versions hold the same lock
        with self.locks.hold(f"studies/{study}/turn"):
            yield

    def mirror_lock(self, study: str, wait: bool) -> AbstractContextManager[bool]:
        """Hold the lock for mirroring a study; the block receives whether it is held."""
        return self.locks.hold(f"studies/{study}/mirror", wait)


def _touched(attrs: Mapping[str, Any]) -> float:
    """Return a number that rises with each run of a study: the latest has the highest. Hosts' clocks differ."""
    return float(attrs.get("touched", 0.0))
