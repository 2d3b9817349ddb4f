"""What a task is, and its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from farsearch.json_records import Record
from farsearch.runtime.scores import OF_ONE_CLASS
from farsearch.runtime.task import Task

__all__ = ["Examples", "Kind", "TaskData", "TaskSpec"]

Kind = Literal["classification", "multi-label", "regression", "token-classification", "question-answering"]
"""What a model is asked of a row; ``runtime.task`` says what each is."""


@dataclass(frozen=True)
class TaskSpec(Record):
    """A task that farsearch knows, or one that a user has described.

    Attributes:
        labels: names of the classes, labels or tags; the place in the tuple is the id. Empty for the other kinds.
        metric: the objective, one of ``runtime.scores.METRICS``.
        texts: columns of a row's texts: one, two of a pair, question and context, or the words.
        label: column of what is learned.
        columns: those of the task's own files where these have no header.
        label_columns: each of ``labels`` is a column of 0 and 1, and there is no column ``label``.
        unanswerable: a question may have no answer in its context.
        hub: name and configuration of the data set on the hub; None where there is none. Its columns are named as here.
        licence: what is known of the terms of the data.
        positive: label of the class that F1 is of; None for the second class, as in studies that do not record it.
        label_separator: what is between the labels of a cell; None for ``|``.
        decimal_comma: numbers in cells may be written as 0,5.
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

    @property
    def positive_label(self) -> str | None:
        """Label of the class that the metric is of; None where it is not of one class."""
        return self.labels[self.task.positive_id] if self.metric in OF_ONE_CLASS else None

    @property
    def pipeline(self) -> str:
        """The pipeline of transformers that its models are for."""
        return self.kind if self.kind in ("token-classification", "question-answering") else "text-classification"

    @property
    def task(self) -> Task:
        """As much of it as a board must know."""
        return Task(
            self.name, self.kind, self.labels, self.metric, self.texts, self.label, self.columns, self.unanswerable,
            self.positive, self.label_separator, self.decimal_comma, self.label_columns,
        )  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Rows in the order of their file: each one's texts, and what is true of it.

    What a row's texts and its answer are depends on the kind of the task, see ``runtime.task.Rows``.
    """

    texts: tuple[tuple[str, ...], ...]
    answers: tuple[Any, ...]

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.answers), "a text without an answer, or the other way round"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """SHA-256 over the rows."""
        return hashlib.sha256(json.dumps([self.texts, self.answers]).encode()).hexdigest()

    def take(self, indices: Iterable[int]) -> Examples:
        """The rows at ``indices``, in that order."""
        rows = tuple(indices)
        return Examples(tuple(self.texts[i] for i in rows), tuple(self.answers[i] for i in rows))


@dataclass(frozen=True)
class TaskData:
    """The rows of a task.

    Attributes:
        train: the whole training file.
        dev: the official development set, which nothing selects by.
        source: where the rows come from, for a reader: ``hub glue/sst2``, ``files in SST-2``, ``embedded sample``.
        more_dev: further development sets by name, as MNLI's ``mismatched``; scored, and used for nothing else.
        commit: of the data set on the hub; None where the rows are not from there.
        files: name and ``Examples.digest`` of a user's own file for each part, before anything is held out.
        unused: columns of a user's file that nothing is read from, see ``columns.unused_columns``.
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
        """SHA-256 over the rows of all parts: the same rows have it from wherever they were read."""
        digest = hashlib.sha256()
        for name, part in (("train", self.train), ("dev", self.dev), *sorted(self.more_dev.items())):
            rows = list(zip(part.texts, part.answers, strict=True))
            digest.update(json.dumps([name, rows]).encode())
        return digest.hexdigest()
