"""Explain errors of the hub, the network and the disk in one line with a suggestion."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from farsearch.hub.client import PATIENCE_S, Busy, Silent

__all__ = ["problem_of"]

_ADVICE = {
    401: "the hub refuses the token; set HF_TOKEN to a valid one, or unset it",
    403: "the hub refuses access; set HF_TOKEN to the token of an account that has it",
}


def problem_of(error: BaseException, page: str) -> str:
    """Return a message for an error of huggingface_hub, its HTTP client or the disk.

    Args:
        page: address of the repository's page.
    """
    chain = list(_chain(error))
    for cause in chain:
        text = _of_hub(cause, page)
        if text is not None:
            return text
    for cause in reversed(chain):  # the first cause is the most specific
        text = _of_network(cause)
        if text is not None:
            return text
    first = next((line for line in str(chain[0]).splitlines() if line.strip()), type(chain[0]).__name__)
    return f"the hub at {constants.ENDPOINT}: {first.strip()[:160]}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of_hub(error: BaseException, page: str) -> str | None:
    """Return the message for an error that the hub reported, else None."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, Busy):
        wait = f" and asks to wait {error.wait_s:.0f} s" if error.wait_s is not None else ""
        return f"the hub at {constants.ENDPOINT} answers {_status(error.status)}{wait}; try again later"
    if isinstance(error, GatedRepoError):
        return f"access must be asked for at {page}; then set HF_TOKEN to your token"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no {page}, or it is private; check the name, or set HF_TOKEN to a token that may read it"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = _ADVICE.get(status, "try again later")
        return f"{page} answers {_status(status)}: {advice}"
    if isinstance(error, FileMetadataError | json.JSONDecodeError):
        return (
            f"what answers at {constants.ENDPOINT} is no hub (the login page of a network, a proxy?); open it in a "
            "browser, or check HF_ENDPOINT"
        )
    return None


def _of_network(error: BaseException) -> str | None:
    """Return the message for an error of the network, the client or the disk, else None."""
    hub = f"the hub at {constants.ENDPOINT}"
    if isinstance(error, Silent | httpx2.TimeoutException):
        return f"{hub} has sent nothing, or next to nothing, for {PATIENCE_S:.0f} s; check the network and try again"
    if isinstance(error, httpx2.ProxyError):
        return f"the proxy on the way to {hub} refuses ({_first_line(error)}); check HTTPS_PROXY"
    if isinstance(error, httpx2.HTTPError):
        return f"{hub} can't be reached ({_first_line(error)})"
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return f"a file from {hub} arrived with another size than announced; try again"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of the cache {constants.HF_HUB_CACHE} is full; free some space, or set HF_HOME to another disk"
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"the cache {constants.HF_HUB_CACHE} can't be written ({error.strerror}); set HF_HOME to a folder of yours"
        )
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _status(code: int) -> str:
    """Return ``503 Service Unavailable`` for 503."""
    try:
        return f"{code} {httpx2.codes(code).phrase}".strip()
    except ValueError:
        return str(code)
