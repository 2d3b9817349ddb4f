"""The commands that made a study and resume it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farsearch.records import StudySnapshot
from farsearch.search_spec import FLAGS, RECORDED
from farsearch.tasks.description import name_of, option_words

__all__ = ["made_by", "resume_command"]

_SEVERAL = ("own", "fixed")
"""Recorded settings that are several options."""


def made_by(snapshot: StudySnapshot) -> str | None:
    """Return the command that last ran the study, as typed; None where it is not recorded."""
    command = snapshot.meta.get("command")
    return command if isinstance(command, str) else None


def resume_command(snapshot: StudySnapshot) -> str | None:
    """Return the command that resumes the study, or repeats it elsewhere, with every option of its job.

    Options of the execution (sampler, workers, storage) are not included.

    Returns:
        None where the study was made by a version that did not record the options, or with a task name that only the
        library can give.
    """
    options = snapshot.meta.get("options")
    if not isinstance(options, Mapping):
        return None
    words = ["farsearch", "run"]
    own = options.get("own")
    if own is not None:
        if own.get("file") is None and own["name"] != name_of(Path(own["train"])):
            return None
        words += [*_option("--task", own.get("file")), *option_words(own)]
    for key in RECORDED:
        if key not in _SEVERAL and (key != "task" or own is None):
            words += _option(FLAGS[key], options.get(key))
    for key, value in dict(options.get("fixed") or {}).items():
        words += ["--set", f"{key}={_text(value)}"]
    return shlex.join([*words, "--study", snapshot.name, "--n-trials", str(snapshot.n_trials)])


def _option(flag: str, value: Any) -> list[str]:
    """Return the arguments of an option: none where it is not set, the flag alone for True."""
    if value is None or value is False:
        return []
    return [flag] if value is True else [flag, _text(value)]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
