"""farsearch: search how to fine-tune a BERT-like model on a small device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farsearch.api.estimate import RankedDevice, estimate, largest_batch, rank_devices, sweep
    from farsearch.api.study import Study
    from farsearch.api.workspace import Workspace, open_study, search
    from farsearch.records import FarConfig
    from farsearch.search_spec import SearchSpec
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
    "PrimingResult",
    "RankedDevice",
    "SearchSpec",
    "Selection",
    "Study",
    "Workspace",
    "apply_far",
    "estimate",
    "largest_batch",
    "merge",
    "open_study",
    "prime",
    "prime_with",
    "random_learners",
    "rank_devices",
    "search",
    "select_learners",
    "sweep",
]

_MODULES = {
    "FarConfig": "farsearch.records",
    "RankedDevice": "farsearch.api.estimate",
    "SearchSpec": "farsearch.search_spec",
    "Study": "farsearch.api.study",
    "Workspace": "farsearch.api.workspace",
    "estimate": "farsearch.api.estimate",
    "largest_batch": "farsearch.api.estimate",
    "open_study": "farsearch.api.workspace",
    "rank_devices": "farsearch.api.estimate",
    "search": "farsearch.api.workspace",
    "sweep": "farsearch.api.estimate",
}


def __getattr__(name: str) -> Any:
    """Import a public name at first use: ``farsearch --help`` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'farsearch' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES.get(name, "farsearch.tuning")), name)


def __dir__() -> list[str]:
    """List the public names for completion."""
    return [*globals(), *__all__]
