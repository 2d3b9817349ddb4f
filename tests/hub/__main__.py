"""Run the stand-in hub until Ctrl-C, for manual tests: python -m tests.hub."""

from __future__ import annotations

import threading
from contextlib import suppress

from tests.hub.repositories import repositories
from tests.hub.server import Hub

if __name__ == "__main__":
    hub = Hub(repositories())
    print(f"HF_ENDPOINT={hub.endpoint}", flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    hub.stop()
