"""The mirror in MLflow: real databases, a real server, and all ways in which a mirror becomes outdated."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run

from farsearch.errors import BadInput, MissingResource
from farsearch.records import FarConfig, LossPoint, StudySnapshot, Verification, flat
from farsearch.tracking import FRONT_FILTER, UI_ENVIRONMENT, SyncResult, Tracker, open_tracking, ui_command
from farsearch.tracking.content import study_content, trial_content
from farsearch.tracking.digests import shown_digest
from farsearch.tracking.views import saved_view_id
from farsearch.trials_json import trials_json
from tests.factories import FRONT, changed, make_baselines, make_measurement, make_settings, make_snapshot, make_trial

_SYNC = """
import json, pathlib, pickle, sys
from farsearch.tracking import open_tracking
uri, snapshot = sys.argv[1], pickle.loads(pathlib.Path(sys.argv[2]).read_bytes())
tracker = open_tracking(uri)
tracker.sync(snapshot)
print(json.dumps(tracker.trials(snapshot.name)))
"""


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    """A mirror in a database of its own."""
    return open_tracking(f"sqlite:///{tmp_path}/mlflow.db")


def _client(tracker: Tracker) -> MlflowClient:
    return MlflowClient(tracking_uri=tracker.uri)


def _experiment(client: MlflowClient, name: str) -> Experiment:
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return experiment


def _run_ids(tracker: Tracker, snapshot: StudySnapshot) -> dict[str, str]:
    """Return ids of runs by their names, parents and children."""
    client = _client(tracker)
    experiment = _experiment(client, snapshot.name)
    runs = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {_short_name(run): run.info.run_id for run in runs}


def _short_name(run: Run) -> str:
    """Return what the study calls a training, ``trial 002``; the name of any other run."""
    return str(run.info.run_name).removesuffix(" · front").split(" · ")[-1]


def _rows(tracker: Tracker) -> list[str]:
    """Return the contents of the database."""
    with contextlib.closing(sqlite3.connect(tracker.uri.removeprefix("sqlite:///"))) as connection:
        return list(connection.iterdump())


def _unmarked(tracker: Tracker, snapshot: StudySnapshot) -> None:
    """Simulate an interrupted sync: remove the mark that all runs are written."""
    _client(tracker).set_tag(_run_ids(tracker, snapshot)[snapshot.name], "farsearch.mirrored", "")


def _artifacts(tracker: Tracker, snapshot: StudySnapshot) -> Path:
    client = _client(tracker)
    run = client.get_run(_run_ids(tracker, snapshot)[snapshot.name])
    return Path(urllib.request.url2pathname(run.info.artifact_uri.removeprefix("file://")))


def test_every_value_of_a_study_is_in_mlflow_exactly(tracker: Tracker) -> None:
    """Floats are equal bit by bit; learning curves and configurations are complete."""
    odd = {"a": 0.1 + 0.2, "b": 5e-324, "c": 1.7e308, "d": -1 / 3, "e": 123456789.123456789, "f": 0.0}
    trials = [changed(trial, time=odd) for trial in make_snapshot().trials]
    snapshot = make_snapshot(*trials, front=FRONT)
    assert tracker.sync(snapshot) == SyncResult(created=6, updated=0, unchanged=0)
    assert tracker.differences(snapshot) == []
    held = tracker.trials(snapshot.name)
    for trial in map(flat, snapshot.trials):
        params, metrics = held[trial.number]["params"], held[trial.number]["metrics"]
        assert trial.config is not None
        assert tuple(float(params[f"frozen_fraction_layer_{i}"]) for i in range(4)) == trial.config.frozen_fractions
        assert float(params["learning_rate"]) == trial.config.learning_rate
        assert metrics.get("validation_accuracy") == trial.metric
        assert metrics["wall_time_s"] == trial.wall_time_s
        assert [metrics[f"time/{name}_s"] for name in odd] == list(odd.values())
    history = _client(tracker).get_metric_history(_run_ids(tracker, snapshot)["trial 002"], "train_loss")
    assert tuple(LossPoint(point.step, point.value) for point in history) == flat(snapshot.trials[2]).curve


def test_differences_name_the_value_and_both_sides(tracker: Tracker) -> None:
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    _client(tracker).log_metric(_run_ids(tracker, snapshot)["trial 002"], "wall_time_s", 7.0)
    assert tracker.differences(snapshot) == ["trial 2 metrics.wall_time_s: 7.0 in MLflow, 250.0 in the study"]


def test_the_filter_finds_the_front(tracker: Tracker) -> None:
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    experiment = _experiment(_client(tracker), snapshot.name)
    runs = _client(tracker).search_runs([experiment.experiment_id], FRONT_FILTER)
    assert {run.info.run_name for run in runs} == {
        "80.0 % · 0.98 GiB · 3.3 min · trial 000 · front",
        "84.0 % · 1.17 GiB · 4.2 min · trial 002 · front",
        "85.5 % · 1.46 GiB · 5.0 min · trial 004 · front",
    }


def test_runs_have_state_dataset_description_source_and_times(tracker: Tracker) -> None:
    snapshot = make_snapshot()
    before = time.time_ns() // 1_000_000
    tracker.sync(snapshot)
    ids, client = _run_ids(tracker, snapshot), _client(tracker)
    parent = client.get_run(ids[snapshot.name])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["farsearch.weights"] == snapshot.settings.job.weights
    assert parent.data.params["model"] == snapshot.settings.job.model
    assert snapshot.settings.job.data not in parent.data.params.values()
    assert "| 1,200 MiB |" in parent.data.tags["mlflow.note.content"]
    ends = []
    for trial in snapshot.trials:
        run = client.get_run(ids[f"trial {trial.number:03d}"])
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.source.name"] == f"trial {trial.number:03d}"
        assert len(run.data.tags["mlflow.note.content"].splitlines()) == 2
        assert run.inputs is not None
        assert run.inputs.dataset_inputs[0].dataset.digest == snapshot.settings.job.data[:12]
        assert run.info.end_time - run.info.start_time == round(1000 * (flat(trial).host_seconds or 0))
        ends.append(run.info.end_time)
    assert ends == sorted(ends)
    assert before <= ends[-1] <= time.time_ns() // 1_000_000


def test_a_second_sync_writes_nothing(tracker: Tracker) -> None:
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    rows, picture = _rows(tracker), _artifacts(tracker, snapshot) / "front.png"
    touched = picture.stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    assert tracker.sync(snapshot, lambda done, total: seen.append((done, total))) == SyncResult(0, 0, 6)
    assert _rows(tracker) == rows
    assert picture.stat().st_mtime_ns == touched
    assert seen == [(6, 6)]


def test_a_changed_front_changes_only_tags_and_names(tracker: Tracker) -> None:
    """Runs remain, and artifacts are renewed."""
    first = make_snapshot(*make_snapshot().trials[:4], front={0, 2}, n_trials=6)
    tracker.sync(first)
    ids = _run_ids(tracker, first)
    better = make_trial(4, 0.85, 1150.0, 240.0)
    second = make_snapshot(*first.trials, better, front={0, 4}, n_trials=6)
    assert tracker.sync(second) == SyncResult(created=1, updated=1, unchanged=3)
    assert {name: run for name, run in _run_ids(tracker, second).items() if name != "trial 004"} == ids
    assert tracker.differences(second) == []
    assert {n for n, held in tracker.trials(second.name).items() if held["tags"]["farsearch.on_front"] == "true"} == {
        0,
        4,
    }
    assert _client(tracker).get_run(ids["trial 002"]).info.run_name == "84.0 % · 1.17 GiB · 4.2 min · trial 002"
    shown = json.loads((_artifacts(tracker, second) / "front.json").read_text())
    assert [row["number"] for row in shown["trials"]] == [0, 4]


def test_a_running_trial_becomes_complete_in_the_same_run(tracker: Tracker) -> None:
    """The parent run ends with the last trial."""
    done = make_trial(1, 0.8, 1000.0, 100.0)
    running = changed(done, state="running")
    first = make_snapshot(make_trial(0, 0.7, 900.0, 90.0), running, front={0})
    tracker.sync(first)
    ids, client = _run_ids(tracker, first), _client(tracker)
    assert client.get_run(ids["trial 001"]).info.status == "RUNNING"
    assert client.get_run(ids[first.name]).info.status == "RUNNING"
    second = make_snapshot(first.trials[0], done, front={0, 1})
    assert tracker.sync(second) == SyncResult(created=0, updated=1, unchanged=1)
    assert _run_ids(tracker, second) == ids
    assert tracker.differences(second) == []
    assert [point.step for point in client.get_metric_history(ids["trial 001"], "train_loss")] == [8, 16, 24]
    ended = client.get_run(ids["trial 001"]).info
    assert ended.status == "FINISHED"
    assert ended.end_time >= ended.start_time
    assert client.get_run(ids[first.name]).info.status == "FINISHED"


@pytest.mark.parametrize("state", ["waiting", "running", "complete", "pruned", "fail"])
def test_every_state_has_its_mlflow_status(tracker: Tracker, state: str) -> None:
    """Even before it is priced."""
    unpriced = {"plan": None} if state in ("waiting", "running", "fail") else {}
    trial = make_trial(0, 0.8, 900.0, 90.0, state=state, **unpriced)
    snapshot = make_snapshot(trial)
    tracker.sync(snapshot)
    assert tracker.differences(snapshot) == []
    status = _client(tracker).get_run(_run_ids(tracker, snapshot)["trial 000"]).info.status
    expected = {"waiting": "SCHEDULED", "running": "RUNNING", "complete": "FINISHED", "pruned": "FINISHED"}
    assert status == expected.get(state, "KILLED")


def test_a_recreated_study_replaces_its_runs(tracker: Tracker) -> None:
    """MLflow can't change parameters: the run of another trial is replaced, and one without a trial removed."""
    tracker.sync(make_snapshot())
    config = FarConfig((0.1, 0.1, 0.1, 0.1), 1e-3, 2.0)
    trial = make_trial(0, 0.9, 800.0, 80.0, config=config)
    job = dataclasses.replace(make_settings().job, seed=2)
    snapshot = make_snapshot(trial, front={0}, settings=make_settings(job=job))
    assert tracker.sync(snapshot) == SyncResult(created=0, updated=1, unchanged=0, removed=5)
    assert tracker.differences(snapshot) == []
    assert set(_run_ids(tracker, snapshot)) == {"trial 000", snapshot.name}
    assert tracker.sync(snapshot) == SyncResult(0, 0, 1)
    before = _run_ids(tracker, snapshot)["trial 000"]
    slower = make_trial(0, 0.9, 800.0, 80.0, config=dataclasses.replace(config, learning_rate=1e-4))
    other = make_snapshot(slower, front={0}, settings=make_settings(job=job))
    assert tracker.sync(other) == SyncResult(0, 1, 0)
    assert tracker.differences(other) == []
    assert _run_ids(tracker, other)["trial 000"] != before


