"""Commands that read a study: tables, JSON for programs, and equal values in both."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from farsearch.devices import list_profiles
from farsearch.records import FarConfig, StepPlan
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.tracking import open_tracking
from tests.journey import call, chdir, run_arguments, start

TRIAL_KEYS = [
    "number", "state", "metric", "learned", "dev_metric", "peak_memory_mib", "wall_time_s", "energy_j", "feasible",
    "on_front", "config", "plan",
]  # fmt: skip


def copy_of(study: Path, folder: Path) -> Path:
    """Copy the study, so that a test may change it."""
    return Path(shutil.copytree(study, folder / "copy"))


def test_optuna_json_and_mlflow_agree_on_every_value(finished_study: Path) -> None:
    store = Store(finished_study / ".farsearch")
    told = {trial.number: trial for trial in store.load("tiny").trials}
    printed = {trial["number"]: trial for trial in call(finished_study, "trials", "--json").json["trials"]}
    with chdir(finished_study):
        tracker = open_tracking("sqlite:///mlflow.db")
        mirrored = tracker.trials("tiny")
        assert tracker.differences(snapshot_of(store.load("tiny"))) == []
    assert set(told) == set(printed) == set(mirrored) == set(range(9))
    for number, trial in told.items():
        row, metrics = printed[number], mirrored[number]["metrics"]
        assert trial.values == [row["metric"], row["peak_memory_mib"], row["wall_time_s"]]
        names = ("validation_accuracy", "peak_memory_mib", "wall_time_s")
        assert [metrics[name] for name in names] == trial.values
        assert (metrics["dev_accuracy"], metrics["energy_j"]) == (row["dev_metric"], row["energy_j"])
        params = mirrored[number]["params"]
        assert float(params["learning_rate"]) == row["config"]["learning_rate"] == trial.params["learning_rate"]
        fractions = [trial.params[f"frozen_fraction_layer_{i}"] for i in range(2)]
        assert row["config"]["frozen_fractions"] == pytest.approx(fractions)


@pytest.mark.parametrize("command", ["trials", "pareto"])
def test_json_has_the_documented_shape(finished_study: Path, command: str) -> None:
    """Trials have exactly the documented keys; configurations and plans pass the strict decoder."""
    done = call(finished_study, command, "tiny", "--json")
    assert (done.code, done.err) == (0, "")
    assert list(done.json) == ["schema_version", "study", "constant_answer", "choices", "trials", "baselines"]
    assert (done.json["schema_version"], done.json["study"]) == (1, "tiny")
    for trial in done.json["trials"]:
        assert list(trial) == TRIAL_KEYS
        FarConfig.from_dict(trial["config"])
        StepPlan.from_dict(trial["plan"])
    on_front = [trial["on_front"] for trial in done.json["trials"]]
    assert all(on_front) if command == "pareto" else not all(on_front)


def test_pareto_lists_the_trials_that_no_other_dominates(finished_study: Path) -> None:
    """Sorted by memory; what learned next to nothing and the second of two equal trials are left out."""
    trials = call(finished_study, "trials", "--json").json["trials"]
    costs = {t["number"]: (-t["metric"], t["peak_memory_mib"], t["wall_time_s"]) for t in trials}

    def dominated(number: int) -> bool:
        mine = costs[number]
        return any(c != mine and all(a <= b for a, b in zip(c, mine, strict=True)) for c in costs.values())

    front = call(finished_study, "pareto", "--json").json["trials"]
    members = {trial["number"] for trial in front}
    assert members <= {number for number in costs if not dominated(number)}
    best, shown = min(costs.values())[0], [costs[number] for number in members]
    assert all(dominated(n) or costs[n] in shown or costs[n][0] > best for n in costs.keys() - members)
    assert [t["peak_memory_mib"] for t in front] == sorted(t["peak_memory_mib"] for t in front)


def test_status_reports_progress_and_cached_primings(finished_study: Path) -> None:
    text = call(finished_study, "status").out
    data = call(finished_study, "status", "--json").json
    assert text.splitlines()[0] == "study tiny: 9 of 9 trials are done"
    assert (data["schema_version"], data["study"], data["n_trials"], data["complete"]) == (1, "tiny", 9, 9)
    trials = call(finished_study, "trials", "--json").json["trials"]
    assert data["best_metric"] == max(trial["metric"] for trial in trials)
    primed = sum(trial["config"]["priming_epochs"] > 0 for trial in trials)
    assert (data["primings"], data["primings_from_cache"]) == (primed, primed - 1)
    assert f"primings that came from the cache: {primed - 1} of {primed}" in text


def test_tables_in_a_pipe_are_neither_wrapped_nor_coloured(finished_study: Path) -> None:
    """Whatever the width of the terminal."""
    done = call(finished_study, "trials")
    lines = [line.rstrip() for line in done.out.splitlines() if line.strip()]
    assert "…" not in done.out
    assert "\x1b" not in done.out
    rows = lines[3:-1]
    assert lines[-1].startswith("a constant answer (")
    assert [line.split()[0] for line in rows] == [str(number) for number in range(9)]
    assert all(line.endswith(("complete", "front")) for line in rows)
    assert len({len(line.rstrip()) for line in lines[1:2]}) == 1


def test_show_prints_reason_and_details_of_a_trial(finished_study: Path) -> None:
    """The knee by default."""
    knee, best = call(finished_study, "show"), call(finished_study, "show", "--prefer", "accuracy")
    assert knee.out.startswith("study tiny, trial ")
    assert "Trial " in knee.out.splitlines()[1]
    for word in ("peak memory", "device time", "by layer, from the bottom", "learning rate", "priming", "loss"):
        assert word in knee.out
    assert "best metric" in best.out
    data = call(finished_study, "show", "--trial", 0, "--json").json
    assert (data["schema_version"], data["trial"]["number"]) == (1, 0)
    assert data["trial"]["curve"][-1]["step"] == 60


def test_a_stopped_trial_is_shown_with_its_reason(finished_study: Path, tmp_path: Path) -> None:
    folder = copy_of(finished_study, tmp_path)
    study = Store(folder / ".farsearch").load("tiny")
    trial = study.ask()
    trial.set_user_attr("reason", "the loss of step 3 is nan")
    study.tell(trial, state=__import__("optuna").trial.TrialState.PRUNED)
    done = call(folder, "show", "--trial", 9)
    assert done.code == 0
    assert "Trial 9 has no result: pruned, the loss of step 3 is nan." in done.out
    assert "9  " in call(folder, "trials").out
    assert call(folder, "export", "--trial", 9, "--out", "b").code == 2


def test_unknown_trials_and_studies_are_refused(finished_study: Path, tmp_path: Path) -> None:
    """One line, with the closest name."""
    done = call(finished_study, "show", "--trial", 99)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "trial 99 is not in study tiny" in done.err
    done = call(finished_study, "pareto", "tinny")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the study 'tinny' is not in" in done.err
    assert "did you mean 'tiny'" in done.err
    for command in ("status", "trials", "pareto", "show", "sync", "ui", "export --out b"):
        done = call(tmp_path, *command.split())
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "make one with: farsearch run" in done.err
    assert not list(tmp_path.iterdir())


def test_pareto_draws_the_front_on_request(finished_study: Path, tmp_path: Path) -> None:
    """A path that can't be written gives one line."""
    done = call(finished_study, "pareto", "--png", tmp_path / "front.png")
    assert done.code == 0, done.err
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").write_text("")
    done = call(finished_study, "pareto", "--png", tmp_path / "file" / "front.png")
    assert (done.code, done.err.count("\n")) == (5, 1)


