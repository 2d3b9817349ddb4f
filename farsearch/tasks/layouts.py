"""Layouts of the files of official tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farsearch.tasks.data import TaskSpec

__all__ = ["Official", "Table", "Undivided"]


@dataclass(frozen=True)
class Table:
    """Layout of a task's tables: one row per line, cells separated by tabs, quotes are text.

    Attributes:
        columns: columns of the training file, in its order; with a header they are found by name.
        texts: columns of the texts.
        label: column of the label.
        header: whether the first line names the columns.
        ragged: some rows lack cells between the texts and the label, which is then the last one.
        broken: some rows are known to lack cells or a text; they are left out and counted.
        scores: range of numeric labels.
    """

    columns: tuple[str, ...]
    texts: tuple[str, ...]
    label: str
    header: bool = True
    ragged: bool = False
    broken: bool = False
    scores: tuple[float, float] | None = None


@dataclass(frozen=True)
class Undivided:
    """A file with training and development rows, and the one with the ids of the development rows.

    Attributes:
        columns: columns of the ids; the second file has only these and no header.
    """

    name: str
    dev_ids: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Official:
    """An official task.

    Attributes:
        rows: published numbers of rows, by part.
        source: authors and citation.
        folder: name of its folder in the GLUE download, if it has one.
        table: layout of its files; None for SQuAD's JSON.
        more_dev: files of further development sets, by name.
        undivided: files to read without a training file.
        hub_dev: name of the development set on the hub.
        hub_more_dev: names of the further ones on the hub.
        note: peculiarities of the files.
    """

    spec: TaskSpec
    rows: Mapping[str, int]
    source: str
    folder: str | None = None
    table: Table | None = None
    train: str = "train.tsv"
    dev: str = "dev.tsv"
    more_dev: Mapping[str, str] = field(default_factory=dict)
    undivided: Undivided | None = None
    hub_dev: str = "validation"
    hub_more_dev: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files."""
        return (self.train, self.dev, *self.more_dev.values())
