"""All repositories of the stand-in hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tests.hub.dataset_files import NAMES, dataset_files
from tests.hub.model_files import hub_name, known_names, model_files
from tests.hub.repository import Kind

__all__ = ["repositories"]


@cache
def repositories() -> Mapping[tuple[Kind, str], Mapping[str, bytes]]:
    """Every known model and every data set of an official task, made once a process."""
    found: dict[tuple[Kind, str], Mapping[str, bytes]] = {}
    for known in known_names():
        found["models", hub_name(known)] = model_files(known)
    for name in NAMES:
        found["datasets", name] = dataset_files(name)
    return found
