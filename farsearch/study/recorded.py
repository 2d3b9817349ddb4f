"""Identities that a study was created with, and that may have changed since."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from farsearch.errors import StudyMismatch
from farsearch.far.display import shown
from farsearch.hub import UnknownRevision
from farsearch.models.source import ModelSource
from farsearch.records import Engines
from farsearch.study.space import Space
from farsearch.tasks.spec import TaskData

__all__ = ["Recorded"]


@dataclass(frozen=True)
class Recorded:
    """Identities of a study that may have changed: commits of the hub, the class of F1, the shipped space.

    Attributes:
        weights: ``JobSpec.weights`` of the study.
        data: commit of the data set; None where the data is not from the hub, or the study is older than its record.
        positive: ``JobSpec.positive`` of the study.
        space: of its settings.
        engine: of its settings; None for another device than the study's.
    """

    study: str
    weights: str
    data: str | None
    positive: str | None
    space: Mapping[str, Any]
    engine: Engines | None

    def model(self, source: ModelSource) -> str | None:
        """Return the commit of the study's model; None where ``source`` is another model."""
        name, _, commit = self.weights.rpartition("@")
        return commit if name == source.location and re.fullmatch(r"[0-9a-f]{40}", commit) else None

    def task(self, data: TaskData, progress: Callable[[str], None]) -> TaskData:
        """Return the user's rows with F1 of the second class, where the study was made before classes were named."""
        if self.positive is not None or data.spec.positive is None:
            return data
        spec = dataclasses.replace(data.spec, positive=None)
        progress(f"the study {shown(self.study)} is an older one: its F1 is that of class {shown(spec.labels[1])}")
        return dataclasses.replace(data, spec=spec)

    def begun_with(self, space: Space, before: Space, progress: Callable[[str], None]) -> Space:
        """Return ``before``, what the space was in earlier versions, where the study was made with that."""
        if self.space != before.to_dict() or self.space == space.to_dict():
            return space
        progress(f"the study {shown(self.study)} is an older one: its space {shown(space.name)} is {before.title}")
        return before

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the error that a commit no longer exists.

        Raises:
            StudyMismatch: naming the study.
        """
        try:
            yield
        except UnknownRevision as error:
            raise StudyMismatch(f"the study {shown(self.study)} can't be continued: {error}") from error