def test_duplicate_runs_are_removed(tracker: Tracker) -> None:
    """Two concurrent mirrors may leave a second parent and an incomplete second child."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    ids, client = _run_ids(tracker, snapshot), _client(tracker)
    experiment = _experiment(client, snapshot.name).experiment_id
    _unmarked(tracker, snapshot)
    for name in ("trial 002", snapshot.name):
        tags = dict(client.get_run(ids[name]).data.tags)
        del tags["farsearch.digest"]
        client.create_run(experiment, start_time=1, tags=tags)
    assert tracker.sync(snapshot) == SyncResult(0, 0, 6, removed=1)
    assert _run_ids(tracker, snapshot) == ids
    assert tracker.differences(snapshot) == []


def test_an_incomplete_run_is_completed(tracker: Tracker) -> None:
    """A mirror was killed between values and digest of a run."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    ids, client = _run_ids(tracker, snapshot), _client(tracker)
    client.delete_tag(ids["trial 004"], "farsearch.digest")
    client.update_run(ids["trial 004"], status="RUNNING")
    _unmarked(tracker, snapshot)
    assert tracker.sync(snapshot) == SyncResult(0, 1, 5)
    assert _run_ids(tracker, snapshot) == ids
    assert client.get_run(ids["trial 004"]).info.status == "FINISHED"
    assert len(client.get_metric_history(ids["trial 004"], "train_loss")) == 3


