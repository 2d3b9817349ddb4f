"""Where studies are kept, what makes two runs the same study, and who is at work on one."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from farsearch.errors import BadInput, MissingResource, StudyMismatch
from farsearch.files import disk_errors
from farsearch.records import SCHEMA_VERSION, StudySettings
from farsearch.study.journal import damaged, open_journal

__all__ = ["DIRECTIONS", "Store", "WorkerLock", "sibling_name", "storage_errors", "without_password"]

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
"""Metric up, peak memory down, wall time down."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"

_BASELINES = "/baselines"
"""What the name of a sibling study ends with. A study that a user names has no slash."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Translate what the study's storage refuses.

    Args:
        where: the journal's path or the database's URL, without its password.
    """
    try:
        with disk_errors(Path(where)):
            yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error.__cause__ or error).split())[:160]
        raise MissingResource(
            f"the storage {where} does not answer: {reason}; start it and run the same command again"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(where, error) from error


def without_password(url: str) -> str:
    """A URL for messages and records."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", url)


def sibling_name(study: str) -> str:
    """Name of the study that keeps the baselines of ``study``."""
    return study + _BASELINES


class Store:
    """The studies of one working directory, or of one database.

    Args:
        home: folder ``.farsearch`` for the journal, saved tensors, caches and locks.
        url: a database instead of the journal, ``postgresql://...``; None for the journal.
    """

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.home = home
        self.url = url
        self._journal = home / "studies.journal"
        self._storage: BaseStorage | None = None

    @property
    def where(self) -> str:
        """The storage in words for messages."""
        return str(self._journal) if self.url is None else without_password(self.url)

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage, opened at first use."""
        if self._storage is None:
            with storage_errors(self.where):
                self._storage = self._open()
        return self._storage

    def _open(self) -> BaseStorage:
        if self.url is not None:
            try:
                return RDBStorage(self.url)
            except (ImportError, sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
                raise BadInput(
                    f"--storage {without_password(self.url)} can't be used: {error}; give postgresql://user@host/name"
                ) from error
        self.home.mkdir(parents=True, exist_ok=True)
        return open_journal(self._journal)

    def exists(self) -> bool:
        """There is something to read; asking creates nothing."""
        return self.url is not None or self._journal.is_file()

    def names(self) -> list[str]:
        """Names of the studies, the latest last.

        Left out are those of other programs in the same database, and the siblings that keep a study's baselines.
        """
        return [name for name in self._all_names() if not name.endswith(_BASELINES)]

    def _all_names(self) -> list[str]:
        if not self.exists():
            return []
        with storage_errors(self.where):
            studies = [study for study in self.storage.get_all_studies() if "settings" in study.user_attrs]
        return [s.study_name for s in sorted(studies, key=lambda s: float(s.user_attrs.get("touched", 0.0)))]

    def load(self, name: str | None = None) -> Study:
        """A study by name, a sibling's too; the latest where none is given.

        Raises:
            BadInput: where there is none.
        """
        names = self.names()
        if not names:
            raise BadInput(f"there is no study in {self.where}; make one with: farsearch run --device D --task T")
        if name is not None and name not in self._all_names():
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}?" if close else "see farsearch studies list"
            raise BadInput(f"the study {name!r} is not in {self.where}; {hint}")
        with storage_errors(self.where):
            return optuna.load_study(study_name=name or names[-1], storage=self.storage)

    def sibling(self, name: str) -> Study | None:
        """The study that keeps the baselines of ``name``, None where there is none."""
        sibling = sibling_name(name)
        return self.load(sibling) if sibling in self._all_names() else None

    def check(self, name: str, settings: StudySettings) -> None:
        """Refuse, without making anything, a name that ``open`` would refuse with these settings.

        Raises:
            BadInput: for a name that can't be that of a folder.
            StudyMismatch: when the study exists with other settings.
        """
        if not re.fullmatch(_NAME, name):
            raise BadInput(f"the study name {name!r} is not usable; use letters, digits, '.', '_', '+' and '-'")
        if name in self.names():
            _check_settings(name, self.load(name), settings)

    def open(self, name: str, settings: StudySettings, meta: Mapping[str, Any]) -> Study:
        """The study of that name, made where it is not there.

        Raises:
            BadInput: for a name that can't be that of a folder, or that another program uses.
            StudyMismatch: when it exists with other settings.
        """
        self.check(name, settings)
        return self._open_study(name, settings, meta)

    def open_sibling(self, study: Study) -> Study:
        """The study that keeps the baselines of ``study``, made where it is not there."""
        attrs = study.user_attrs
        return self._open_study(
            sibling_name(study.study_name), StudySettings.from_dict(attrs["settings"]), attrs["meta"]
        )

    def _open_study(self, name: str, settings: StudySettings, meta: Mapping[str, Any]) -> Study:
        with storage_errors(self.where):
            self.home.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.home / "create.lock"):
                study = optuna.create_study(
                    study_name=name, storage=self.storage, directions=DIRECTIONS, load_if_exists=True
                )
                if study.directions != list(DIRECTIONS):
                    raise BadInput(f"the study {name!r} in {self.where} is no farsearch study; give another --study")
                if "settings" in study.user_attrs:
                    _check_settings(name, study, settings)
                else:
                    # the settings last: a study that a kill left without them is filled in by the next run
                    study.set_user_attr("schema_version", SCHEMA_VERSION)
                    study.set_user_attr("meta", dict(meta))
                    study.set_user_attr("settings", settings.to_dict())
                study.set_user_attr("touched", time.time())
                return study

    def delete(self, name: str) -> None:
        """Delete a study with its saved tensors and its baselines. What the cache holds of both stays."""
        with storage_errors(self.where):
            # the sibling first: without its study nothing would lead to it
            for each in (sibling_name(name), name):
                if each in self._all_names():
                    optuna.delete_study(study_name=each, storage=self.storage)
        shutil.rmtree(self.folder(name), ignore_errors=True)

    def folder(self, study: str) -> Path:
        """Folder of a study's saved tensors and locks."""
        return self.home / "studies" / study

    @property
    def cache(self) -> Path:
        """Folder of what can be made again."""
        return self.home / "cache"

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        """One process at a time proposes a trial, recovers a lost one, or tells what came out of one."""
        folder = self.folder(study)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "turn.lock"):
            yield


