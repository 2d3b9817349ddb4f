"""How a study was made, and how it goes on: as commands. Pure."""

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
    """The command that the study was last run with, as it was typed; None where the study does not say."""
    command = snapshot.meta.get("command")
    return command if isinstance(command, str) else None


def resume_command(snapshot: StudySnapshot) -> str | None:
    """The command that goes on with the study, with every option of its job spelt out, or repeats it elsewhere.

    What says how the search is carried out and not what is searched (sampler, workers, storage) is not in it.

    Returns:
        None where another version made the study and did not keep its options, and where nothing but a program says the
        name of the user's own task.
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
    """An option as words: none where nothing was said, and a flag alone where it was set."""
    if value is None or value is False:
        return []
    return [flag] if value is True else [flag, _text(value)]


def _text(value: Any) -> str:
    """As the command line reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