def test_deleted_runs_experiments_and_artifacts_are_restored(tracker: Tracker) -> None:
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    client = _client(tracker)
    client.delete_run(_run_ids(tracker, snapshot)["trial 002"])
    assert tracker.sync(snapshot) == SyncResult(created=1, updated=0, unchanged=5)
    client.delete_experiment(_experiment(client, snapshot.name).experiment_id)
    tracker.sync(snapshot)
    assert tracker.differences(snapshot) == []
    assert len(_run_ids(tracker, snapshot)) == 7
    shutil.rmtree(_artifacts(tracker, snapshot))
    assert tracker.sync(snapshot) == SyncResult(0, 0, 6)
    assert (_artifacts(tracker, snapshot) / "front.png").is_file()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copied_project_has_its_own_artifacts(tmp_path: Path) -> None:
    """The mirror of a copy neither changes nor shows the original's files."""
    snapshot = make_snapshot()
    first = open_tracking(f"sqlite:///{tmp_path}/a/mlflow.db")
    first.sync(snapshot)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = _files(tmp_path / "a")
    grown = make_snapshot(*snapshot.trials, make_trial(6, 0.99, 100.0, 10.0), front={6})
    copy = open_tracking(f"sqlite:///{tmp_path}/b/mlflow.db")
    assert copy.sync(grown).created == 1
    assert _files(tmp_path / "a") == before
    assert (tmp_path / "b" / "mlartifacts") in _artifacts(copy, grown).parents
    assert json.loads((_artifacts(copy, grown) / "front.json").read_text()) == trials_json(grown, grown.front)
    assert first.sync(snapshot) == SyncResult(0, 0, 6)
    assert json.loads((_artifacts(first, snapshot) / "front.json").read_text()) == trials_json(snapshot, snapshot.front)


def test_a_moved_project_keeps_runs_and_artifacts(tmp_path: Path) -> None:
    """Nothing is created at the old path."""
    snapshot = make_snapshot()
    first = open_tracking(f"sqlite:///{tmp_path}/a/mlflow.db")
    first.sync(snapshot, report=True)
    ids, before = _run_ids(first, snapshot), _files(tmp_path / "a" / "mlartifacts")
    (tmp_path / "a").rename(tmp_path / "moved? to 50%20")
    moved = open_tracking(f"sqlite:///{tmp_path}/moved%3F to 50%2520/mlflow.db")
    assert (moved.sync(snapshot, report=True), _run_ids(moved, snapshot)) == (SyncResult(0, 0, 6), ids)
    listed = {file.path for file in _client(moved).list_artifacts(ids[snapshot.name])}
    assert {"front.json", "report.html", "figures"} <= listed
    assert _files(tmp_path / "moved? to 50%20" / "mlartifacts") == before
    assert not (tmp_path / "a").exists()