def test_sync_restores_the_mirror_from_the_study(finished_study: Path, tmp_path: Path) -> None:
    """A second sync changes nothing."""
    uri = f"sqlite:///{tmp_path}/again.db"
    first = call(finished_study, "sync", "--tracking-uri", uri)
    second = call(finished_study, "sync", "--tracking-uri", uri)
    assert "9 runs made, 0 updated" in first.out
    assert "0 runs made, 0 updated, 9 were right" in second.out
    study = snapshot_of(Store(finished_study / ".farsearch").load("tiny"))
    assert open_tracking(uri).differences(study) == []


def test_a_port_in_use_is_refused(finished_study: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call(finished_study, "ui", "--port", port)
    assert (done.code, done.err.count("\n")) == (5, 1)
    assert f"port {port} is in use; give another with --port" in done.err


def names_of(folder: Path) -> list[str]:
    """Return names of the studies in a folder."""
    return [study["name"] for study in call(folder, "studies", "list", "--json").json["studies"]]


def test_studies_are_listed_with_last_use_progress_and_device(finished_study: Path) -> None:
    study = call(finished_study, "studies", "list", "--json").json["studies"][0]
    last = datetime.datetime.fromisoformat(study.pop("last_used"))
    assert study == {"name": "tiny", "device": "jetson-nano", "n_trials": 9, "trained": 9, "running": 0}
    assert datetime.timedelta(0) <= datetime.datetime.now() - last < datetime.timedelta(days=1)
    header, *_, line = call(finished_study, "studies", "list").out.splitlines()
    assert "last used" in header
    assert line.split() == ["tiny", "9", "of", "9", "jetson-nano", *last.strftime("%Y-%m-%d %H:%M").split()]


def test_renaming_a_study_preserves_its_runs(finished_study: Path, tmp_path: Path) -> None:
    """Experiment, runs and artifacts get the new name; run ids stay."""
    folder = copy_of(finished_study, tmp_path)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert call(folder, "sync").code == 0

    def runs(name: str) -> dict[str, str]:
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        return {run.info.run_id: run.info.run_name for run in client.search_runs([experiment.experiment_id])}

    before = runs("tiny")
    done = call(folder, "studies", "rename", "tiny", "new")
    assert (done.code, done.out) == (0, "renamed tiny to new\n"), done.err
    assert (names_of(folder), client.get_experiment_by_name("tiny")) == (["new"], None)
    assert runs("new") == {run: "new" if name == "tiny" else name for run, name in before.items()}
    renamed = client.get_experiment_by_name("new")
    assert renamed is not None
    views = [key for key in renamed.tags if key.startswith("mlflow.sharedViewState.")]
    assert len(views) == 2
    assert ": 0 runs made, 0 updated" in call(folder, "sync", "new").out
    assert call(folder, "export", "new", "--out", "bundle").code == 0


def test_a_study_is_not_renamed_to_an_existing_experiment(finished_study: Path, tmp_path: Path) -> None:
    """MLflow may contain an experiment of that name without a study."""
    folder = copy_of(finished_study, tmp_path)
    MlflowClient(f"sqlite:///{folder}/mlflow.db").create_experiment("mine")
    done = call(folder, "studies", "rename", "tiny", "mine")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "MLflow already has an experiment 'mine'" in done.err
    assert names_of(folder) == ["tiny"]


def test_delete_removes_runs_on_request(finished_study: Path, tmp_path: Path) -> None:
    """With the study, or later; a new study can have the name."""
    folder = copy_of(finished_study, tmp_path)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert call(folder, "sync").code == 0
    assert call(folder, "studies", "delete", "tiny", "--yes").code == 0
    done = call(folder, "studies", "delete", "tiny", "--mlflow", "--yes")
    assert (done.code, done.out.startswith("deleted 10 runs in MLflow")) == (0, True), done
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert experiment.lifecycle_stage == "deleted"
    again = call(folder, "studies", "delete", "tiny", "--mlflow", "--yes")
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_studies_are_listed_and_deleted(finished_study: Path, tmp_path: Path) -> None:
    """Deletion requires a confirmation or ``--yes``, and includes the tensors."""
    folder = copy_of(finished_study, tmp_path)
    assert names_of(folder) == ["tiny"]
    asked = subprocess.run(
        [sys.executable, "-m", "farsearch", "studies", "delete", "tiny"],
        cwd=folder, input="n\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.returncode != 0
    assert "Traceback" not in asked.stderr
    assert names_of(folder) == ["tiny"]
    done = call(folder, "studies", "delete", "tiny", "--yes")
    assert done.out == "deleted tiny\n"
    assert "its runs in MLflow stay; to delete them too: farsearch studies delete tiny --mlflow" in done.err
    assert names_of(folder) == []
    assert not (folder / ".farsearch" / "studies" / "tiny").exists()
    assert call(folder, "studies", "delete", "tiny", "--yes").code == 2


def test_devices_spaces_and_tasks_are_listed(tmp_path: Path) -> None:
    devices = call(tmp_path, "devices", "list").out
    assert [line.split()[0] for line in devices.splitlines()] == ["name", *list_profiles(), "local"]
    assert {"jetson-nano", "jetson-orin-nano", "jetson-tx2", "jetson-xavier-nx", "raspberry-pi-4"} <= {*list_profiles()}
    shown = call(tmp_path, "devices", "show", "jetson-nano").out
    assert "gemm_gflops" in shown
    assert "…" not in shown
    assert [line.split()[0] for line in call(tmp_path, "spaces", "list").out.splitlines()] == [
        "default", "paper",
    ]  # fmt: skip
    assert {line.split()[0] for line in call(tmp_path, "tasks", "list").out.splitlines()} >= {"sst2", "cola", "reviews"}


def test_a_shipped_space_can_be_saved_and_edited(tmp_path: Path) -> None:
    """``spaces check`` accepts the output of ``spaces show``, and reports a mistake in one line."""
    text = call(tmp_path, "spaces", "show", "default").out
    (tmp_path / "mine.yaml").write_text(text)
    assert call(tmp_path, "spaces", "check", "mine.yaml").out.startswith("mine.yaml: right, 7 searched")
    (tmp_path / "mine.yaml").write_text(text.replace("learning_rate:", "learning_rat:"))
    done = call(tmp_path, "spaces", "check", "mine.yaml")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "'mine.yaml'" in done.err
    assert "did you mean 'learning_rate'" in done.err


def test_a_space_is_resolved_for_a_model(tmp_path: Path) -> None:
    """Groups of layers and ranges depend on the model's size; the output is a valid space file."""
    listed = call(tmp_path, "spaces", "list", "--model", "bert-base-uncased").out
    assert listed.startswith("bert-base-uncased: size base, 85.1 M parameters in 12 layers; batch 16, ")
    assert (
        "13 parameters; frozen fractions of the layers 0-1, 2-3, 4-5, 6-7, 8-9, 10-11; "
        "frozen heads of the layers 0-5, 6-11; learning rates 1e-05 to " in listed
    )
    shown = call(tmp_path, "spaces", "show", "default", "--model", "bert-base-uncased").out
    assert "learning_rate: {low: 1.0e-05, high: 0.0002, log: true}" in shown
    # another model: groups follow its layers, rates come from the file, and two of the starts are outside of them
    (tmp_path / "mine.yaml").write_text(shown.replace("high: 0.0002", "high: 0.00008"))
    checked = call(tmp_path, "spaces", "check", "mine.yaml", "--model", "minilm").out.splitlines()
    assert checked[0].startswith("mine.yaml: right for minilm: size tiny, 10.6 M parameters in 6 layers; batch 8")
    assert checked[1] == (
        "13 parameters; frozen fractions of the layers 0, 1, 2, 3, 4, 5; frozen heads of the layers 0-2, 3-5; "
        "learning rates 1e-05 to 8e-05"
    )
    assert sorted(checked[2:]) == [
        "not tried first, for it is not in the space: FAR r=10 % as published",
        "not tried first, for it is not in the space: all feed-forward blocks and embeddings frozen",
    ]
    done = call(tmp_path, "spaces", "list", "--model", "./nosuch")
    assert (done.code, done.err.count("\n")) == (2, 1)


def on_a_terminal(folder: Path, *arguments: object, **environment: str) -> tuple[int, str]:
    """Run a command with a terminal of 200 columns. Return exit code and output."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    env: dict[str, Any] = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **environment}
    with start(folder, *arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=env, text=False) as child:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break  # raised by Linux when the other end is closed
            if not part:
                break
            parts.append(part)
        child.wait(timeout=60)
    os.close(ours)
    return child.returncode, b"".join(parts).decode()


@pytest.mark.slow
def test_a_terminal_has_a_live_progress_line(finished_study: Path, tmp_path: Path, tiny_bert: Path) -> None:
    """With trials, best metric, step and loss; NO_COLOR is respected."""
    folder = copy_of(finished_study, tmp_path)
    code, text = on_a_terminal(folder, *run_arguments(tiny_bert, 11), NO_COLOR="1")
    assert code == 0, text
    assert "\x1b[2K" in text, "the line is drawn anew"
    assert "9/11" in text
    assert re.search(r"best \d\d\.\d %", text)
    assert re.search(r"step \d+/60, loss \d\.\d\d\d", text)
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|38;|9[0-7])[0-9;]*m", text), "no colour"
    assert "resuming study tiny: 9 of 11 trials are done" in text


def test_json_does_not_depend_on_the_terminal(finished_study: Path) -> None:
    code, text = on_a_terminal(finished_study, "pareto", "--json")
    assert code == 0
    assert json.loads(text)["study"] == "tiny"


def test_the_score_of_a_constant_answer_is_shown_with_the_metric(finished_study: Path) -> None:
    """In tables, JSON and MLflow."""
    data = call(finished_study, "pareto", "--json").json["constant_answer"]
    rows = (finished_study / "data" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    labels = [row[-1] for row in rows]
    assert data["dev"]["value"] == max(labels.count("0"), labels.count("1")) / len(labels)
    assert 0.4 < data["validation"]["value"] < 0.6
    said = f"a constant answer ({data['validation']['answer']}) scores {100 * data['validation']['value']:.1f} %"
    for command in ("status", "trials", "pareto", "show"):
        assert said in call(finished_study, command).out
        assert call(finished_study, command, "--json").json["constant_answer"] == data
    with chdir(finished_study):
        metrics = open_tracking("sqlite:///mlflow.db").trials("tiny")[0]["metrics"]
    assert (metrics["constant_answer"], metrics["dev_constant_answer"]) == (
        data["validation"]["value"], data["dev"]["value"]
    )  # fmt: skip


def test_status_shows_the_inferred_schema_of_the_rows(finished_study: Path) -> None:
    done = call(finished_study, "status")
    assert "480 training and 120 development rows; text: sentence; label: label" in done.out
    assert call(finished_study, "status", "--json").json["understood"]["counts"] == {"negative": 300, "positive": 300}
