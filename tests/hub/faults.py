"""Faults between a client and the hub: declared as records, executed by ``server``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "PORTAL",
    "Action",
    "Corrupt",
    "Drop",
    "Fault",
    "Hang",
    "Portal",
    "Refuse",
    "Stall",
    "Status",
    "Trickle",
    "Truncate",
]

PORTAL = b"<html><head><title>Welcome</title></head><body>Log in to use this network</body></html>"


@dataclass(frozen=True)
class Status:
    """Answer with an error status, and with the headers in which the hub gives its reason."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Portal:
    """Answer with the page of a captive portal, status 200."""


@dataclass(frozen=True)
class Refuse:
    """Close the connection without an answer; with a reset, as a firewall does."""

    reset: bool = False


@dataclass(frozen=True)
class Hang:
    """Accept the request and never answer."""


@dataclass(frozen=True)
class Drop:
    """State the full length, send half of the body and close the connection."""

    reset: bool = False


@dataclass(frozen=True)
class Stall:
    """State the full length, send half of the body, then nothing."""


@dataclass(frozen=True)
class Truncate:
    """Send half of the body with a matching length, as a proxy with a truncated file in its cache does."""


@dataclass(frozen=True)
class Corrupt:
    """Invert 64 bytes in the middle of the body."""


@dataclass(frozen=True)
class Trickle:
    """Send the body in pieces, with a pause before each."""

    size: int = 1024
    pause_s: float = 1.0


Action: TypeAlias = Status | Portal | Refuse | Hang | Drop | Stall | Truncate | Corrupt | Trickle


@dataclass(frozen=True)
class Fault:
    """An action for the requests whose ``METHOD path`` matches a regular expression.

    Attributes:
        times: maximum number of affected requests; None for all.
        after: number of matching requests that are answered properly first.
    """

    pattern: str
    action: Action
    times: int | None = None
    after: int = 0

    def meets(self, matched_before: int) -> bool:
        """Return whether it applies to a matching request, given the number of earlier ones."""
        last = None if self.times is None else self.after + self.times
        return matched_before >= self.after and (last is None or matched_before < last)

    def matches(self, line: str) -> bool:
        """Return whether the pattern matches a request line."""
        return re.search(self.pattern, line) is not None
