"""The database stops under load and starts again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.journey import assert_whole, finished, prepare, read_study, run_arguments, until, watch
from tests.services import Postgres


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1200)
def test_database_restarts_lose_no_trial(tmp_path: Path, tiny_bert: Path, own_postgres: Postgres) -> None:
    """Stop the database three times without warning under two workers: no trial is lost or repeated.

    The workers and the run that started them wait for it, and the study ends with exactly the requested number.
    """
    folder, url = prepare(tmp_path), own_postgres.url
    with watch(folder, *run_arguments(tiny_bert, 16, storage=url, workers=2)) as run:
        run.until("] trial ")
        for away_s in (0.0, 2.0, 6.0):
            known = finished(read_study(folder, url))
            own_postgres.stop()
            time.sleep(away_s)
            own_postgres.start()
            assert known.items() <= finished(read_study(folder, url)).items()
            until(lambda: len(finished(read_study(folder, url))) >= len(known) + 2, lambda: run.err)  # noqa: B023
        done = run.end()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert_whole(folder, 16, url)


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1200)
def test_run_started_during_an_outage_waits(tmp_path: Path, tiny_bert: Path, own_postgres: Postgres) -> None:
    """It names the database, creates the study when the database answers, and ends as usual.

    A worker killed during a second outage is replaced, and the new one waits too.
    """
    folder, url = prepare(tmp_path), own_postgres.url
    own_postgres.stop()
    with watch(folder, *run_arguments(tiny_bert, 6, storage=url, workers=2)) as run:
        run.until("does not answer; trying again until ")
        own_postgres.start()
        run.until("] trial ")
        own_postgres.stop()
        os.kill(run.children[0], signal.SIGKILL)
        run.until("another one takes its place")
        until(lambda: len(run.children) == 2, lambda: run.err)
        time.sleep(15.0)  # longer than a worker takes to start
        own_postgres.start()
        done = run.end()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert_whole(folder, 6, url)
