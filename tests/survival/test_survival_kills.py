"""Workers that are killed as by the kernel when memory is short: none of their code can run."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from farsearch.records import flat
from farsearch.study.store import Store
from tests.journey import Watched, assert_whole, call, finished, prepare, read_study, run_arguments, until, watch

KILLS, TRIALS = 20, 40


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_twenty_kills_lose_nothing(tmp_path: Path, tiny_bert: Path, storage: str | None) -> None:
    """Kill a random worker of a run with two workers and one that joined it, at a random moment, twenty times.

    The run replaces its workers itself, the one that joined is started again. The study ends with exactly the requested
    number of trials, none lost, none repeated, and MLflow equals it.
    """
    folder, draw = prepare(tmp_path), random.Random(0)
    where = [] if storage is None else ["--storage", storage]
    # kills are spread over the study by its progress, so that all precede its end on any machine
    moments = sorted(draw.randrange(TRIALS - 8) for _ in range(KILLS))
    seen: dict[int, str] = {}
    with ExitStack() as stack:
        run = stack.enter_context(
            watch(folder, *run_arguments(tiny_bert, TRIALS, storage=storage, epochs=6, workers=2))
        )
        until(lambda: len(run.children) == 2, lambda: run.err)

        def join() -> Watched:
            return stack.enter_context(watch(folder, "worker", "tiny", *where))

        joined = join()
        for moment in moments:
            until(lambda: len(finished(read_study(folder, storage))) >= moment, lambda: run.err)  # noqa: B023
            time.sleep(draw.uniform(0.0, 1.0))
            victims = until(lambda: len(run.children) == 2 and [*run.children, joined.child.pid], lambda: run.err)  # noqa: B023
            victim = draw.choice(victims)
            os.kill(victim, signal.SIGKILL)
            if victim == joined.child.pid:
                assert joined.end().code == -signal.SIGKILL, joined.err
                joined = join()
            now = finished(read_study(folder, storage))
            assert seen.items() <= now.items()
            seen = now
        ended = [run.end(), joined.end()]
    assert [done.code for done in ended] == [0, 0], ended
    assert "Traceback" not in "".join(done.err for done in ended)
    synced = call(folder, "sync", *where)
    assert synced.code == 0, synced.err
    snapshot = assert_whole(folder, TRIALS, storage)
    assert seen.items() <= finished(snapshot).items()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_workers_of_a_killed_run_end(tmp_path: Path, tiny_bert: Path, storage: str | None) -> None:
    """They requeue their trials and end, so that none trains unseen; the next run continues."""
    folder = prepare(tmp_path)
    arguments = run_arguments(tiny_bert, 12, storage=storage, workers=2)
    with watch(folder, *arguments) as run:
        run.until("] trial ")
        workers = run.children
        os.kill(run.child.pid, signal.SIGKILL)
        until(lambda: not [pid for pid in workers if _lives(pid)])
    before = finished(read_study(folder, storage))
    assert len(before) < 12
    last = call(folder, *run_arguments(tiny_bert, 12, storage=storage))
    assert last.code == 0, last.err
    assert before.items() <= finished(assert_whole(folder, 12, storage)).items()


def _lives(pid: int) -> bool:
    """Return whether the process runs; an ended one that was not waited for does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_killed_trial_is_priced_again(tmp_path: Path, tiny_bert: Path, storage: str | None) -> None:
    """The killed trial has its reason, and its retry has its own costs and constraints."""
    folder = prepare(tmp_path)
    arguments = run_arguments(tiny_bert, 2, storage=storage, epochs=30)
    with watch(folder, *arguments) as run:
        run.until("this host: ")
        study = until(lambda: (store := Store(folder / ".farsearch", storage)).names() and store.load("tiny"))
        until(lambda: study.trials and study.trials[0].user_attrs.get("record"), lambda: run.err)
        assert run.end(signal.SIGKILL).code == -signal.SIGKILL
    assert flat(read_study(folder, storage).trials[0]).state == "running"
    last = call(folder, *arguments)
    assert last.code == 0, last.err
    assert "trial 0 ended early: its process was killed; it is tried again" in last.err
    killed, retry = assert_whole(folder, 2, storage).trials[:2]
    assert (flat(killed).state, flat(retry).state) == ("fail", "complete")
    assert flat(killed).config == flat(retry).config
    assert flat(retry).peak_memory_mib > 0  # type: ignore[operator]
    trials = {trial.number: trial for trial in Store(folder / ".farsearch", storage).load("tiny").trials}
    assert trials[retry.number].user_attrs["retry_of"] == killed.number
    assert "memory" in trials[retry.number].constraints
