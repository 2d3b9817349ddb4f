"""The rows of a task from the hub, or from the cache that an earlier download left. The only home of datasets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from huggingface_hub.utils.tqdm import disable_progress_bars

from farsearch.errors import MissingResource
from farsearch.hub import hub_problem
from farsearch.tasks.spec import Examples, TaskSpec

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


def _load(spec: TaskSpec, hub: tuple[str, str]) -> tuple[Examples, Examples]:
    train, dev = (
        Examples(tuple(part[spec.text_column][:]), tuple(part[spec.label_column][:]))
        for part in datasets.load_dataset(*hub, split=["train", "validation"])
    )
    return train, dev


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def load_from_hub(spec: TaskSpec, hub: tuple[str, str]) -> tuple[Examples, Examples]:
    """Training and development rows, from the local cache of datasets where it has them, else downloaded.

    Raises:
        MissingResource: in one line, within seconds also where there is no network.
    """
    _quiet()
    # What fails in there has no common type: the HTTP client, the file system, the builders and datasets itself each
    # raise their own, and datasets passes them all on.
    try:
        with _cache_only():
            return _load(spec, hub)
    except Exception as error:
        problem, cause = hub_problem(), error
    if problem is None:
        try:
            return _load(spec, hub)
        except Exception as error:
            problem, cause = _first_line(error), error
    raise MissingResource(
        f"the data of task {spec.name!r} can't be loaded from the hub: {problem}; pass --data-dir FOLDER with "
        "train.tsv and dev.tsv as in the GLUE download, or run once where the hub can be reached"
    ) from cause
