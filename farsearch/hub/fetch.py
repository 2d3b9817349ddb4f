"""Fetch files of a repository at one commit.

A revision is resolved once per process, so that all files are of one commit. The hub's listing of the commit determines
which files exist, so a failed download is an error, not an absent file. Blobs of the cache are named by their hashes,
by which each is verified, also without a network.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

from farsearch.errors import BadInput, MissingResource
from farsearch.hub.client import patience
from farsearch.hub.problems import problem_of

__all__ = ["Repository", "Snapshot", "UnknownRevision", "fetch"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EVERY_S = 5.0
"""Seconds between two lines on a download, or on waiting for the hub."""

Note = Callable[[str], None]


class UnknownRevision(BadInput):
    """The repository has no such branch, tag or commit."""


@dataclass(frozen=True)
class Repository:
    """A repository of the hub.

    Attributes:
        name: ``OWNER/NAME``, or an old name without an owner.
        revision: branch, tag or commit; None for the branch ``main``.
    """

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None = None

    @property
    def page(self) -> str:
        """Address of its page."""
        return f"{constants.ENDPOINT}/{'datasets/' * (self.kind == 'dataset')}{self.name}"


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository.

    Attributes:
        folder: their folder, which may contain further files of the same commit.
        commit: 40 hexadecimal digits.
        away: why the hub was unreachable, so that the files are those of the cache; None if it was reachable or not
            needed.
    """

    folder: Path
    commit: str
    away: str | None = None


_resolved: dict[Repository, tuple[str, str | None]] = {}
_fetched: dict[tuple[Repository, tuple[str, ...]], Snapshot] = {}


def fetch(repository: Repository, patterns: Sequence[str], note: Note | None = None) -> Snapshot:
    """Return the files of a repository whose names match, downloaded where the cache lacks them.

    A pattern that matches no file of the commit is no error.

    Args:
        patterns: patterns of ``fnmatch``.
        note: called with a line on what takes long.

    Raises:
        UnknownRevision: when the repository has no such revision.
        MissingResource: when a file can't be fetched, within seconds after the hub's last progress.
    """
    key = (repository, tuple(patterns))
    if key not in _fetched:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        with _translated(repository):
            commit, away = _resolve(repository, note)
            _fetched[key] = _download(repository, commit, patterns, away, note)
    return _fetched[key]


@contextmanager
def _translated(repository: Repository) -> Iterator[None]:
    patience.begin()
    try:
        yield
    except (BadInput, MissingResource):
        raise
    except RevisionNotFoundError as error:
        raise UnknownRevision(
            f"{repository.page} has no revision {repository.revision!r}; give a branch, tag or commit that it has"
        ) from error
    # errors of huggingface_hub, its HTTP client, its parsers and the disk have no common type
    except Exception as error:
        raise MissingResource(
            f"the {repository.kind} {repository.name!r} can't be had: {problem_of(error, repository.page)}"
        ) from error


def _resolve(repository: Repository, note: Note | None) -> tuple[str, str | None]:
    """Return the commit of a repository's revision, and why the hub was unreachable, if it was."""
    if repository not in _resolved:
        with _watched(repository, "answer", note, _Received()):
            found = (
                HfApi()
                .resolve_revision(repository.name, repo_type=repository.kind, revision=repository.revision)
                .resolved
            )
        named = repository.revision is not None and _COMMIT.fullmatch(repository.revision) is not None
        away = None if named or patience.answered else _away(repository)
        if away is not None and note is not None:
            note(f"{repository.name}: {away}; using commit {found[:12]} of the cache")
        _resolved[repository] = found, away
    return _resolved[repository]


def _away(repository: Repository) -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    problem = patience.problem
    return "the hub gives no answer" if problem is None else problem_of(problem, repository.page)


