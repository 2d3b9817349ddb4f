"""In-memory repositories: named files, commits, and a branch ``main``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

__all__ = ["LEGACY", "Commit", "Kind", "Repository", "git_id", "lfs_id"]

Kind = Literal["models", "datasets"]

LEGACY: Mapping[Kind, Mapping[str, str]] = {
    "models": {
        "bert-base-uncased": "google-bert/bert-base-uncased",
        "bert-base-cased": "google-bert/bert-base-cased",
        "bert-large-uncased": "google-bert/bert-large-uncased",
        "distilbert-base-uncased": "distilbert/distilbert-base-uncased",
        "distilbert-base-cased": "distilbert/distilbert-base-cased",
        "roberta-base": "FacebookAI/roberta-base",
        "distilroberta-base": "distilbert/distilroberta-base",
        "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
        "xlm-roberta-large": "FacebookAI/xlm-roberta-large",
        "camembert-base": "almanach/camembert-base",
    },
    "datasets": {"glue": "nyu-mll/glue", "squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"},
}
"""Names without an owner, from before the hub had owners, and those that they redirect to."""

_LFS = re.compile(r"\.(safetensors|bin|parquet|model)$")


@lru_cache(maxsize=4096)
def git_id(content: bytes) -> str:
    """SHA-1 of a file as git computes it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@lru_cache(maxsize=4096)
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lfs_id(name: str, content: bytes) -> str | None:
    """SHA-256 of a file that git LFS stores; None for one that git stores itself."""
    return _sha256(content) if _LFS.search(name) else None


@dataclass(frozen=True)
class Commit:
    """The files of a repository at one commit."""

    files: Mapping[str, bytes]
    parent: str = ""

    @property
    def sha(self) -> str:
        """The commit's id: the same files after the same commits have the same id."""
        lines = (f"{name} {git_id(content)}\n" for name, content in sorted(self.files.items()))
        return hashlib.sha1((self.parent + "".join(lines)).encode()).hexdigest()


@dataclass
class Repository:
    """A repository of the hub.

    Attributes:
        name: ``OWNER/NAME``.
        private: only readable with a token.
        gated: files are only readable with a token to which the owner granted access.
    """

    kind: Kind
    name: str
    files: Mapping[str, bytes]
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(init=False)
    refs: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        first = Commit(dict(self.files))
        self.commits, self.refs = {first.sha: first}, {"main": first.sha}

    @property
    def main(self) -> str:
        """The commit of ``main``."""
        return self.refs["main"]

    def commit(self, changes: Mapping[str, bytes | None], *, ref: str = "main", drop_old: bool = False) -> str:
        """Add a commit on top of ``main``; None removes a file. Return its id.

        Args:
            ref: the reference to update: ``main``, or ``refs/pr/1`` of a pull request.
            drop_old: forget all other commits, as after a forced push.
        """
        merged: dict[str, bytes | None] = {**self.commits[self.main].files, **changes}
        new = Commit({name: content for name, content in merged.items() if content is not None}, parent=self.main)
        if drop_old:
            self.commits.clear()
        self.commits[new.sha], self.refs[ref] = new, new.sha
        return new.sha

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch, a pull request or an id; None if it does not exist."""
        return self.commits.get(self.refs.get(revision, revision))