def test_registered_models_move_with_their_project(tmp_path: Path) -> None:
    """Logged models and registry versions have paths too; other experiments are not changed."""
    snapshot = make_snapshot()
    first = open_tracking(f"sqlite:///{tmp_path}/a/mlflow.db")
    first.sync(snapshot)
    client, run = _client(first), _run_ids(first, snapshot)["trial 002"]
    experiment = _experiment(client, snapshot.name).experiment_id
    logged = client.create_logged_model(experiment, name="tuned", source_run_id=run)
    client.create_registered_model("m")
    client.create_model_version("m", logged.artifact_location, run, model_id=logged.model_id)
    other = client.create_experiment("other", "file:///data/mlartifacts/other")
    (tmp_path / "a").rename(tmp_path / "b")
    client = _client(open_tracking(f"sqlite:///{tmp_path}/b/mlflow.db"))
    here = f"file://{tmp_path}/b/mlartifacts/"
    assert client.get_logged_model(logged.model_id).artifact_location.startswith(here)
    assert str(client.get_model_version("m", "1").source).startswith(here)
    assert client.get_experiment(other).artifact_location == "file:///data/mlartifacts/other"


@pytest.mark.parametrize("name", ["what? now", "a%20b", "a#b", "ü [1] & c"])
def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The default address refers to the working folder, and nothing is created outside of it."""
    (tmp_path / "home" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / name)
    tracker = open_tracking("sqlite:///mlflow.db")
    assert {path.name for path in (tmp_path / "home").iterdir()} == {name}
    assert {path.name for path in Path.cwd().iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    assert open_tracking(tracker.uri).uri == tracker.uri
    assert Path.cwd() in Path(urllib.request.url2pathname(_artifact_uri(tracker, "0").removeprefix("file://"))).parents


def _artifact_uri(tracker: Tracker, experiment: str) -> str:
    return str(_client(tracker).get_experiment(experiment).artifact_location)


def test_artifacts_contain_the_front(tracker: Tracker) -> None:
    """As JSON, as tables, and as a PNG."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    folder = _artifacts(tracker, snapshot)
    assert json.loads((folder / "front.json").read_text()) == trials_json(snapshot, snapshot.front)
    assert len((folder / "front.csv").read_text().splitlines()) == 3
    assert (folder / "front.md").read_text().count("\n|") == 4
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "study.json").read_text())["rejected"] == {"peak memory": 41}


def test_the_report_is_written_on_request_and_only_if_it_changed(tracker: Tracker) -> None:
    """A sync during a search leaves an old report unchanged."""
    first = make_snapshot(*make_snapshot().trials[:4], front={0, 2})
    tracker.sync(first)
    folder = _artifacts(tracker, first)
    assert not (folder / "report.html").exists()
    tracker.sync(first, report=True)
    page = folder / "report.html"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert {"front.png", "frozen.png", "memory.png"} <= {path.name for path in (folder / "figures").iterdir()}
    touched = page.stat().st_mtime_ns
    tracker.sync(first, report=True)
    tracker.sync(first)
    second = make_snapshot()
    tracker.sync(second)
    assert page.stat().st_mtime_ns == touched
    assert len(json.loads((folder / "front.json").read_text())["trials"]) == len(FRONT)
    tracker.sync(second, report=True)
    assert page.stat().st_mtime_ns > touched


def test_the_report_is_drawn_again_when_its_content_changes(tracker: Tracker) -> None:
    """Measurements, verifications, stopped trials and versions change it, running trials do not."""
    study = make_snapshot()
    digest = shown_digest(study, study_content(study))

    def other(**changes: Any) -> bool:
        later = dataclasses.replace(study, **changes)
        return shown_digest(later, study_content(later)) != digest

    verified = changed(study.trials[0], verifies=Verification(0, 1, 4096))
    stopped = changed(study.trials[3], number=6)
    assert other(measurements=(make_measurement(0),))
    assert other(verified=(verified,))
    assert other(trials=(*study.trials, stopped))
    assert other(meta={**study.meta, "versions": {"torch": "2.14.0"}})
    assert not other(trials=(*study.trials, changed(stopped, state="running")))


def test_an_auxiliary_study_has_no_report(tracker: Tracker) -> None:
    """The report of its study includes baselines."""
    sibling = make_snapshot(*make_baselines(), name="demo/baselines")
    tracker.sync(sibling, report=True)
    run = _run_ids(tracker, make_snapshot(name="demo"))[sibling.name]
    names = {artifact.path for artifact in _client(tracker).list_artifacts(run)}
    assert "front.png" in names
    assert "report.html" not in names
    assert "report.html" not in study_content(sibling).tags["mlflow.note.content"]
    assert "report.html" in study_content(make_snapshot()).tags["mlflow.note.content"]


def test_auxiliary_studies_share_the_experiment(tracker: Tracker) -> None:
    """Baselines have their own parent run, and neither sync changes the other's runs."""
    study = make_snapshot()
    baselines = make_snapshot(name=f"{study.name}/baselines")
    tracker.sync(study)
    assert tracker.sync(baselines) == SyncResult(6, 0, 0)
    assert tracker.sync(study) == SyncResult(0, 0, 6)
    assert tracker.sync(baselines) == SyncResult(0, 0, 6)
    assert tracker.differences(study) == tracker.differences(baselines) == []
    paths = {tracker.experiment_url_path(name).split("?")[0] for name in (study.name, baselines.name)}
    assert len(paths) == 1


