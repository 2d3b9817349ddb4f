"""Load the rows of a task from the hub or its cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.info import DatasetInfosDict

from farsearch.errors import DataError, MissingResource
from farsearch.far.display import shown
from farsearch.hub import Repository, fetch
from farsearch.runtime.rows import Record, RowProblem, Rows, rows_of
from farsearch.runtime.squad import question_of, text_of
from farsearch.tasks.data import Examples, TaskSpec
from farsearch.tasks.files import check_classes, check_records
from farsearch.tasks.layouts import Official

__all__ = ["load_from_hub", "read_split"]


@contextmanager
def _cache_only() -> Iterator[None]:
    """Keep datasets off the network, which it retries for 23 s."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _quiet() -> None:
    """Keep progress bars and warnings of datasets off stderr: it belongs to farsearch's own lines."""
    logging.getLogger("datasets").setLevel(logging.ERROR)
    datasets.disable_progress_bars()


def _splits(official: Official) -> tuple[str, ...]:
    """Return the splits of training and development on the hub."""
    return ("train", official.hub_dev, *(official.hub_more_dev[name] for name in official.more_dev))


def _files(official: Official, configuration: str) -> dict[str, str]:
    """Return the pattern of each split's files."""
    return {split: f"{configuration}/{split}-*.parquet" for split in _splits(official)}


def _load(official: Official, folder: Path, configuration: str) -> list[datasets.Dataset]:
    """Read the files of a data set's snapshot, with the columns and classes of its card."""
    files = {
        split: sorted(map(str, folder.glob(pattern))) for split, pattern in _files(official, configuration).items()
    }
    missing = [split for split, paths in files.items() if not paths]
    if missing:
        raise FileNotFoundError(f"it has no files {_files(official, configuration)[missing[0]]}")
    info = DatasetInfosDict.from_directory(str(folder)).get(configuration)
    features = None if info is None else info.features
    return list(datasets.load_dataset("parquet", data_files=files, split=list(files), features=features))


def read_split(part: datasets.Dataset, official: Official, split: str) -> tuple[Examples, int]:
    """Return the rows of a split, with the checks of files, and the number of broken rows that were left out.

    Raises:
        DataError: for columns or classes other than the task's, and for the first invalid row.
    """
    spec = official.spec
    _check_features(part.features, spec)
    columns = (*spec.texts, spec.label)
    cells = (dict(zip(columns, row, strict=True)) for row in zip(*(part[column][:] for column in columns), strict=True))
    records = ((f"{split} row {i} (from 0)", row) for i, row in enumerate(cells))
    left_out: list[str] = []
    try:
        if official.table is None:
            rows = _questions(records, spec)
        else:
            exact = records if spec.kind != "regression" else _shortest(records, spec.label)
            checked = check_records(exact, official.table, left_out, spec.texts, spec.label)
            rows = rows_of(checked, spec.task, f"the split {split}")
    except RowProblem as error:
        raise DataError(
            f"the data of task {spec.name!r} on the hub breaks its format: {error}; or pass `data_dir` FOLDER with "
            "its files"
        ) from error
    return Examples(*rows), len(left_out)


def _shortest(records: Iterator[Record], label: str) -> Iterator[Record]:
    """Convert scores from 32 bits to the shortest equal number, which is that of the official file."""
    for where, cells in records:
        value = cells[label]
        yield where, {**cells, label: float(str(np.float32(value))) if isinstance(value, float) else value}


def _questions(records: Iterator[Record], spec: TaskSpec) -> Rows:
    """Questions with contexts and answers, with the checks of SQuAD's files."""
    question_column, context_column = spec.texts
    texts, answers = [], []
    for where, cells in records:
        listed = _listed(cells[spec.label])
        unanswerable = spec.unanswerable and listed == []
        question = {"question": cells[question_column], "answers": listed, "is_impossible": unanswerable}
        context = text_of(cells, context_column, where)
        text, true = question_of(question, context, where)
        texts.append((text, context))
        answers.append(true)
    return Rows(tuple(texts), tuple(answers))


def _listed(answers: Any) -> Any:
    """Answers one by one, as in SQuAD's files: the hub has a list of texts and a list of starts."""
    if not isinstance(answers, dict):
        return answers
    texts, starts = (answers.get(key) or [] for key in ("text", "answer_start"))
    return [{"text": text, "answer_start": start} for text, start in zip_longest(texts, starts)]


def _check_features(features: Mapping[str, Any], spec: TaskSpec) -> None:
    """Raise for other columns or classes: with classes in another order every label would differ."""
    missing = [column for column in (*spec.texts, spec.label) if column not in features]
    names = getattr(features.get(spec.label), "names", None)
    if missing:
        problem = f"has no column {shown(missing[0])} any more"
    elif names is not None and tuple(names) != spec.labels:
        problem = f"has the classes {', '.join(names)}; they must be {', '.join(spec.labels)}"
    else:
        return
    raise DataError(f"the data of task {shown(spec.name)} on the hub {problem}; pass `data_dir` FOLDER with its files")


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def load_from_hub(
    official: Official,
    hub: tuple[str, str],
    revision: str | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[list[Examples], int, str | None]:
    """Return the rows of all parts, the number of broken rows that were left out, and the commit.

    Files are downloaded unless the hub's cache has them. If the hub can't be reached, an older cache of datasets is
    used too, whose commit is unknown (None).

    Args:
        hub: name and configuration of the data set.
        revision: commit; None for the latest.
        note: called with a line on what takes long.

    Raises:
        MissingResource: when it can't be fetched, within seconds even without a network.
        UnknownRevision: when the commit does not exist.
        DataError: when the data set has changed, or a row is invalid.
    """
    splits = _splits(official)
    parts, commit = _parts(official, Repository("dataset", hub[0], revision), hub[1], note)
    read = [read_split(part, official, split) for part, split in zip(parts, splits, strict=True)]
    check_classes(read[0][0], official.spec, f"the data of task {official.spec.name!r} on the hub, split {splits[0]},")
    return [rows for rows, _ in read], sum(count for _, count in read), commit


def _parts(
    official: Official, repository: Repository, configuration: str, note: Callable[[str], None] | None
) -> tuple[list[datasets.Dataset], str | None]:
    _quiet()
    try:
        snapshot = fetch(repository, ("README.md", *_files(official, configuration).values()), note)
    except MissingResource as error:
        cached = _from_datasets_cache(official, repository, configuration)
        if cached is None:
            raise MissingResource(f"{error}; {_instead(official)}") from error
        return cached, None
    # the file system, the builders and datasets raise errors without a common type
    try:
        with _cache_only():
            return _load(official, snapshot.folder, configuration), snapshot.commit
    except Exception as error:
        raise MissingResource(
            f"the data set {repository.name!r} on the hub can't be read: {_first_line(error)}; {_instead(official)}"
        ) from error


def _from_datasets_cache(
    official: Official, repository: Repository, configuration: str
) -> list[datasets.Dataset] | None:
    """Return what ``datasets.load_dataset`` has cached under the hub's name, else None."""
    if repository.revision is not None:
        return None
    try:
        with _cache_only():
            return list(datasets.load_dataset(repository.name, configuration, split=list(_splits(official))))
    except Exception:  # as in _parts, or nothing is cached
        return None


def _instead(official: Official) -> str:
    files = f"{', '.join(official.files[:-1])} and {official.files[-1]}"
    whose = "SQuAD's" if official.folder is None else "the GLUE"
    return f"pass `data_dir` FOLDER with {files} as in {whose} download, or run once where the hub can be reached"
