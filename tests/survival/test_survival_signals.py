"""Ctrl-C and SIGTERM, at every stage of a search."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest
from optuna.study import Study
from optuna.trial import TrialState

from farsearch.records import flat
from farsearch.study.store import Store
from tests.journey import SPACE, Watched, assert_whole, call, finished, prepare, read_study, run_arguments, until, watch

HINT = "interrupted; finished trials are stored. To resume:\n"


@dataclass(frozen=True)
class Scene:
    """A running search, as seen from outside."""

    folder: Path
    study: Study
    run: Watched

    @property
    def primes(self) -> bool:
        """Return whether the last line is that of a priming."""
        return self.run.err.rstrip().endswith("cached for all trials")

    def at_work(self, priced: bool) -> bool:
        """Return whether a trial is running, priced or not."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return any(("record" in trial.user_attrs) == priced for trial in trials)

    def saved(self, name: str) -> bool:
        """Return whether the running trial has written this file."""
        written = sorted((self.folder / ".farsearch" / "studies" / "tiny" / "trials").glob(f"*/{name}"))
        if not written:
            return False
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return int(written[-1].parent.name) in {trial.number for trial in trials}

    @property
    def catches_sigterm(self) -> bool:
        """Return whether the command line has begun: before that, a signal has its default action."""
        status = Path(f"/proc/{self.run.child.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    @property
    def mirrors(self) -> bool:
        """Return whether a trial was recorded and MLflow's database is being written."""
        if "] trial " not in self.run.err:
            return False
        try:
            filelock.FileLock(self.folder / "mlflow.db.lock").acquire(timeout=0).lock.release()
        except filelock.Timeout:
            return True
        return False


STAGES: dict[str, Callable[[Scene], bool]] = {
    "imports": lambda scene: scene.catches_sigterm,
    "start-up": lambda scene: "this host: " not in scene.run.err and "study tiny: " in scene.run.err,
    "proposal": lambda scene: scene.at_work(priced=False),
    "priming": lambda scene: scene.primes,
    # of a second trial, which finds its priming in the cache
    "training": lambda scene: "] trial " in scene.run.err and scene.at_work(priced=True),
    "saving": lambda scene: scene.saved("trained.safetensors"),
    "telling": lambda scene: scene.saved("learners.json"),
    "mirror": lambda scene: scene.mirrors,
}


def stop_at(stage: str, scene: Scene, number: signal.Signals) -> None:
    """Send the signal while the search is at a stage.

    The search is suspended while it is inspected, so that it is still at the stage when the signal arrives.
    """
    draw, pid = random.Random(f"{stage} {number}"), scene.run.child.pid
    if stage not in ("imports", "start-up"):
        scene.run.until("resuming study tiny: ")

    def reached() -> bool:
        os.kill(pid, signal.SIGSTOP)
        reached = STAGES[stage](scene)
        if reached:
            os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        # never in step with the trials
        time.sleep(draw.uniform(0.005, 0.03))
        return reached

    until(lambda: reached() or not scene.run.running, lambda: f"{stage} was not seen: {scene.run.err}", pause_s=0.0)
    assert scene.run.child.poll() != 0, f"{stage} was not seen before the study was done: {scene.run.err}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_signal_at_any_stage_loses_nothing(tmp_path: Path, tiny_bert: Path, storage: str | None) -> None:
    """At each stage the run ends with its code, without a traceback, and with the command to resume.

    Finished trials stay, none is left running, the interrupted one is trained again, and the total is exact.
    The two signals alternate, so that each stage gets one of them with a journal and the other one with a database.
    """
    numbers = [signal.SIGTERM, signal.SIGINT] if storage is None else [signal.SIGINT, signal.SIGTERM]
    folder = prepare(tmp_path)
    (folder / "tiny.yaml").write_text(SPACE.replace("[0.0, 0.5]", "[0.0, 4.0]"), encoding="utf-8")
    done = call(folder, *run_arguments(tiny_bert, 1, storage=storage))
    assert done.code == 0, done.err
    before = finished(read_study(folder, storage))
    # opened once: a search that is suspended while it opens the same storage would block this process
    study = Store(folder / ".farsearch", storage).load("tiny")
    for stage, number in zip(STAGES, itertools.cycle(numbers), strict=False):
        if stage == "priming":
            shutil.rmtree(folder / ".farsearch" / "cache", ignore_errors=True)
        with watch(folder, *run_arguments(tiny_bert, 1000, storage=storage)) as run:
            stop_at(stage, Scene(folder, study, run), number)
            ended = run.end()
        assert ended.code == 128 + number, f"{stage}: {ended}"
        assert "Traceback" not in ended.err, f"{stage}: {ended.err}"
        if stage != "imports":
            assert ended.err.count(HINT) == 1, f"{stage}: {ended.err}"
            assert "unexpected" not in ended.err
        snapshot = read_study(folder, storage)
        after = finished(snapshot)
        assert before.items() <= after.items(), stage
        assert "running" not in {flat(trial).state for trial in snapshot.trials}, stage
        retried = {trial.user_attrs.get("retry_of") for trial in study.get_trials(deepcopy=False)}
        cut = {t.number for t in snapshot.trials if flat(t).state == "fail" and flat(t).config is not None}
        assert cut <= retried, stage
        before = after
    last = call(folder, *run_arguments(tiny_bert, len(before) + 3, storage=storage))
    assert last.code == 0, last.err
    assert_whole(folder, len(before) + 3, storage)
    assert not list((folder / ".farsearch" / "studies" / "tiny" / "workers").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_ends_all_workers(tmp_path: Path, tiny_bert: Path, number: signal.Signals) -> None:
    """SIGTERM to a run with two workers, or Ctrl-C, which a terminal sends to all of them, ends all at once.

    The next run retries both interrupted trials, and the total is exact.
    """
    folder = prepare(tmp_path)
    arguments = run_arguments(tiny_bert, 6, workers=2, epochs=30)
    with watch(folder, *arguments) as run:
        run.until("this host: ")
        study = until(lambda: (store := Store(folder / ".farsearch")).names() and store.load("tiny"))
        until(
            lambda: (
                len(running := study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))) == 2
                and all("record" in trial.user_attrs for trial in running)
            ),
            lambda: run.err,
        )
        workers = run.children
        assert len(workers) == 2
        if number == signal.SIGINT:
            ended = run.end(number)
        else:
            run.child.send_signal(number)
            ended = run.end()
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert ended.code == 128 + number, ended.err
    assert ended.err.count(HINT) == 1
    assert "Traceback" not in ended.err
    states = [flat(trial).state for trial in read_study(folder).trials]
    assert "running" not in states
    assert states.count("waiting") == states.count("fail") == 2
    cut = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert all(trial.user_attrs["reason"].startswith("interrupted (") for trial in cut)
    last = call(folder, *run_arguments(tiny_bert, 6, epochs=30))
    assert last.code == 0, last.err
    snapshot = assert_whole(folder, 6)
    assert sum(flat(trial).state == "fail" for trial in snapshot.trials) == 2