def test_baselines_are_rows_of_the_parent_and_have_runs(tracker: Tracker) -> None:
    """The parent is updated when a baseline is added."""
    study = make_snapshot()
    tracker.sync(study)
    compared = dataclasses.replace(study, baselines=make_baselines())
    tracker.sync(compared)
    folder = _artifacts(tracker, compared)
    assert len((folder / "front.csv").read_text().splitlines()) == 5
    assert "| LoRA r=8 |" in (folder / "front.md").read_text()
    assert len(json.loads((folder / "front.json").read_text())["baselines"]) == 2
    assert "| LoRA r=8 |" in study_content(compared).tags["mlflow.note.content"]
    sibling = make_snapshot(*make_baselines(), name=f"{study.name}/baselines")
    tracker.sync(sibling)
    assert tracker.differences(sibling) == []
    lora = tracker.trials(sibling.name)[10]
    assert lora["params"]["method"] == "lora8"
    assert float(lora["params"]["learning_rate"]) == 5e-4
    assert "LoRA r=8, rate 0.0005" in _run_ids(tracker, study)


def test_long_curves_are_written_in_batches(tracker: Tracker) -> None:
    """MLflow accepts 1000 values per call."""
    curve = tuple(LossPoint(step, 1 / (step + 1)) for step in range(2000))
    snapshot = make_snapshot(make_trial(0, 0.8, 1000.0, 100.0, curve=curve))
    tracker.sync(snapshot)
    run = _run_ids(tracker, snapshot)["trial 000"]
    history = _client(tracker).get_metric_history(run, "train_loss")
    assert {point.step: point.value for point in history} == {point.step: point.loss for point in curve}


def test_values_that_are_not_finite_are_left_out() -> None:
    """MLflow would store infinity as the largest float."""
    curve = (LossPoint(1, 0.7), LossPoint(2, float("nan")), LossPoint(3, float("inf")))
    trial = make_trial(0, float("inf"), 1000.0, 100.0, curve=curve)
    content = trial_content(make_snapshot(trial), trial)
    assert "validation_accuracy" not in content.metrics
    assert content.curve == curve[:1]


def test_reason_of_a_stopped_trial_is_a_tag() -> None:
    trial = make_trial(0, None, 1000.0, 100.0, reason="loss is nan at step 2")
    assert trial_content(make_snapshot(trial), trial).tags["farsearch.reason"] == "loss is nan at step 2"


@given(st.floats(1e-12, 1e3), st.lists(st.floats(0, 1), min_size=1, max_size=24))
def test_parameters_are_strings_that_parse_exactly(rate: float, fractions: list[float]) -> None:
    """Names of layers sort by number."""
    trial = make_trial(0, 0.5, 1.0, 1.0, config=FarConfig(tuple(fractions), rate, 1.0))
    params = trial_content(make_snapshot(trial), trial).params
    layers = sorted(key for key in params if key.startswith("frozen_fraction_layer_"))
    assert [float(params[key]) for key in layers] == fractions
    assert float(params["learning_rate"]) == rate


def test_the_address_shows_all_trials_the_front_first(tracker: Tracker) -> None:
    """By search and order alone: above a saved view MLflow puts a banner."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    path, query = tracker.experiment_url_path(snapshot.name).split("?")
    experiment = _experiment(_client(tracker), snapshot.name).experiment_id
    assert path == f"#/experiments/{experiment}/runs"
    state = dict(urllib.parse.parse_qsl(query))
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] == 'true' else 'DESC'}"
    found = _client(tracker).search_runs([experiment], state["searchFilter"], order_by=[order])
    assert [run.data.tags["farsearch.on_front"] for run in found] == ["true"] * 3 + ["false"] * 3


def test_runs_are_coloured_by_what_they_are() -> None:
    """One chart shows front, other trials, baselines and verification, with the same metrics."""
    snapshot = make_snapshot(baselines=make_baselines())
    again = make_trial(0, 0.8, 1200.0, 250.0, verifies=Verification(1, 3, 4096))
    front, other, lora, verified = (
        trial_content(snapshot, trial) for trial in (*snapshot.trials[:2], make_baselines()[1], again)
    )
    assert len({content.tags["mlflow.runColor"] for content in (front, other, lora, verified)}) == 4
    assert all(
        {"accuracy_percent", "memory_gib", "time_s"} <= set(one.metrics) for one in (front, other, lora, verified)
    )
    assert verified.name == "80.0 % · 1.17 GiB · 4.2 min · trial 001 again, seed 3"
    assert lora.name.startswith("81.2 % · 0.93 GiB · ")


def test_a_sync_takes_runs_of_earlier_mirrors_out_of_their_parent(tracker: Tracker) -> None:
    """In which MLflow's table would hide them."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    ids = _run_ids(tracker, snapshot)
    _client(tracker).set_tag(ids["trial 000"], "mlflow.parentRunId", ids[snapshot.name])
    _unmarked(tracker, snapshot)
    tracker.sync(snapshot)
    assert _run_ids(tracker, snapshot) == ids
    assert "mlflow.parentRunId" not in _client(tracker).get_run(ids["trial 000"]).data.tags


