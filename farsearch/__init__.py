"""farsearch: search how to fine-tune a BERT-like model on a small device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farsearch.api import apply_far, estimate, search, sweep
    from farsearch.jobs import JobOptions
    from farsearch.records import FarConfig

__version__ = "0.1.0"
__all__ = ["FarConfig", "JobOptions", "apply_far", "estimate", "search", "sweep"]

_HOMES = {"FarConfig": "farsearch.records", "JobOptions": "farsearch.jobs"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``farsearch --help`` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'farsearch' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "farsearch.api")), name)
