"""MLflow's server stops while a search writes to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from farsearch.records import flat
from tests.journey import assert_whole, call, prepare, read_study, run_arguments, watch
from tests.services import MlflowServer


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.timeout(1200)
def test_outage_of_the_mlflow_server_loses_nothing(
    tmp_path: Path, tiny_bert: Path, storage: str | None, mlflow_server: MlflowServer
) -> None:
    """The search continues with a note, and the mirror equals the study when the server is back.

    If it is back before the end, the run itself catches up, otherwise ``sync`` does.
    """
    folder = prepare(tmp_path)
    options = {"storage": storage, "tracking_uri": mlflow_server.uri}
    with watch(folder, *run_arguments(tiny_bert, 30, **options)) as run:
        run.until("] trial 0 ")
        mlflow_server.stop()
        run.until("the search goes on, farsearch sync catches up")
        assert sum(flat(trial).state == "complete" for trial in read_study(folder, storage).trials) < 30
        mlflow_server.start()
        done = run.end()
    assert done.code == 0, done.err
    assert_whole(folder, 30, storage, mlflow_server.uri)

    with watch(folder, *run_arguments(tiny_bert, 34, **options)) as run:
        run.until("[31/34] trial ")
        mlflow_server.stop()
        done = run.end()
    assert done.code == 0, done.err
    assert "the search goes on, farsearch sync catches up" in done.err
    mlflow_server.start()
    where = [] if storage is None else ["--storage", storage]
    synced = call(folder, "sync", "--tracking-uri", mlflow_server.uri, *where)
    assert synced.code == 0, synced.err
    assert_whole(folder, 34, storage, mlflow_server.uri)
