"""A task, and its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from farsearch.json_records import UNLESS_DEFAULT, Record
from farsearch.runtime.scores import OF_ONE_CLASS
from farsearch.runtime.task import Task

__all__ = ["Examples", "Kind", "TaskData", "TaskSpec"]

Kind = Literal["classification", "multi-label", "regression", "token-classification", "question-answering"]
"""Kind of the answers of a task, see ``runtime.task.KINDS``."""


@dataclass(frozen=True)
class TaskSpec(Record):
    """A known task, or one that a user has described.

    Attributes:
        labels: names of the classes, labels or tags in the order of their ids; empty for the other kinds.
        metric: the objective, one of ``runtime.scores.METRICS``.
        texts: columns of a row's texts: one, two of a pair, question and context, or the words.
        label: column of the label.
        columns: columns of the task's own files if these have no header.
        label_columns: each of ``labels`` is a column of 0 and 1, and there is no column ``label``.
        unanswerable: a question may have no answer in its context.
        hub: name and configuration of the data set on the hub, with the same columns; None if it is not there.
        licence: terms of the data, as far as they are known.
        positive: positive class of F1; None for the second class, as in older studies.
        label_separator: separator of the labels in a cell; None for ``|``.
        decimal_comma: numbers in cells may be written as 0,5.
        separator: name of the separator between the columns of a user's table; None if the rows are in no table, and in
            older studies.
    """

    name: str
    title: str
    kind: Kind
    labels: tuple[str, ...]
    metric: str
    texts: tuple[str, ...]
    label: str
    columns: tuple[str, ...] | None = None
    unanswerable: bool = False
    hub: tuple[str, str] | None = None
    licence: str = "not stated"
    positive: str | None = None
    label_separator: str | None = None
    decimal_comma: bool = False
    label_columns: bool = False
    separator: str | None = field(default=None, metadata=UNLESS_DEFAULT)

    @property
    def positive_label(self) -> str | None:
        """The positive class of a metric of one class; None for other metrics."""
        return self.labels[self.task.positive_id] if self.metric in OF_ONE_CLASS else None

    @property
    def pipeline(self) -> str:
        """The pipeline of transformers for its models."""
        return self.kind if self.kind in ("token-classification", "question-answering") else "text-classification"

    @property
    def task(self) -> Task:
        """The part of it that the runtime needs."""
        return Task(
            self.name, self.kind, self.labels, self.metric, self.texts, self.label, self.columns, self.unanswerable,
            self.positive, self.label_separator, self.decimal_comma, self.label_columns, self.separator,
        )  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Texts and true answers of rows, in the order of their file.

    Their form depends on the kind of the task, see ``runtime.task.Rows``.
    """

    texts: tuple[tuple[str, ...], ...]
    answers: tuple[Any, ...]

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.answers), "a text without an answer, or the other way round"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """SHA-256 of the rows."""
        return hashlib.sha256(json.dumps([self.texts, self.answers]).encode()).hexdigest()

    def take(self, indices: Iterable[int]) -> Examples:
        """Return the rows at ``indices``, in that order."""
        rows = tuple(indices)
        return Examples(tuple(self.texts[i] for i in rows), tuple(self.answers[i] for i in rows))


@dataclass(frozen=True)
class TaskData:
    """The rows of a task.

    Attributes:
        train: the whole training file.
        dev: the official development set, which is never used for selection.
        source: origin of the rows, for display: ``hub glue/sst2``, ``files in SST-2``, ``embedded sample``.
        more_dev: further development sets by name, as MNLI's ``mismatched``; only evaluated.
        commit: commit of the data set on the hub; None for other sources.
        files: name and ``Examples.digest`` of a user's own file for each part, before rows are held out.
        unused: unused columns of a user's file, see ``columns.unused_columns``.
    """

    spec: TaskSpec
    train: Examples
    dev: Examples
    source: str
    more_dev: Mapping[str, Examples] = field(default_factory=dict)
    commit: str | None = None
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows of all parts, whatever their source."""
        digest = hashlib.sha256()
        for name, part in (("train", self.train), ("dev", self.dev), *sorted(self.more_dev.items())):
            rows = list(zip(part.texts, part.answers, strict=True))
            digest.update(json.dumps([name, rows]).encode())
        return digest.hexdigest()
