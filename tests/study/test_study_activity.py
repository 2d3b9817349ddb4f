"""What processes train now, as others on this host read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from farsearch.study.activity import Activity, activities, recorded


def _ignore(step: int, steps: int, loss: float) -> None:
    """Do nothing with a step."""


def test_a_training_is_seen_from_its_begin_to_its_end(tmp_path: Path) -> None:
    """Its phase follows from its steps, which are passed on."""
    steps: list[int] = []
    with recorded(
        tmp_path, "trial 5", lambda step, *_: steps.append(step), number=5, priming_epochs=0.5, epochs=2.0
    ) as on_step:  # fmt: skip
        (begun,) = activities(tmp_path)
        on_step(40, 40, 0.25)
        (ended,) = activities(tmp_path)
    assert (begun.title, begun.number, begun.phase, begun.epoch, begun.loss) == ("trial 5", 5, "priming", 0.0, None)
    assert (ended.phase, ended.epoch, ended.loss, ended.pid) == ("evaluating", 2.0, 0.25, os.getpid())
    assert begun.started == ended.started <= ended.seen
    assert steps == [40]
    assert activities(tmp_path) == []


def test_steps_are_recorded_once_a_second_at_most(tmp_path: Path) -> None:
    with recorded(tmp_path, "LoRA r=8, rate 5.0e-04", _ignore, epochs=1.0) as on_step:
        for step in range(1, 40):
            on_step(step, 1000, 0.5)
        (one,) = activities(tmp_path)
    assert (one.step, one.phase) == (0, "preparing")


def test_a_killed_process_trains_nothing(tmp_path: Path) -> None:
    """Nor does a damaged record show anything; the next training removes both."""
    with recorded(tmp_path, "trial 1", _ignore, epochs=1.0):
        (path,) = (tmp_path / "workers").glob("*.json")
        left = json.loads(path.read_text())
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        path.with_name(path.name.replace(str(os.getpid()), str(dead.pid))).write_text(
            json.dumps({**left, "pid": dead.pid})
        )
        path.with_name(path.name.replace(str(os.getpid()), "0")).write_text('{"title": ')
        assert [one.pid for one in activities(tmp_path)] == [os.getpid()]
    with recorded(tmp_path, "trial 2", _ignore, epochs=1.0):
        assert len(list((tmp_path / "workers").iterdir())) == 1


def test_a_record_that_can_not_be_written_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("not a folder")
    with recorded(tmp_path, "trial 1", _ignore, epochs=1.0) as on_step:
        on_step(1, 1, 0.5)
        assert activities(tmp_path) == []


def test_the_phase_between_first_and_last_step_is_training() -> None:
    one = Activity("trial 1", 1, 0.0, 3.0, pid=1, started=0.0, seen=0.0, step=10, steps=40, loss=0.5)
    assert (one.phase, one.epoch) == ("training", 0.75)
