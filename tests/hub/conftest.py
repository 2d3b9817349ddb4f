from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.server import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A running stand-in hub with every known model and every official data set, without faults."""
    from tests.hub.repositories import repositories

    running = Hub(repositories())
    yield running
    running.stop()
