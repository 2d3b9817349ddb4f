"""How a study was made, and how it goes on: as commands. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from farsearch.records import StudySnapshot

__all__ = ["made_by", "resume_command"]

_FLAGS = {
    "device": "--device",
    "task": "--task",
    "model": "--model",
    "data_dir": "--data-dir",
    "space": "--space",
    "train_samples": "--train-samples",
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "max_length": "--max-length",
    "seed": "--seed",
    "max_memory_mib": "--max-memory",
    "max_time_s": "--max-time",
    "device_samples": "--device-samples",
    "prime_on": "--prime-on",
    "plan": "--plan",
    "revision": "--revision",
    "allow_pickle": "--allow-pickle",
    "keep_head": "--keep-head",
}
"""Options of ``run`` by what the study keeps of them."""

_OWN_FLAGS = {"text_columns": "--text-column", "label_columns": "--label-column"}
"""Those of the user's own data that are not called as what is kept of them."""

_IN_FILE = ("name", "labels", "licence", "title", "file")
"""What only a file that describes the task says, and the file."""


def made_by(snapshot: StudySnapshot) -> str | None:
    """The command that the study was last run with, as it was typed; None where the study does not say."""
    command = snapshot.meta.get("command")
    return command if isinstance(command, str) else None


def resume_command(snapshot: StudySnapshot) -> str | None:
    """The command that goes on with the study, with every option of its job spelt out, or repeats it elsewhere.

    What says how the search is carried out and not what is searched (sampler, workers, storage) is not in it.

    Returns:
        None where another version made the study and did not keep its options.
    """
    options = snapshot.meta.get("options")
    if not isinstance(options, Mapping):
        return None
    words = ["farsearch", "run"]
    own = options.get("own")
    for key, flag in _FLAGS.items():
        if key != "task" or own is None:
            words += _option(flag, options.get(key))
    words += _own_options(own) if isinstance(own, Mapping) else []
    for key, value in dict(options.get("fixed") or {}).items():
        words += ["--set", f"{key}={_text(value)}"]
    return shlex.join([*words, "--study", snapshot.name, "--n-trials", str(snapshot.n_trials)])


def _own_options(own: Mapping[str, Any]) -> list[str]:
    """The user's own data, as options: the file that describes the task where there is one, and all that was found."""
    words = _option("--task", own.get("file"))
    for key, value in own.items():
        if key == "columns" and value is not None:
            words += ["--columns", ",".join(value)]
        elif key not in _IN_FILE:
            words += _option(_OWN_FLAGS.get(key, f"--{key.replace('_', '-')}"), value)
    return words


def _option(flag: str, value: Any) -> list[str]:
    """An option as words: none where nothing was said, a flag alone, or one for each of several values."""
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    return [word for each in (value if isinstance(value, list | tuple) else [value]) for word in (flag, _text(each))]


def _text(value: Any) -> str:
    """As the command line reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
