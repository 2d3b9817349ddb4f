"""The HTTP client for the hub, and its time limits.

huggingface_hub retries failed requests with growing pauses for up to a few minutes. Here ``Patience`` limits every
request and ends an operation without progress for ``PATIENCE_S`` seconds.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import hf_request_event_hook  # refuses requests where HF_HUB_OFFLINE is set

__all__ = ["PATIENCE_S", "Busy", "Patience", "Silent", "hub_problem", "patience"]

PATIENCE_S = 12.0
"""An operation ends after so long without progress."""

_REQUEST_S = 6.0
"""A request is aborted, and possibly retried, after so long without data."""

_REFUSED_S = 3.0
"""A hub that refuses connections, or only answers with errors, is abandoned at the first retry after so long."""

_PROGRESS_BYTES = 256 * 1024
"""So much data counts as progress; less could be the same few bytes repeatedly."""

_FIRST_ERROR = 500
_PASSING = frozenset({429, 500, 502, 503, 504})
"""Status codes after which a request is retried once, after a pause."""
_PAUSE_S = 0.5


class Silent(Exception):
    """The hub sent nothing for ``PATIENCE_S`` seconds."""


class Busy(Exception):
    """The hub only answers with errors, or asks for a longer wait than an operation allows.

    Attributes:
        status: status code of its last answer.
        wait_s: requested wait in seconds; None if unspecified.
    """

    def __init__(self, status: int, wait_s: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.wait_s = status, wait_s


class Patience:
    """State of the current operation: time of the last progress, and the last failure."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Start an operation."""
        with self._lock:
            self._since, self._bytes = time.monotonic(), 0
            self.answered = False
            self.problem: Exception | None = None

    def received(self, count: int) -> None:
        """Count bytes of a file that arrived."""
        with self._lock:
            self._bytes += count
            if self._bytes >= _PROGRESS_BYTES:
                self._since, self._bytes = time.monotonic(), 0

    def request_timeout_s(self) -> float:
        """Return the time limit of the next request.

        Raises:
            Silent: when no time is left.
        """
        left = PATIENCE_S - (time.monotonic() - self._since)
        if left < 0.5:
            raise Silent(f"nothing came for {PATIENCE_S:.0f} s") from self.problem
        return min(_REQUEST_S, left)

    def failed(self, error: Exception) -> None:
        """Record a request without an answer.

        Raises:
            Silent: when a retry is pointless.
        """
        with self._lock:
            self.problem = error
        if isinstance(error, httpx2.ConnectError) and time.monotonic() - self._since > _REFUSED_S:
            raise Silent("no connection") from error

    def check(self, response: httpx2.Response) -> None:
        """Record an answer.

        Raises:
            Busy: for an error that will not pass in time.
        """
        waited = time.monotonic() - self._since
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            wait_s = _retry_after(response)
            if waited + (wait_s or 0.0) > _REFUSED_S:
                raise Busy(response.status_code, wait_s)
        elif response.status_code >= _FIRST_ERROR:
            if waited > _REFUSED_S:
                raise Busy(response.status_code, None)
        else:
            self.answered = True


def _retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


patience = Patience()
"""Of this process, as huggingface_hub has one client per process."""


class _Body(httpx2.SyncByteStream):
    """The body of an answer, counted as it arrives, and aborted without progress.

    huggingface_hub itself counts pieces of 10 MiB, which take minutes on a slow connection.
    """

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._stream:
                patience.received(len(piece))
                patience.request_timeout_s()
                yield piece
        except httpx2.ReadError as error:
            # huggingface_hub resumes a download after a time-out, but not after a reset
            patience.failed(error)
            raise httpx2.ReadTimeout(str(error)) from error

    def close(self) -> None:
        self._stream.close()


class _PatientClient(httpx2.Client):
    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request within the time limit; retry once after a transient failure."""
        response = self._sent(request, **options)
        if response is None or response.status_code in _PASSING:
            wait_s = None if response is None else _retry_after(response)
            if response is not None:
                response.close()
            time.sleep(max(wait_s or 0.0, _PAUSE_S))
            response = self._sent(request, again=True, **options)
        assert response is not None, "the second failure is raised"
        if not stream:
            response.read()
        return response

    def _sent(self, request: httpx2.Request, again: bool = False, **options: Any) -> httpx2.Response | None:
        """Return the answer; None if the connection broke before one came, unless it is a retry (``again``)."""
        seconds = patience.request_timeout_s()
        given = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            name: min(seconds, given.get(name) or seconds) for name in ("connect", "read", "write", "pool")
        }
        try:
            response = super().send(request, stream=True, **options)
        except httpx2.HTTPError as error:
            patience.failed(error)
            if again or not isinstance(error, httpx2.ReadError | httpx2.RemoteProtocolError):
                raise
            return None
        patience.check(response)
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Body(response.stream)
        return response


def _client() -> httpx2.Client:
    return _PatientClient(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True)


set_client_factory(_client)
# Plain HTTP reaches every file through the hub's own redirect; xet asks further hosts, which closed networks block.
constants.HF_HUB_DISABLE_XET = True
constants.HF_HUB_DISABLE_TELEMETRY = True


@cache
def hub_problem(timeout_s: float = 5.0) -> str | None:
    """Return why the hub can't be used, or None when it answers. Checked once per process."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return None  # any answer will do
    except OSError as error:
        return f"the hub at {constants.ENDPOINT} can't be reached ({getattr(error, 'reason', error)})"
    return None