def _download(
    repository: Repository, commit: str, patterns: Sequence[str], away: str | None, note: Note | None
) -> Snapshot:
    """Return the files of a commit. Damaged ones are fetched again once."""
    for attempt in range(2):
        patience.begin()
        folder = _snapshot(repository, commit, patterns, away, note)
        damaged = [path for path in _matching(folder, patterns) if not _intact(path)]
        if not damaged:
            return Snapshot(folder, commit, away)
        for path in damaged:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        if note is not None and not attempt:
            note(f"{repository.name}: {damaged[0].name} does not have its hash; fetching it again")
    raise MissingResource(
        f"the {repository.kind} {repository.name!r} can't be had: {damaged[0].name} arrived with a wrong hash twice; "
        f"something between here and {constants.ENDPOINT} changes files"
    )


def _snapshot(
    repository: Repository, commit: str, patterns: Sequence[str], away: str | None, note: Note | None
) -> Path:
    received = _Received()

    def load(local: bool) -> Path:
        return Path(
            snapshot_download(
                repository.name,
                repo_type=repository.kind,
                revision=commit,
                allow_patterns=list(patterns),
                local_files_only=local,
                max_workers=2,
                tqdm_class=_counting(received),
            )
        )

    if away is not None:
        try:
            return load(local=True)
        except EntryNotFoundError as error:
            raise MissingResource(
                f"the {repository.kind} {repository.name!r} can't be had: {away}, and the cache lacks some of "
                f"{', '.join(patterns)} of commit {commit[:12]}"
            ) from error
    with _watched(repository, ", ".join(patterns[:3]), note, received):
        try:
            return load(local=False)
        except (RevisionNotFoundError, EntryNotFoundError):
            try:  # the hub has dropped the commit, the cache may have it
                return load(local=True)
            except EntryNotFoundError:
                raise UnknownRevision(
                    f"{repository.page} no longer has the commit {commit[:12]}, and the cache has not all of it; put "
                    "the files back, or start a study of its own with `study`"
                ) from None


def _matching(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield path


def _intact(path: Path) -> bool:
    """Return whether a file has the hash in its blob's name; true for blobs without one."""
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name):
        digest = hashlib.sha256()
    elif _COMMIT.fullmatch(blob.name):  # Git's hash of a file begins with its kind and size
        digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
    else:
        return True
    with blob.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == blob.name


class _Received:
    """Received and expected bytes of all files of one download."""

    def __init__(self) -> None:
        self.count = self.total = 0


def _counting(received: _Received) -> type:
    """Return a class in the place of huggingface_hub's progress bars, which counts into ``received`` silently."""

    class Counter:
        def __init__(self, *_: Any, unit: str = "", total: float | None = None, **__: Any) -> None:
            self.total, self.n, self._bytes = total or 0, 0.0, unit == "B"

        def update(self, count: float | None = 1) -> None:
            self.n += count or 0
            if self._bytes:  # two bars count the same bytes
                received.count = max(received.count, int(self.n))

        def refresh(self, *_: Any, **__: Any) -> None:
            if self._bytes:
                received.total = int(self.total)

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *_, **__: None  # of what else a bar can do nothing is wanted

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    return Counter


@contextmanager
def _watched(repository: Repository, what: str, note: Note | None, received: _Received) -> Iterator[None]:
    """Report the progress of a download, or the reason of a wait, every few seconds."""
    if note is None:
        yield
        return
    done, started = threading.Event(), time.monotonic()

    def report() -> None:
        while not done.wait(_EVERY_S):
            seconds = time.monotonic() - started
            if received.count:
                total = f" of {received.total / 2**20:,.1f}" if received.total else ""
                rate = received.count / 2**20 / seconds
                note(f"{repository.name}: {received.count / 2**20:,.1f}{total} MiB of {what}, {rate:,.2f} MiB/s")
            else:
                note(f"{repository.name}: waiting for {constants.ENDPOINT} for {seconds:.0f} s ({what})")

    thread = threading.Thread(target=report, daemon=True, name="farsearch-hub")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
