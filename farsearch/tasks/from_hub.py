"""The rows of a task from the hub, or from the cache that an earlier download left. The only home of datasets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import datasets
import numpy as np
from huggingface_hub.utils.tqdm import disable_progress_bars

from farsearch.errors import DataError, MissingResource
from farsearch.far.board.rows import Record, RowProblem, Rows, rows_of
from farsearch.far.board.squad import question_of, text_of
from farsearch.hub import hub_problem
from farsearch.tasks.data import Examples, TaskSpec
from farsearch.tasks.files import check_classes, check_records
from farsearch.tasks.layouts import Official

__all__ = ["load_from_hub", "read_split"]


@contextmanager
def _cache_only() -> Iterator[None]:
    """Keep datasets off the network: it tries for 23 s before it says that there is none."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _quiet() -> None:
    """Keep progress bars and warnings of the vendors off stderr: it belongs to farsearch's own lines."""
    for vendor in ("datasets", "huggingface_hub"):
        logging.getLogger(vendor).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    disable_progress_bars()


def _splits(official: Official) -> tuple[str, ...]:
    """The splits of training and development on the hub."""
    return ("train", official.hub_dev, *(official.hub_more_dev[name] for name in official.more_dev))


def _load(official: Official, hub: tuple[str, str]) -> list[datasets.Dataset]:
    return list(datasets.load_dataset(*hub, split=list(_splits(official))))


def read_split(part: datasets.Dataset, official: Official, split: str) -> tuple[Examples, int]:
    """The rows of a split, checked as those of files are, and how many broken ones were left out.

    Raises:
        DataError: for other columns or classes than the task has, and for the first row that breaks the format.
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
            f"the data of task {spec.name!r} on the hub breaks its format: {error}; or pass --data-dir FOLDER with "
            "its files"
        ) from error
    return Examples(*rows), len(left_out)


def _shortest(records: Iterator[Record], label: str) -> Iterator[Record]:
    """The hub keeps scores in 32 bits: the shortest number that is the same in 32 bits is that of the official file."""
    for where, cells in records:
        value = cells[label]
        yield where, {**cells, label: float(str(np.float32(value))) if isinstance(value, float) else value}


def _questions(records: Iterator[Record], spec: TaskSpec) -> Rows:
    """Questions with contexts and answers. Each question is checked as one of SQuAD's files."""
    question_column, context_column = spec.texts
    texts, answers = [], []
    for where, cells in records:
        listed = _listed(cells[spec.label])
        unanswerable = spec.unanswerable and listed == []
        question = {"question": cells[question_column], "answers": listed, "is_impossible": unanswerable}
        context = text_of(cells, context_column, where)
        text, found = question_of(question, context, where)
        texts.append((text, context))
        answers.append(found)
    return Rows(tuple(texts), tuple(answers))


def _listed(answers: Any) -> Any:
    """Answers one by one, as the files have them: the hub has a list of texts and a list of starts."""
    if not isinstance(answers, dict):
        return answers
    texts, starts = (answers.get(key) or [] for key in ("text", "answer_start"))
    return [{"text": text, "answer_start": start} for text, start in zip_longest(texts, starts)]


def _check_features(features: Mapping[str, Any], spec: TaskSpec) -> None:
    """Refuse a set that changed on the hub: with its classes in another order every label would be another one."""
    missing = [column for column in (*spec.texts, spec.label) if column not in features]
    names = getattr(features.get(spec.label), "names", None)
    if missing:
        problem = f"has no column {missing[0]!r} any more"
    elif names is not None and tuple(names) != spec.labels:
        problem = f"has the classes {', '.join(names)}; they must be {', '.join(spec.labels)}"
    else:
        return
    raise DataError(f"the data of task {spec.name!r} on the hub {problem}; pass --data-dir FOLDER with its files")


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def load_from_hub(official: Official, hub: tuple[str, str]) -> tuple[list[Examples], int]:
    """Training rows, development rows and those of further sets, and how many broken rows were left out.

    They come from the local cache of datasets where it has them, else they are downloaded.

    Raises:
        MissingResource: in one line, within seconds also where there is no network.
        DataError: when the set on the hub is not what it was, or a row of it breaks the format.
    """
    splits = _splits(official)
    parts = [read_split(part, official, split) for part, split in zip(_parts(official, hub), splits, strict=True)]
    check_classes(parts[0][0], official.spec, f"the data of task {official.spec.name!r} on the hub, split {splits[0]},")
    return [examples for examples, _ in parts], sum(count for _, count in parts)


def _parts(official: Official, hub: tuple[str, str]) -> list[datasets.Dataset]:
    _quiet()
    # What fails in there has no common type: the HTTP client, the file system, the builders and datasets itself each
    # raise their own, and datasets passes them all on.
    try:
        with _cache_only():
            return _load(official, hub)
    except Exception as error:
        problem, cause = hub_problem(), error
    if problem is None:
        try:
            return _load(official, hub)
        except Exception as error:
            problem, cause = _first_line(error), error
    files = f"{', '.join(official.files[:-1])} and {official.files[-1]}"
    whose = "SQuAD's" if official.folder is None else "the GLUE"
    raise MissingResource(
        f"the data of task {official.spec.name!r} can't be loaded from the hub: {problem}; pass --data-dir FOLDER with "
        f"{files} as in {whose} download, or run once where the hub can be reached"
    ) from cause
