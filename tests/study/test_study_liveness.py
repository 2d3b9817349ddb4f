"""Detection of live and dead workers of a study, by locks on one host and by heartbeats across hosts."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from farsearch.study.liveness import Worker
from farsearch.study.store import Store
from tests.factories import make_settings
from tests.services import Postgres

# Optuna expects heartbeats in its own loop only.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")

META = {"metric": "accuracy", "budget_mib": 2000.0}
SPACE: dict[str, BaseDistribution] = {"rate": FloatDistribution(0.0, 1.0)}

HOLD = """
    import sys, time
    from pathlib import Path
    from optuna.distributions import BaseDistribution, FloatDistribution
    from farsearch.study.liveness import Worker
    from farsearch.study.store import Store
    store = Store(Path(sys.argv[1]), sys.argv[2] or None, heartbeat_s=1)
    study = store.load("s")
    worker = Worker(store.folder("s"), study)
    trial = study.ask({"rate": FloatDistribution(0.0, 1.0)})
    trial.set_user_attr("worker", worker.name)
    worker.beat(trial)
    with worker.beating(trial):
        print(trial.number, flush=True)
        time.sleep(600)
"""


def open_study(store: Store) -> optuna.Study:
    """Open a study with the factory's settings."""
    return store.open("s", make_settings(), META)


@contextmanager
def at_work(home: Path, url: str | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a process with a running trial; return it with the trial's number."""
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(home), url or ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child, int(child.stdout.readline())
        finally:
            child.kill()


def numbers(worker: Worker) -> list[int]:
    """Return the numbers of the abandoned trials."""
    return [trial.number for trial in worker.abandoned()]


def test_killed_process_is_detected_and_live_one_is_not(storage: str | None, tmp_path: Path) -> None:
    """A trial is abandoned as soon as its process is killed, and not before."""
    store = Store(tmp_path, storage)
    study = open_study(store)
    worker = Worker(store.folder("s"), study)
    with at_work(tmp_path, storage) as (child, number):
        assert numbers(worker) == []
        child.kill()
        child.wait()
        assert numbers(worker) == [number]
        with at_work(tmp_path, storage) as (idle, last):
            study.tell(last, [0.5, 1.0, 1.0])
            idle.kill()
            idle.wait()
            assert numbers(worker) in ([number], []), "reported once by the first worker's lock"
    worker.close()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert list((store.folder("s") / "workers").iterdir()) == [], "dead workers leave no file"


def test_own_and_new_trials_are_not_abandoned(storage: str | None, tmp_path: Path) -> None:
    """A worker does not consider itself dead, nor a trial that has no worker yet abandoned."""
    store = Store(tmp_path, storage)
    study = open_study(store)
    worker = Worker(store.folder("s"), study)
    own, _ = study.ask(SPACE), study.ask(SPACE)
    own.set_user_attr("worker", worker.name)
    assert numbers(worker) == []
    worker.close()
    assert list((store.folder("s") / "workers").iterdir()) == []


def test_locks_decide_for_workers_in_the_same_folder(tmp_path: Path) -> None:
    """This includes a journal's workers after the host was renamed, as containers are."""
    store = Store(tmp_path)
    study = open_study(store)
    study.ask(SPACE).set_user_attr("worker", "elsewhere-0123456789ab")
    worker = Worker(store.folder("s"), study)
    assert numbers(worker) == [0]
    worker.close()


@pytest.mark.service
def test_heartbeat_decides_for_a_worker_in_another_folder(postgres: Postgres, tmp_path: Path) -> None:
    """Its lock is not in this folder and is ignored, whatever the name of its host.

    As long as it sends heartbeats its trial is left alone, for longer than the grace period; after a kill the trial is
    abandoned when the period ends.
    """
    store = Store(tmp_path / "here", postgres.url, heartbeat_s=1)
    worker = Worker(store.folder("s"), open_study(store))
    with at_work(tmp_path / "there", postgres.url) as (child, number):
        until = time.monotonic() + 6
        while time.monotonic() < until:
            assert numbers(worker) == []
            time.sleep(0.1)
        child.kill()
        child.wait()
        assert numbers(worker) == [], "not at once: it may be heard of again"
        deadline = time.monotonic() + 60
        while numbers(worker) != [number]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    worker.close()


@pytest.mark.service
def test_old_heartbeats_after_an_outage_do_not_abandon_trials(own_postgres: Postgres, tmp_path: Path) -> None:
    """After the server was away all heartbeats are old: workers have one interval for a new one."""
    store = Store(tmp_path / "here", own_postgres.url, heartbeat_s=1)
    worker = Worker(store.folder("s"), open_study(store))
    with at_work(tmp_path / "there", own_postgres.url) as (child, _):
        own_postgres.stop("fast")
        time.sleep(4)
        child.send_signal(signal.SIGSTOP)
        own_postgres.start()
        worker.close()
        store = Store(tmp_path / "here", own_postgres.url, heartbeat_s=1)
        study = store.load("s")
        worker = Worker(store.folder("s"), study)
        stale = study._storage._get_stale_trial_ids(study._study_id)  # type: ignore[attr-defined]
        assert stale == [study.trials[0]._trial_id]
        assert numbers(worker) == []
        child.send_signal(signal.SIGCONT)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert numbers(worker) == []
            time.sleep(0.1)
    worker.close()