def _check_settings(name: str, study: Study, settings: StudySettings) -> None:
    theirs = StudySettings.from_dict(study.user_attrs["settings"])
    if theirs.fingerprint() != settings.fingerprint():
        differences = settings.differences(theirs)
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise StudyMismatch(
            f"the study {name!r} exists with other settings (now, then): {shown}; "
            "use the same settings, or another name with --study"
        )


class WorkerLock:
    """Held by a worker as long as it lives; a trial whose worker's lock can be taken was abandoned.

    Args:
        folder: of the study.
        shared: workers on other machines, whose locks are not in this folder, may work on the study too.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.name = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._folder, self._shared = folder / "workers", shared
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self._path(self.name))
            self._lock.acquire(timeout=0)

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"

    def close(self) -> None:
        """The worker ends."""
        self._lock.release()
        self._path(self.name).unlink(missing_ok=True)

    def abandoned(self, study: Study) -> list[FrozenTrial]:
        """RUNNING trials whose worker is gone. Call it in the study's turn."""
        found = []
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            # without a name it died inside its turn, which is ours now
            if worker is None or (worker != self.name and self._is_dead(worker)):
                found.append(trial)
        return found

    def _is_dead(self, worker: str) -> bool:
        if self._shared and worker.rpartition("-")[0] != socket.gethostname():
            return False
        path = self._path(worker)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        lock.release()
        path.unlink(missing_ok=True)
        return True
