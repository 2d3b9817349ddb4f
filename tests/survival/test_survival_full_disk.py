"""A disk that fills up while a search writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journey import assert_whole, finished, prepare, process, read_study, run_arguments
from tests.services import SmallDisk


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_full_disk_is_reported_in_one_line_and_loses_nothing(
    small_disk: SmallDisk, tmp_path: Path, tiny_bert: Path, storage: str | None
) -> None:
    """Without any space, or without space for a trial's tensors, the run ends with code 5 and one line.

    Finished trials stay readable meanwhile, and with free space the same command continues.
    """
    seen, mirror = prepare(small_disk.seen), f"sqlite:///{tmp_path}/mlflow.db"

    def run(n_trials: int) -> tuple[int, str]:
        arguments = run_arguments(tiny_bert, n_trials, storage=storage, tracking_uri=mirror)
        # no priming, which would fill the disk first
        done = process(small_disk.folder, *arguments, "--set", "priming_epochs=0", enter=small_disk.enter)
        assert "Traceback" not in done.err
        return done.code, done.err

    code, err = run(1)
    assert code == 0, err
    first = read_study(seen, storage).trials[0]
    errors = []
    for room in (0, 60_000):
        ballast = small_disk.fill(leave=room)
        code, err = run(4)
        assert code == 5, err
        errors.append(err.splitlines()[-1])
        assert errors[-1].startswith("farsearch: the disk is full: ")
        assert errors[-1].endswith("free some space and run the same command again, finished trials are kept")
        snapshot = read_study(seen, storage)
        seen_trials = finished(snapshot)
        assert snapshot.trials[0] == first
        assert set(seen_trials) == {0}
        ballast.unlink()
    assert "trained.safetensors can't be written" in errors[1]
    code, err = run(4)
    assert code == 0, err
    assert seen_trials.items() <= finished(assert_whole(seen, 4, storage, mirror)).items()
