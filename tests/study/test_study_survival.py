"""Real processes that are killed, terminated, interrupted, started twice, and left without disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from tests.journey import call, chdir, prepare, run_arguments, start

# trials of about a second, so that a signal that follows a finished one falls into the next
SLOW: dict[str, Any] = {"epochs": 6}


def snapshot(folder: Path) -> Any:
    """The study as another process reads it."""
    return snapshot_of(Store(folder / ".farsearch").load("tiny"))


def wait_for(child: subprocess.Popen[str], text: str) -> str:
    """Read the process's stderr up to the line with ``text``. What was read."""
    assert child.stderr is not None
    lines = []
    for line in child.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} is not in: {''.join(lines)}")


def in_a_trial(folder: Path) -> int:
    """Wait until a trial is in work. Its number."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        running = [trial for trial in snapshot(folder).trials if trial.state == "running" and trial.config]
        if running:
            return int(running[0].number)
        time.sleep(0.01)
    raise AssertionError("no trial is in work")


def test_a_study_survives_kill_terminate_and_interrupt(tmp_path: Path, tiny_bert: Path) -> None:
    """Killed, terminated and interrupted in the middle of a trial, the study ends with the asked number of trials.

    None is finished twice, no two configurations are alike, what was cut off is tried again, and the two signals that
    can be heard end with their exit codes and the command that goes on.
    """
    folder = prepare(tmp_path)
    arguments = run_arguments(tiny_bert, 5, **SLOW)
    cut = []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        with start(folder, *arguments) as child:
            before = wait_for(child, "] trial ")
            cut.append(in_a_trial(folder))
            os.killpg(child.pid, number)
            _, err = child.communicate(timeout=60)
        done = snapshot(folder)
        assert "Traceback" not in before + err
        if number == signal.SIGKILL:
            assert child.returncode == -signal.SIGKILL
            assert done.trials[cut[0]].state == "running"
            continue
        assert child.returncode == 128 + number
        assert "interrupted; finished trials are kept. To go on:" in err
        assert f"farsearch run --device jetson-nano --task sst2 --data-dir data --model {tiny_bert}" in err
        assert done.trials[cut[-1]].state == "fail"
        assert [trial.state for trial in done.trials].count("waiting") == 1
    last = call(folder, *arguments)
    assert last.code == 0, last.err
    assert "going on with study tiny: " in last.err
    ended = snapshot(folder)
    finished = [trial for trial in ended.trials if trial.state in ("complete", "pruned")]
    assert len(finished) == 5
    assert len({repr(trial.config) for trial in finished}) == 5
    assert "running" not in {trial.state for trial in ended.trials}
    assert {trial.number for trial in ended.trials if trial.state == "fail"} == set(cut)
    assert {repr(ended.trials[number].config) for number in cut} <= {repr(trial.config) for trial in finished}
    assert not list((folder / ".farsearch" / "studies" / "tiny" / "workers").iterdir())


def test_two_runs_share_one_study(tmp_path: Path, tiny_bert: Path) -> None:
    """Two runs started at once make one study, end with the asked number together, and train nothing twice."""
    folder = prepare(tmp_path)
    children = [start(folder, *run_arguments(tiny_bert, 6)) for _ in range(2)]
    ended = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], ended
    trials = snapshot(folder).trials
    assert [trial.state for trial in trials] == ["complete"] * 6
    assert len({repr(trial.config) for trial in trials}) == 6
    from farsearch.tracking import open_tracking

    with chdir(folder):
        assert open_tracking("sqlite:///mlflow.db").differences(snapshot(folder)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three MiB: a file system in memory, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield folder
    # lazily: this process may still have a lock of the study open
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk of ``folder`` but for ``leave`` bytes. The file that does."""
    free = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - leave))
    return ballast


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk: Path, tmp_path: Path, tiny_bert: Path) -> None:
    """Without room for the journal, or for a trial's tensors, the run ends with 5 and one line.

    What was finished stays readable meanwhile, and with room again the same command goes on.
    """
    folder = prepare(small_disk)
    elsewhere = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
    assert call(folder, *run_arguments(tiny_bert, 1, **elsewhere)).code == 0
    first = snapshot(folder).trials[0]
    for room in (0, 60_000):
        ballast = fill(folder, leave=room)
        done = call(folder, *run_arguments(tiny_bert, 4, **elsewhere))
        assert done.code == 5, done.err
        last = done.err.splitlines()[-1]
        assert last.startswith("farsearch: the disk is full: ")
        assert last.endswith("free some space and run the same command again, finished trials are kept")
        assert "Traceback" not in done.err
        assert call(folder, "status").code == 0
        kept = [trial for trial in snapshot(folder).trials if trial.state == "complete"]
        assert kept[0] == first
        ballast.unlink()
    again = call(folder, *run_arguments(tiny_bert, 4, **elsewhere))
    assert again.code == 0, again.err
    finished = {t.number: repr(t.config) for t in snapshot(folder).trials if t.state == "complete"}
    assert {trial.number for trial in kept} <= set(finished)
    assert len(finished) == len(set(finished.values())) == 4
