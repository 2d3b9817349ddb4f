"""All repositories of the stand-in hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from farsearch.models.source import known_models
from tests.hub.dataset_files import NAMES, dataset_files
from tests.hub.model_files import hub_name, model_files
from tests.hub.repository import Kind

__all__ = ["repositories"]


@cache
def repositories() -> Mapping[tuple[Kind, str], Mapping[str, bytes]]:
    """Every known model and every data set of an official task, cached per process."""
    found: dict[tuple[Kind, str], Mapping[str, bytes]] = {}
    for known in known_models():
        found["models", hub_name(known)] = model_files(known)
    for name in NAMES:
        found["datasets", name] = dataset_files(name)
    return found