def test_saved_views_have_the_format_of_mlflow_s_page(tracker: Tracker) -> None:
    """Columns and filter are of existing metrics and tags."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    experiment = _experiment(_client(tracker), snapshot.name)
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{saved_view_id(snapshot.name, 'trials')}"])
    state = json.loads(view["state"])
    found = _client(tracker).search_runs([experiment.experiment_id], state["searchFilter"])
    assert len(found) == len(snapshot.trials)
    for column in state["selectedColumns"]:
        kind, name = column.rstrip("`").split(".`")
        assert name in getattr(found[0].data, kind)


def _write(snapshot: StudySnapshot, folder: Path) -> list[str]:
    """Return a command that syncs ``snapshot`` into the database of ``folder`` and prints its trials."""
    (folder / "snapshot.pickle").write_bytes(pickle.dumps(snapshot))
    return [sys.executable, "-c", _SYNC, f"sqlite:///{folder}/mlflow.db", str(folder / "snapshot.pickle")]


@pytest.mark.slow
def test_two_processes_create_one_database_and_a_sync_rebuilds_it(tmp_path: Path) -> None:
    """Concurrent syncs print no warnings and write one run per trial."""
    snapshot = make_snapshot()
    command = _write(snapshot, tmp_path)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [error for _, error in results] == ["", ""]
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT lifecycle_stage, count(*) FROM runs GROUP BY 1").fetchall() == [("active", 7)]
    (tmp_path / "mlflow.db").unlink()
    shutil.rmtree(tmp_path / "mlartifacts")
    again = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    assert json.loads(again.stdout) == json.loads(results[0][0]) == json.loads(results[1][0])


def test_a_removed_database_is_noticed(tracker: Tracker, tmp_path: Path) -> None:
    """MLflow would write to the deleted file."""
    (tmp_path / "mlflow.db").unlink()
    with pytest.raises(MissingResource, match="was removed or replaced meanwhile; farsearch sync rebuilds it"):
        tracker.sync(make_snapshot())


def test_a_full_disk_loses_nothing(tracker: Tracker, tmp_path: Path) -> None:
    """A failed sync ends with one line, and the next one completes the mirror."""
    resource = pytest.importorskip("resource")
    snapshot = make_snapshot(*[make_trial(i, 0.8, 1000.0 + i, 100.0) for i in range(30)], front={0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "mlflow.db").stat().st_size + 65536, hard))
        try:
            with pytest.raises(MissingResource, match=r"^MLflow at sqlite:///.* can't be used \(.*\); when") as caught:
                tracker.sync(snapshot)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert errors.getvalue() == ""
    tracker.sync(snapshot)
    assert tracker.differences(snapshot) == []


def _refused(database: Path) -> str:
    """Return the error of opening ``database``, which is not changed."""
    before = database.read_bytes() if database.is_file() else None
    with pytest.raises(MissingResource) as caught:
        open_tracking(f"sqlite:///{database}")
    assert (database.read_bytes() if database.is_file() else None) == before
    assert "\n" not in str(caught.value)
    assert "remove" not in str(caught.value)
    return str(caught.value)


def test_a_broken_database_is_refused_without_retries(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, but long enough to look like a file of one" * 100)
    started = time.monotonic()
    assert "can't be read (file is not a database); restore it from a copy" in _refused(tmp_path / "mlflow.db")
    assert time.monotonic() - started < 5


def test_a_folder_is_refused_as_a_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    assert "is not a file" in _refused(tmp_path / "mlflow.db")


def test_a_database_of_another_program_is_not_written_to(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "photos.db")) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    assert "is a database of another program (its tables: photos)" in _refused(tmp_path / "photos.db")


@pytest.mark.parametrize(
    ("version", "message"),
    [("ffffffffffff", "was made by a newer MLflow than"), ("0a8213491aaa", "was made by an older MLflow")],
)
def test_a_database_of_another_schema_is_refused(tmp_path: Path, version: str, message: str) -> None:
    """The message suggests a newer MLflow, or MLflow's upgrade command."""
    open_tracking(f"sqlite:///{tmp_path}/first.db")
    shutil.copy(tmp_path / "first.db", tmp_path / "mlflow.db")  # MLflow checks a database once in a process
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    assert message in _refused(tmp_path / "mlflow.db")


