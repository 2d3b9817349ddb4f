"""farsearch: search how to fine-tune a BERT-like model on a small device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farsearch.api import estimate, search, sweep
    from farsearch.records import FarConfig
    from farsearch.search_spec import JobOptions
    from farsearch.tuning import (
        PrimingResult,
        Selection,
        apply_far,
        merge,
        prime,
        prime_with,
        random_learners,
        select_learners,
    )

__version__ = "0.1.0"
__all__ = [
    "FarConfig",
    "JobOptions",
    "PrimingResult",
    "Selection",
    "apply_far",
    "estimate",
    "merge",
    "prime",
    "prime_with",
    "random_learners",
    "search",
    "select_learners",
    "sweep",
]

_HOMES = {
    "FarConfig": "farsearch.records",
    "JobOptions": "farsearch.search_spec",
    "estimate": "farsearch.api",
    "search": "farsearch.api",
    "sweep": "farsearch.api",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``farsearch --help`` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'farsearch' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "farsearch.tuning")), name)
