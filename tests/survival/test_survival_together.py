"""Concurrent processes on one study."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from farsearch.records import flat
from tests.journey import assert_whole, prepare, run_arguments, watch


@pytest.mark.slow
def test_two_runs_share_one_study(tmp_path: Path, tiny_bert: Path, storage: str | None) -> None:
    """Two runs started at once create one study, reach the given total together, and repeat no training."""
    folder = prepare(tmp_path)
    arguments = run_arguments(tiny_bert, 6, storage=storage)
    with ExitStack() as stack:
        runs = [stack.enter_context(watch(folder, *arguments)) for _ in range(2)]
        ended = [run.end() for run in runs]
    assert [done.code for done in ended] == [0, 0], ended
    snapshot = assert_whole(folder, 6, storage)
    assert [flat(trial).state for trial in snapshot.trials] == ["complete"] * 6
