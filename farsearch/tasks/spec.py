"""What a task is: its name, its classes, its metric, and where its rows come from."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from farsearch.errors import BadInput

__all__ = ["TASKS", "Examples", "Layout", "MetricName", "TaskData", "TaskSpec", "get_task"]

MetricName = Literal["accuracy", "matthews_correlation"]

Layout = Literal["sentence-label", "cola"]
"""How a file looks: a header ``sentence<TAB>label``, or CoLA's four columns without one."""


@dataclass(frozen=True)
class TaskSpec:
    """A task that farsearch knows.

    Attributes:
        labels: names of the classes; the place in the tuple is the class id.
        hub: name and configuration of the data set on the hub; None where there is none.
        text_column: its column of texts.
        label_column: its column of class ids.
        folder: name of the task's folder in the GLUE download; None where there is none.
        layout: how its files look there.
        licence: what is known of the terms of the data.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    metric: MetricName
    hub: tuple[str, str] | None
    text_column: str
    label_column: str
    folder: str | None
    layout: Layout
    licence: str


@dataclass(frozen=True)
class Examples:
    """Texts with their class ids, in the order of their file."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.labels), "a text without a label, or the other way round"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Iterable[int]) -> Examples:
        """The rows at ``indices``, in that order."""
        rows = tuple(indices)
        return Examples(tuple(self.texts[i] for i in rows), tuple(self.labels[i] for i in rows))


@dataclass(frozen=True)
class TaskData:
    """The rows of a task.

    Attributes:
        train: the whole training file.
        dev: the official development set, which nothing selects by.
        source: where the rows come from, for a reader: ``hub glue/sst2``, ``files in SST-2``, ``embedded sample``.
    """

    spec: TaskSpec
    train: Examples
    dev: Examples
    source: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the texts and labels of both parts: the same rows have it from wherever they were read."""
        digest = hashlib.sha256()
        for name, part in (("train", self.train), ("dev", self.dev)):
            rows = list(zip(part.texts, part.labels, strict=True))
            digest.update(json.dumps([name, rows]).encode())
        return digest.hexdigest()


_GLUE = "nyu-mll/glue"

TASKS: Mapping[str, TaskSpec] = MappingProxyType(
    {
        "sst2": TaskSpec(
            name="sst2",
            title="Stanford Sentiment Treebank: is a phrase of a film review positive?",
            labels=("negative", "positive"),
            metric="accuracy",
            hub=(_GLUE, "sst2"),
            text_column="sentence",
            label_column="label",
            folder="SST-2",
            layout="sentence-label",
            licence="none stated by its authors; cite Socher et al. 2013 and Wang et al. 2018",
        ),
        "cola": TaskSpec(
            name="cola",
            title="Corpus of Linguistic Acceptability: is a sentence good English?",
            labels=("unacceptable", "acceptable"),
            metric="matthews_correlation",
            hub=(_GLUE, "cola"),
            text_column="sentence",
            label_column="label",
            folder="CoLA",
            layout="cola",
            licence="quotes from published linguistics, rights with their publishers; cite Warstadt et al. 2018",
        ),
        "reviews": TaskSpec(
            name="reviews",
            title="Short reviews that come with farsearch: is one positive?",
            labels=("negative", "positive"),
            metric="accuracy",
            hub=None,
            text_column="sentence",
            label_column="label",
            folder=None,
            layout="sentence-label",
            licence="CC0 1.0, written for farsearch",
        ),
    }
)
"""The tasks by name."""


def get_task(name: str) -> TaskSpec:
    """The task of that name.

    Raises:
        BadInput: when there is none; the message names those there are.
    """
    if name in TASKS:
        return TASKS[name]
    close = difflib.get_close_matches(name.lower().replace("-", ""), TASKS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise BadInput(f"the task {name!r} is unknown; it must be one of {', '.join(sorted(TASKS))}{hint}")
