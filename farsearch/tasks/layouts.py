"""How the files of official tasks look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farsearch.tasks.data import TaskSpec

__all__ = ["Official", "Table", "Undivided"]


@dataclass(frozen=True)
class Table:
    """How a task's tables look: a row a line, tabs between its cells, and quotes are text.

    Attributes:
        columns: of the training file, in its order. What is read is found by name where there is a header.
        texts: those that hold a row's texts.
        label: the one that holds what is learned.
        header: whether the first line names the columns.
        ragged: some rows lack cells between the texts and the label, which is then the last one.
        broken: rows are known that have lost cells or a text; they are left out and counted.
        scores: the lowest and the highest number that a label may be.
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
    """A file with the rows of training and development, and the one that names those of development.

    Attributes:
        columns: of the rows, which tell one from another; the second file has them alone and no header.
    """

    name: str
    dev_ids: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Official:
    """An official task.

    Attributes:
        rows: as published, by part.
        source: who made the data, and what to cite.
        folder: name of its folder in the GLUE download; None where it has none.
        table: how its files look; None for SQuAD's JSON.
        more_dev: files of further development sets, by name.
        undivided: what is read where there is no training file.
        hub_dev: name of the development set on the hub.
        hub_more_dev: those of the further ones.
        note: what is odd about the files.
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
