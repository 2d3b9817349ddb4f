"""The known tasks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.runtime.near_names import did_you_mean
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec
from farsearch.tasks.official import OFFICIAL

__all__ = ["TASKS", "Examples", "Kind", "TaskData", "TaskSpec", "get_task", "study_task"]

TASKS: Mapping[str, TaskSpec] = MappingProxyType({name: official.spec for name, official in OFFICIAL.items()})
"""The tasks by name."""


def get_task(name: str) -> TaskSpec:
    """Return the task of a name.

    Raises:
        BadInput: for an unknown name; the message lists the known ones.
    """
    if name in TASKS:
        return TASKS[name]
    hint = did_you_mean(name.replace("-", ""), TASKS)
    raise BadInput(
        f"the task {shown(name)} is unknown; it must be one of {', '.join(sorted(TASKS))}{hint and '; ' + hint}"
    )


def study_task(meta: Mapping[str, Any], name: str) -> TaskSpec:
    """Return the task of a study, as it is stored there; older studies store only its name.

    Args:
        meta: metadata of the study.
        name: name of the task.
    """
    stored = meta.get("task")
    return get_task(name) if stored is None else TaskSpec.from_dict(stored)
