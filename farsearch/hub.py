"""Whether the Hugging Face hub can be reached: asked once, answered within seconds.

The hub's own clients retry for half a minute before they say so.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from functools import cache

from huggingface_hub import constants

__all__ = ["hub_problem"]


@cache
def hub_problem(timeout_s: float = 5.0) -> str | None:
    """Why the hub can't be used, in a few words, or None when it answers."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return None  # it answered; what it thinks of the bare address does not matter
    except OSError as error:
        return f"the hub at {constants.ENDPOINT} can't be reached ({getattr(error, 'reason', error)})"
    return None