@contextlib.contextmanager
def _held(database: Path, kind: str) -> Iterator[sqlite3.Connection]:
    """Hold a transaction, as another program that writes to the database."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute(f"BEGIN {kind}")
        yield connection


def test_a_sync_waits_for_a_locked_database(tracker: Tracker, tmp_path: Path) -> None:
    """Both at opening and at writing."""
    for kind in ("EXCLUSIVE", "IMMEDIATE"):
        with _held(tmp_path / "mlflow.db", kind) as connection:
            release = threading.Timer(0.5, connection.execute, ("ROLLBACK",))
            release.start()
            assert open_tracking(tracker.uri).sync(make_snapshot()).removed == 0
            release.join()


def test_a_database_that_stays_locked_is_reported(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farsearch.tracking.connection._BUSY_SECONDS", 0.1)
    with _held(tmp_path / "mlflow.db", "EXCLUSIVE"):
        assert "is locked by another program" in _refused(tmp_path / "mlflow.db")
    with _held(tmp_path / "mlflow.db", "IMMEDIATE"), pytest.raises(MissingResource, match="is locked by another"):
        tracker.sync(make_snapshot())


def test_a_killed_creation_leaves_no_partial_database(tmp_path: Path) -> None:
    """SIGKILL while MLflow creates its tables."""
    database = tmp_path / "mlflow.db"
    code = "import sys; from farsearch.tracking import open_tracking; open_tracking(sys.argv[1])"
    child = subprocess.Popen([sys.executable, "-c", code, f"sqlite:///{database}"])
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*/mlflow.db")):
        assert child.poll() is None
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert not database.exists()
    assert open_tracking(f"sqlite:///{database}").sync(make_snapshot()).created == 6


def test_invalid_addresses_are_refused() -> None:
    """An unknown scheme is bad input; an unreachable server is a missing resource, reported within seconds."""
    with pytest.raises(BadInput, match="'mlruns' is neither sqlite:///FILE nor"):
        open_tracking("mlruns")
    with pytest.raises(BadInput, match="options after a '\\?'"):
        open_tracking("sqlite:///what? now/mlflow.db")
    with pytest.raises(BadInput, match="names no file"):
        open_tracking("sqlite:///:memory:")
    with pytest.raises(BadInput, match="shows its own interface"):
        ui_command("http://127.0.0.1:5000", 5001)
    started = time.monotonic()
    with pytest.raises(MissingResource, match=r"MLflow server http://127\.0\.0\.1:9 does not answer"):
        open_tracking("http://127.0.0.1:9")
    assert time.monotonic() - started < 10


def test_a_study_that_is_not_mirrored_has_no_page(tracker: Tracker) -> None:
    assert tracker.trials("unknown") == {}
    with pytest.raises(MissingResource, match="does not hold study 'unknown'; farsearch sync puts it there"):
        tracker.experiment_url_path("unknown")


@contextlib.contextmanager
def _server(uri: str, folder: Path) -> Iterator[str]:
    """Run MLflow's own server on a free port, as ``farsearch ui`` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **UI_ENVIRONMENT}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(ui_command(uri, port), stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                    break
                assert process.poll() is None
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.service
def test_a_server_shows_and_stores_studies(tracker: Tracker, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A study sent over HTTP is stored exactly."""
    local, remote = make_snapshot(), make_snapshot(name="over-http")
    tracker.sync(local)
    picture = _artifacts(tracker, local) / "front.png"
    run = _run_ids(tracker, local)[local.name]
    with _server(tracker.uri, tmp_path) as address:
        with urllib.request.urlopen(f"{address}/get-artifact?path=front.png&run_uuid={run}") as served:
            assert served.read() == picture.read_bytes()
        over_http = open_tracking(address)
        assert over_http.differences(local) == []
        capfd.readouterr()
        assert over_http.sync(remote) == SyncResult(created=6, updated=0, unchanged=0)
        assert over_http.sync(remote) == SyncResult(created=0, updated=0, unchanged=6)
        assert capfd.readouterr() == ("", "")
        assert over_http.differences(remote) == []
        assert [file.path for file in _client(over_http).list_artifacts(_run_ids(over_http, remote)["over-http"])]
    started = time.monotonic()
    with pytest.raises(MissingResource, match="does not answer"):
        over_http.sync(remote)
    assert time.monotonic() - started < 10


def _writes(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record calls of MLflow's client that write to runs, with the run's id."""
    calls: list[str] = []
    for name in ("create_run", "delete_run", "log_batch", "set_tag", "log_inputs", "set_terminated", "update_run"):
        original = getattr(MlflowClient, name)

        def noted(
            self: MlflowClient, first: str, *args: Any, _name: str = name, _original: Any = original, **kwargs: Any
        ) -> Any:
            calls.append(f"{_name} {first}")
            return _original(self, first, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, noted)
    return calls


def test_following_a_search_writes_only_changes(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new trial's run is created, and that of a dominated trial renamed; others are not read."""
    first = make_snapshot(*make_snapshot().trials[:4], front={0, 2}, n_trials=6)
    tracker.follow(first)
    assert tracker.differences(first) == []
    ids = _run_ids(tracker, first)
    second = make_snapshot(*first.trials, make_trial(4, 0.85, 1150.0, 240.0), front={0, 4}, n_trials=6)
    calls = _writes(tracker, monkeypatch)
    tracker.follow(second)
    touched = {call.split()[1] for call in calls}
    monkeypatch.undo()
    after = _run_ids(tracker, second)
    assert tracker.differences(second) == []
    assert touched - {ids["trial 002"], ids[first.name], after["trial 004"]} <= {
        _experiment(_client(tracker), first.name).experiment_id
    }
    assert ids["trial 002"] in touched
    assert {name: run for name, run in after.items() if name != "trial 004"} == ids
    assert tracker.sync(second) == SyncResult(0, 0, 5)


def test_following_skips_running_trials(tracker: Tracker) -> None:
    """Another worker's trial gets a run when it has ended, so that no delayed mirror can revert it."""
    ended = make_trial(0, 0.7, 900.0, 90.0)
    running = make_trial(1, None, 1000.0, 100.0, state="running")
    tracker.follow(make_snapshot(ended, front={0}, n_trials=3))
    tracker.follow(make_snapshot(ended, running, front={0}, n_trials=3))
    assert set(tracker.trials(make_snapshot().name)) == {0}
    last = make_snapshot(ended, make_trial(1, 0.8, 1000.0, 100.0), front={0, 1}, n_trials=3)
    tracker.follow(last)
    assert tracker.differences(last) == []


def test_run_of_a_study_has_the_best_values_so_far(tracker: Tracker) -> None:
    """In the units and digits of people; the run stays the same when they change."""
    first, second = make_snapshot(*make_snapshot().trials[:2], front={0}, n_trials=6), make_snapshot()
    runs = []
    for snapshot in (first, second):
        tracker.sync(snapshot)
        runs.append(_client(tracker).get_run(_run_ids(tracker, snapshot)[snapshot.name]))
    assert runs[0].info.run_id == runs[1].info.run_id
    shown = [
        {name: run.data.metrics[name] for name in ("accuracy_percent", "memory_gib", "time_s", "trials_on_front")}
        for run in runs
    ]
    assert shown == [
        {"accuracy_percent": 80.0, "memory_gib": 0.98, "time_s": 200.0, "trials_on_front": 1.0},
        {"accuracy_percent": 85.5, "memory_gib": 0.98, "time_s": 200.0, "trials_on_front": 3.0},
    ]
    assert tracker.sync(second) == SyncResult(0, 0, 6)


def test_following_finds_runs_of_another_mirror(tracker: Tracker) -> None:
    """Two workers that mirror the same trial create one run."""
    other = open_tracking(tracker.uri)
    first = make_snapshot(*make_snapshot().trials[:1], front={0}, n_trials=6)
    second = make_snapshot(*make_snapshot().trials[:2], front={0}, n_trials=6)
    tracker.follow(first)
    other.follow(first)
    tracker.follow(second)
    ids = _run_ids(tracker, second)
    other.follow(second)
    assert _run_ids(tracker, second) == ids
    assert tracker.differences(second) == []


def test_following_draws_pictures_rarely(tracker: Tracker) -> None:
    """Pictures may be outdated until the final sync."""
    study = make_snapshot()
    tracker.follow(make_snapshot(*study.trials[:1], front={0}))
    tracker.follow(make_snapshot(*study.trials[:3], front={0, 2}))
    tracker.follow(study)
    shown = _artifacts(tracker, study) / "front.json"
    assert len(json.loads(shown.read_text())["trials"]) < 3
    tracker.sync(study)
    assert [row["number"] for row in json.loads(shown.read_text())["trials"]] == [0, 2, 4]


def test_following_catches_up_after_the_database_was_locked(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is reported within seconds, and the next call mirrors the missed trials."""
    study = make_snapshot()
    monkeypatch.setattr("farsearch.tracking.tracker._FOLLOW_PATIENCE_S", 0.1)
    tracker.follow(make_snapshot(*study.trials[:1], front={0}))
    with (
        open_tracking(tracker.uri)._connection.writing(),
        pytest.raises(MissingResource, match="is held by another process"),
    ):
        tracker.follow(make_snapshot(*study.trials[:2], front={0}))
    tracker.follow(study)
    assert tracker.differences(study) == []


def test_a_killed_sync_is_resumed(tmp_path: Path) -> None:
    """The next sync reuses the existing runs."""
    snapshot = make_snapshot(*[make_trial(i, 0.8, 1000.0 + i, 100.0) for i in range(60)], front={0})
    command = _write(snapshot, tmp_path)
    database = tmp_path / "mlflow.db"
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = 0
    while made < 10:
        assert child.poll() is None
        time.sleep(0.05)
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection,
        ):
            made = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    child.kill()
    child.wait()
    tracker = open_tracking(f"sqlite:///{database}")
    before = {name: run for name, run in _run_ids(tracker, snapshot).items() if name != snapshot.name}
    assert 0 < len(before) < 60
    result = tracker.sync(snapshot)
    # the run that was being written may be incomplete
    assert (result.created, result.removed) == (60 - len(before), 0)
    assert result.updated <= 1
    assert before.items() <= _run_ids(tracker, snapshot).items()
    assert tracker.differences(snapshot) == []
    assert tracker.sync(snapshot) == SyncResult(0, 0, 60)


def test_a_sync_of_a_mirrored_study_reads_no_trial(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in another process; a deleted run makes it read all."""
    snapshot = make_snapshot()
    tracker.sync(snapshot)
    monkeypatch.setattr("farsearch.tracking.tracker.read_runs", None)  # a call would raise
    assert open_tracking(tracker.uri).sync(snapshot) == SyncResult(0, 0, 6)
    monkeypatch.undo()
    _client(tracker).delete_run(_run_ids(tracker, snapshot)["trial 002"])
    assert open_tracking(tracker.uri).sync(snapshot) == SyncResult(1, 0, 5)
