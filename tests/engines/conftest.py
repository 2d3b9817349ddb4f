"""Bundles of each engine, and rows to train them on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.bundles import ENGINES, make_bundle, write_rows


@pytest.fixture(scope="module", params=ENGINES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of one engine; copies are changed."""
    return make_bundle(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A user's rows."""
    return write_rows(tmp_path / "mine.tsv")
