"""Suggest the name that a user may have meant."""

import difflib
from typing import Any, Iterable

from ..far.display import shown

__all__ = ["did_you_mean"]


def did_you_mean(name: Any, names: Iterable[Any], cutoff: float = 0.6) -> str:
    """Return ``did you mean 'x'?`` with the nearest of ``names``, ignoring case; empty where none is near.

    Args:
        cutoff: similarity from which a name is near, as in ``difflib.get_close_matches``.
    """
    spelt = {str(known).lower(): str(known) for known in names}
    near = difflib.get_close_matches(str(name).lower(), list(spelt), 1, cutoff)
    return "did you mean {}?".format(shown(spelt[near[0]])) if near else ""
