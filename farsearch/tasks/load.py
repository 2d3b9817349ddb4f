"""The rows of a task: from a folder, from the package, or from the hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from farsearch.errors import MissingResource
from farsearch.tasks.files import parse_task, read_bytes, read_examples
from farsearch.tasks.spec import TaskData, TaskSpec, get_task

__all__ = ["load_task", "read_examples"]


def _folder_of(data_dir: Path, spec: TaskSpec) -> Path:
    """The folder that holds the task's two files: ``data_dir``, or the one of the GLUE download in it."""
    if not data_dir.is_dir():
        raise MissingResource(
            f"the data folder {str(data_dir)!r} does not exist; pass --data-dir a folder with train.tsv and dev.tsv"
        )
    folder = data_dir.resolve()
    inner = folder / spec.folder if spec.folder else folder
    found = inner if not (folder / "train.tsv").exists() and inner.is_dir() else folder
    missing = [name for name in ("train.tsv", "dev.tsv") if not (found / name).is_file()]
    if missing:
        parent = f", or its parent with {spec.folder} in it" if spec.folder else ""
        raise MissingResource(
            f"no {missing[0]} in the folder {str(data_dir)!r}; task {spec.name!r} needs train.tsv and dev.tsv: "
            f"pass --data-dir the folder that holds both{parent}"
        )
    return found


def load_task(name: str, data_dir: Path | None = None) -> TaskData:
    """The rows of a task.

    Args:
        data_dir: folder with ``train.tsv`` and ``dev.tsv`` in the layout of the GLUE download, or the folder above it.
            None takes the sample of the package, or the hub (its local cache first).

    Raises:
        BadInput: for an unknown task.
        DataError: for a malformed row; the message names file, line, rule and mend.
        MissingResource: when folder, file or hub can't be read.
    """
    spec = get_task(name)
    if data_dir is not None:
        folder = _folder_of(data_dir, spec)
        train, dev = parse_task(read_bytes(folder / "train.tsv"), read_bytes(folder / "dev.tsv"), spec)
        return TaskData(spec, train, dev, f"files in {folder.name}")
    if spec.hub is None:
        sample = resources.files("farsearch.tasks") / spec.name
        train, dev = parse_task((sample / "train.tsv").read_bytes(), (sample / "dev.tsv").read_bytes(), spec)
        return TaskData(spec, train, dev, "embedded sample")
    # Imported where it is used: datasets takes a second, and files need none of it.
    from farsearch.tasks.from_hub import load_from_hub

    train, dev = load_from_hub(spec, spec.hub)
    return TaskData(spec, train, dev, f"hub {spec.hub[0].rsplit('/')[-1]}/{spec.hub[1]}")
