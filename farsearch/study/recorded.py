"""Identities that a study was created with, and that may have changed since."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from farsearch.errors import StudyMismatch
from farsearch.far.display import shown
from farsearch.hub import UnknownRevision
from farsearch.models.source import ModelSource
from farsearch.records import Engines, StudySettings
from farsearch.study.space import Space
from farsearch.tasks.spec import TaskData

__all__ = ["Recorded"]


@dataclass(frozen=True)
class Recorded:
    """Identities of a study that may have changed: commits of the hub, the class of F1, the shipped space.

    Attributes:
        weights: ``JobSpec.weights`` of the study.
        data: commit of the data set; None where the data is not from the hub, or the study is older than its record.
        positive, class_weights: of the study's ``JobSpec``.
        metric: name of the study's metric.
        space: of its settings.
        engine: of its settings; None for another device than the study's.
    """

    study: str
    weights: str
    data: str | None
    positive: str | None
    class_weights: Literal["balanced", "none"]
    metric: str
    space: Mapping[str, Any]
    engine: Engines | None

    def model(self, source: ModelSource) -> str | None:
        """Return the commit of the study's model; None where ``source`` is another model."""
        name, _, commit = self.weights.rpartition("@")
        return commit if name == source.location and re.fullmatch(r"[0-9a-f]{40}", commit) else None

    @classmethod
    def of(cls, study: str, settings: StudySettings, meta: Mapping[str, Any], engine: Engines | None) -> Recorded:
        """Return the identities of a study from its settings and metadata."""
        job = settings.job
        return cls(
            study, job.weights, meta.get("data_commit"), job.positive, job.class_weights, meta["metric"],
            settings.space, engine,
        )  # fmt: skip

    def task(self, data: TaskData, own: Mapping[str, Any], progress: Callable[[str], None]) -> TaskData:
        """Return the user's rows with the metric of the study, where that was made by the defaults of an older version.

        These were accuracy for unequal classes too, and F1 of the second class.

        Args:
            own: the user's description of the rows.
        """
        spec, was = data.spec, ""
        if not own.get("metric") and spec.metric == "macro_f1" != self.metric:
            spec, was = dataclasses.replace(spec, metric=self.metric), f"metric is {self.metric}"
        if not own.get("positive") and self.positive is None and spec.positive is not None:
            spec, was = dataclasses.replace(spec, positive=None), f"F1 is that of class {shown(spec.labels[1])}"
        if was:
            progress(f"the study {shown(self.study)} is an older one: its {was}")
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
