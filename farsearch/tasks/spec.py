"""The tasks that farsearch knows, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from farsearch.errors import BadInput
from farsearch.far.board.near_names import did_you_mean
from farsearch.far.display import shown
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec
from farsearch.tasks.official import OFFICIAL

__all__ = ["TASKS", "Examples", "Kind", "TaskData", "TaskSpec", "get_task", "study_task"]

TASKS: Mapping[str, TaskSpec] = MappingProxyType({name: official.spec for name, official in OFFICIAL.items()})
"""The tasks by name."""


def get_task(name: str) -> TaskSpec:
    """The task of that name.

    Raises:
        BadInput: when there is none; the message names those there are.
    """
    if name in TASKS:
        return TASKS[name]
    hint = did_you_mean(name.replace("-", ""), TASKS)
    raise BadInput(
        f"the task {shown(name)} is unknown; it must be one of {', '.join(sorted(TASKS))}{hint and '; ' + hint}"
    )


def study_task(meta: Mapping[str, Any], name: str) -> TaskSpec:
    """The task of a study: as the study keeps it, for a user may have described it; in older ones by its name.

    Args:
        meta: what the study says of itself.
        name: of the task.
    """
    said = meta.get("task")
    return get_task(name) if said is None else TaskSpec.from_dict(said)
