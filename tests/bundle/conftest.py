"""Shared fixtures of the bundle tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journey import call


@pytest.fixture(scope="module")
def bundle(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the most accurate trial, under a plan that changes all modules. Copy it before changing it."""
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    done = call(finished_study, "export", "--prefer", "accuracy", "--plan", "recompute", "--out", out)
    assert done.code == 0, done.err
    return out
