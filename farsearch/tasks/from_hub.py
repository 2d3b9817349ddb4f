"""The rows of a task from the hub, or from the cache that an earlier download left. The only home of datasets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np

from farsearch.errors import DataError, MissingResource
from farsearch.hub import Repository, fetch
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
    """Keep progress bars and warnings of datasets off stderr: it belongs to farsearch's own lines."""
    logging.getLogger("datasets").setLevel(logging.ERROR)
    datasets.disable_progress_bars()


def _load(official: Official, path: str, configuration: str) -> list[datasets.Dataset]:
    splits = ["train", official.hub_dev, *(official.hub_more_dev[name] for name in official.more_dev)]
    return list(datasets.load_dataset(path, configuration, split=splits))


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


def load_from_hub(
    official: Official,
    hub: tuple[str, str],
    revision: str | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[list[Examples], int, str | None]:
    """Return training rows, development rows and those of further sets, how many broken rows were left out, the commit.

    The files come from the hub's cache where it has them, else they are downloaded. Where the hub can't be reached, an
    older cache of datasets serves too; which commit that is of is not known, and None is returned for it.

    Args:
        hub: name and configuration of the data set.
        revision: commit; None for the latest.
        note: receives a line about what takes long.

    Raises:
        MissingResource: in one line, within seconds also where there is no network.
        UnknownRevision: when the commit is gone.
        DataError: when the set on the hub is not what it was.
    """
    parts, commit = _parts(official, Repository("dataset", hub[0], revision), hub[1], note)
    examples = [_examples(part, official) for part in parts]
    return [rows for rows, _ in examples], sum(count for _, count in examples), commit


def _parts(
    official: Official, repository: Repository, configuration: str, note: Callable[[str], None] | None
) -> tuple[list[datasets.Dataset], str | None]:
    _quiet()
    try:
        snapshot = fetch(repository, ("README.md", f"{configuration}/*.parquet"), note)
    except MissingResource as error:
        cached = _from_datasets_cache(official, repository, configuration)
        if cached is None:
            raise MissingResource(f"{error}; {_instead(official)}") from error
        return cached, None
    # What fails in there has no common type: the file system, the builders and datasets itself each raise their own.
    try:
        with _cache_only():
            return _load(official, str(snapshot.folder), configuration), snapshot.commit
    except Exception as error:
        raise MissingResource(
            f"the data set {repository.name!r} on the hub can't be read: {_first_line(error)}; {_instead(official)}"
        ) from error


def _from_datasets_cache(
    official: Official, repository: Repository, configuration: str
) -> list[datasets.Dataset] | None:
    """Return what ``datasets.load_dataset`` of the hub's name cached once; None where it did not."""
    if repository.revision is not None:
        return None
    try:
        with _cache_only():
            return _load(official, repository.name, configuration)
    except Exception:  # as in _parts; that nothing is cached is one of them
        return None


def _instead(official: Official) -> str:
    files = f"{', '.join(official.files[:-1])} and {official.files[-1]}"
    whose = "SQuAD's" if official.folder is None else "the GLUE"
    return f"pass --data-dir FOLDER with {files} as in {whose} download, or run once where the hub can be reached"
