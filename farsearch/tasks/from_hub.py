"""The rows of a task from the hub, or from the cache that an earlier download left. The only home of datasets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
from huggingface_hub.utils.tqdm import disable_progress_bars

from farsearch.errors import DataError, MissingResource
from farsearch.hub import hub_problem
from farsearch.tasks.data import Examples, Kind, TaskSpec
from farsearch.tasks.layouts import Official

__all__ = ["load_from_hub"]


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


def _load(official: Official, hub: tuple[str, str]) -> list[datasets.Dataset]:
    splits = ["train", official.hub_dev, *(official.hub_more_dev[name] for name in official.more_dev)]
    return list(datasets.load_dataset(*hub, split=splits))


def _score(value: float) -> float:
    """The hub keeps scores in 32 bits: the shortest number that is the same in 32 bits is that of the official file."""
    return float(str(np.float32(value)))


_ANSWERS: dict[Kind, Callable[[Any], Any]] = {
    "classification": int,
    "regression": _score,
    "question-answering": lambda found: tuple(zip(found["text"], found["answer_start"], strict=True)),
}
"""From what a row of the hub has to the answer of an example."""


def _examples(part: datasets.Dataset, official: Official) -> tuple[Examples, int]:
    """The rows of a part, and how many were left out because they have no text."""
    spec = official.spec
    _check_features(part.features, spec)
    texts = list(zip(*(part[column][:] for column in spec.texts), strict=True))
    answers = map(_ANSWERS[spec.kind], part[spec.label][:])
    rows = list(zip(texts, answers, strict=True))
    if official.table is not None and official.table.broken:
        rows = [(words, answer) for words, answer in rows if all(word.strip() for word in words)]
    return Examples(tuple(words for words, _ in rows), tuple(answer for _, answer in rows)), len(texts) - len(rows)


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
        DataError: when the set on the hub is not what it was.
    """
    parts = [_examples(part, official) for part in _parts(official, hub)]
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
