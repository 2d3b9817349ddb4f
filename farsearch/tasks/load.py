"""Load the rows of an official task from a folder, the package, or the hub."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from farsearch.errors import MissingResource
from farsearch.far.display import PATH, shown
from farsearch.tasks.data import Examples, TaskData
from farsearch.tasks.files import check_classes, parse_official, parse_undivided, read_bytes, read_examples
from farsearch.tasks.layouts import Official
from farsearch.tasks.official import OFFICIAL
from farsearch.tasks.spec import get_task

__all__ = ["load_task", "read_examples"]


def _in_words(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _files_in(folder: Path, official: Official) -> tuple[str, ...]:
    """The files of a task to read from a folder: without its training file, that with all rows."""
    undivided = official.undivided
    if undivided is None or (folder / official.train).exists() or not (folder / undivided.name).exists():
        return official.files
    return undivided.name, undivided.dev_ids


def _folder_of(data_dir: Path, official: Official) -> Path:
    """The folder of the task's files: ``data_dir``, or its subfolder of the GLUE download."""
    needed = _in_words(official.files)
    if not data_dir.is_dir():
        raise MissingResource(
            f"the data folder {shown(str(data_dir), PATH)} does not exist; pass `data_dir` a folder with {needed}"
        )
    folder = data_dir.resolve()
    inner = folder / official.folder if official.folder else folder
    chosen = inner if not (folder / _files_in(folder, official)[0]).exists() and inner.is_dir() else folder
    missing = [name for name in _files_in(chosen, official) if not (chosen / name).is_file()]
    if missing:
        parent = f", or its parent with {official.folder} in it" if official.folder else ""
        raise MissingResource(
            f"no {missing[0]} in the folder {shown(str(data_dir), PATH)}; task {shown(official.spec.name)} "
            f"needs {needed}: "
            f"pass `data_dir` the folder that holds {'both' if len(official.files) == 2 else 'them'}{parent}"
        )
    return chosen


def load_task(
    name: str,
    data_dir: Path | None = None,
    revision: str | None = None,
    note: Callable[[str], None] | None = None,
) -> TaskData:
    """Return the rows of a task.

    Args:
        data_dir: folder with the task's files as in their official download, or its parent. None loads the embedded
            sample or the hub's data.
        revision: commit of the data set on the hub; None for the latest.
        note: called with a line on what takes long.

    Raises:
        BadInput: for an unknown task.
        DataError: for an invalid row; the message names file, line, rule and suggestion.
        MissingResource: when folder, file or hub can't be read.
    """
    spec = get_task(name)
    official = OFFICIAL[spec.name]
    if data_dir is not None:
        return _from_folder(_folder_of(data_dir, official), official)
    if spec.hub is None:
        sample = resources.files("farsearch.tasks") / spec.name
        train, dev = (
            parse_official((sample / name).read_bytes(), name, official)[0] for name in (official.train, official.dev)
        )
        return TaskData(spec, train, dev, "embedded sample")
    # datasets takes a second to import
    from farsearch.tasks.from_hub import load_from_hub

    (train, dev, *others), left_out, commit = load_from_hub(official, spec.hub, revision, note)
    more = dict(zip(official.more_dev, others, strict=True))
    return TaskData(spec, train, dev, _source(f"hub {_hub_name(spec.hub)}", left_out), more, commit)


def _from_folder(folder: Path, official: Official) -> TaskData:
    files, undivided = _files_in(folder, official), official.undivided
    if undivided is not None and files != official.files:
        rows, dev_ids = (read_bytes(folder / name) for name in files)
        train, dev = parse_undivided(rows, dev_ids, official, undivided)
        others: list[Examples] = []
        left_out = 0
    else:
        read = [parse_official(read_bytes(folder / name), name, official) for name in files]
        (train, dev, *others), left_out = [examples for examples, _ in read], sum(count for _, count in read)
    check_classes(train, official.spec, files[0])
    more = dict(zip(official.more_dev, others, strict=True))
    return TaskData(official.spec, train, dev, _source(f"files in {folder.name}", left_out), more)


def _hub_name(hub: tuple[str, str]) -> str:
    """The usual name of a data set: ``glue/sst2``, or ``squad`` without configurations."""
    name, configuration = hub[0].rsplit("/")[-1], hub[1]
    return f"{name}/{configuration}" if name == "glue" else name


def _source(where: str, left_out: int) -> str:
    return f"{where}, {left_out} broken row{'s' * (left_out != 1)} left out" if left_out else where
