"""Folders of data: one for each part of a data set, or one with texts for each class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farsearch.runtime.decoding import text_of
from farsearch.runtime.records import RowProblem, Source
from farsearch.runtime.tables import Line

__all__ = ["STATE", "Parts", "class_folder", "is_class_folder", "parts_of"]

STATE = "state.json"
"""File that identifies a folder of ``Dataset.save_to_disk``."""

_DEV = ("validation", "valid", "val", "dev")
"""Names of a development set, in order of preference."""

_UNLABELLED = "unsup"
"""Folder of unlabelled texts in IMDb's reviews."""


@dataclass(frozen=True)
class Parts:
    """Parts of a data set in a folder: training, development, and the names of unused ones."""

    train: Path
    dev: Path | None
    others: tuple[str, ...]

    @property
    def note(self) -> str:
        """The use of each part, as one line."""
        dev = f", {self.dev.name} is reported on" if self.dev else ""
        return f"{self.train.name} is trained on{dev}" + f"; not read: {', '.join(self.others)}" * bool(self.others)


def parts_of(folder: Path) -> Parts | None:
    """Return the parts of a data set if the folder has one called ``train`` that is no class of texts, else None."""
    train = folder / "train"
    if not _is_data_folder(train):
        return None
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and path != train)
    dev = next((name for name in _DEV if name in names), None)
    return Parts(train, folder / dev if dev else None, tuple(name for name in names if name != dev))


def _class_names(folder: Path) -> list[str]:
    """The subfolders with texts."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and next(_texts(path), None) is not None)


def _texts(folder: Path) -> Iterator[Path]:
    """The files of a class: ``.txt``, or without an extension as in newsgroups."""
    for path in folder.iterdir():
        if path.suffix.lower() in (".txt", "") and path.name[0] != "." and path.is_file():
            yield path


def _is_data_folder(folder: Path) -> bool:
    """Whether a folder is one of ``Dataset.save_to_disk``, or has a folder of texts for each class."""
    return (folder / STATE).is_file() or (folder.is_dir() and is_class_folder(folder))


def is_class_folder(folder: Path) -> bool:
    """Return whether a folder has at least two subfolders with texts."""
    return len(_class_names(folder)) > 1


def class_folder(folder: Path) -> Source:
    """Return the texts of a folder with a subfolder for each class, ordered by class and file name."""
    names = _class_names(folder)
    classes = [name for name in names if name != _UNLABELLED]

    def lines() -> Iterator[Line]:
        for name in classes:
            for path in sorted(_texts(folder / name)):
                yield _line(path, name)

    note = f"a folder for each class: {', '.join(classes[:10])}{', …' * (len(classes) > 10)}"
    note += f"; {_UNLABELLED} has no class and is not read" * (_UNLABELLED in names)
    return Source(folder.name, lines, ("text", "label"), note=note)


def _line(path: Path, label: str) -> Line:
    place = f"{label}/{path.name}"
    try:
        text = text_of(path.read_bytes(), path.name)
    except RowProblem as error:
        return Line(place, ["", label], "", str(error))
    return Line(place, [text, label], text, "")
