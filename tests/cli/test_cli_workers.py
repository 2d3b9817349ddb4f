"""Several processes on one study: ``run --workers``, and ``worker`` from another folder, as on another host."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from farsearch.api.console import make_console
from farsearch.api.pool import Pool, worker_environment
from farsearch.api.progress import SearchProgress
from farsearch.errors import MissingResource
from farsearch.records import Trial, flat
from farsearch.study.store import Store
from tests.factories import make_snapshot
from tests.journey import (
    Watched,
    assert_whole,
    call,
    prepare,
    process,
    read_study,
    run_arguments,
    until,
    watch,
)
from tests.services import Postgres
from tests.tiny import make_bert

# trials of about a second, so that a signal after the start of one interrupts it
SLOW: dict[str, Any] = {"epochs": 6}


pytestmark = pytest.mark.slow
"""They start processes that load a model each."""


def load(folder: Path, storage: str | None = None) -> optuna.Study:
    """Return the study as Optuna stores it."""
    return Store(folder / ".farsearch", storage).load("tiny")


def workers_of(folder: Path, storage: str | None = None) -> set[str]:
    """Return names of the workers that trained trials."""
    return {trial.user_attrs["worker"] for trial in load(folder, storage).trials if trial.values}


def children(watched: Watched) -> list[int]:
    """Return ids of the command's running child processes."""
    tasks = Path(f"/proc/{watched.child.pid}/task").glob("*/children")
    return [int(number) for task in tasks for number in task.read_text().split()]


def in_work(folder: Path, count: int, storage: str | None = None) -> Callable[[], bool]:
    """Return a condition: at least ``count`` trials are running, each in a process of its own."""

    def look() -> bool:
        running = [
            trial
            for trial in read_study(folder, storage).trials
            if flat(trial).state == "running" and flat(trial).config
        ]
        return len(running) >= count

    return look


def test_two_workers_finish_a_study_together(storage: str | None, tmp_path: Path, tiny_bert: Path) -> None:
    """Each trial has a line, and the output ends as without workers.

    Only this run knows the data folder: an earlier run created the study with another one.
    """
    folder = prepare(tmp_path)
    (folder / "data").rename(folder / "elsewhere")
    assert call(folder, *run_arguments(tiny_bert, 1, storage=storage, data_dir="elsewhere")).code == 0
    (folder / "elsewhere").rename(folder / "data")
    done = process(folder, *run_arguments(tiny_bert, 5, storage=storage, workers=2))
    assert done.code == 0, done.err
    snapshot = assert_whole(folder, 5, storage)
    lines = re.findall(r"^\[(\d)/5\] trial (\d)  ", done.err, re.MULTILINE)
    assert sorted(number for _, number in lines) == [str(trial.number) for trial in snapshot.trials[1:]]
    assert done.out.startswith("tiny: Pareto front of 5 trained trials")
    assert "next:\n" in done.err
    assert "Traceback" not in done.err
    assert len(workers_of(folder, storage)) == 3
    first = snapshot.trials[0]
    assert isinstance(first, Trial)
    assert first.config.frozen_fractions == (0.0, 0.0), "what the space tries first comes first"


def test_two_workers_train_on_a_user_s_file(tmp_path: Path, tiny_bert: Path) -> None:
    """Both hold out the same rows for development, and the run reports it once."""
    folder = prepare(tmp_path)
    header, *rows = (folder / "data" / "train.tsv").read_text().splitlines()
    assert header == "sentence\tlabel"
    told = "".join(f"{text},{('no', 'yes')[int(label)]}\n" for text, label in (row.split("\t") for row in rows))
    (folder / "mine.csv").write_text(f"review,verdict\n{told}")
    words = run_arguments(
        tiny_bert, 4, task=None, data_dir=None, train="mine.csv", text_column="review", label_column="verdict",
        train_samples=200, workers=2,
    )  # fmt: skip
    done = process(folder, *words)
    assert done.code == 0, done.err
    assert_whole(folder, 4)
    assert done.err.count("no --dev: 96 of 480 rows are held out for development") == 1
    assert done.err.count("classification, accuracy; 2 classes: ") == 1


def test_a_killed_worker_is_replaced(storage: str | None, tmp_path: Path, tiny_bert: Path) -> None:
    """Another worker trains its trial, and the run completes the study."""
    folder = prepare(tmp_path)
    with watch(folder, *run_arguments(tiny_bert, 5, storage=storage, workers=2, **SLOW)) as run:
        run.until("] trial ")
        until(in_work(folder, 1, storage))
        killed = children(run)
        for number in killed:
            os.kill(number, signal.SIGKILL)
        done = run.end()
    assert done.code == 0, done.err
    assert len(killed) == 2
    assert done.err.count("was killed; another one takes its place") == 2
    snapshot = assert_whole(folder, 5, storage)
    # the second may have been killed before its trial had parameters
    reasons = {flat(trial).reason for trial in snapshot.trials if flat(trial).state == "fail"}
    assert "its process was killed" in reasons
    assert reasons <= {"its process was killed", "it was cut off while it was proposed"}
    assert not list((folder / ".farsearch" / "studies" / "tiny" / "workers").iterdir())


def test_a_run_ends_with_the_error_of_its_workers(tmp_path: Path, tiny_bert: Path) -> None:
    """Line and exit code are those of a run without workers."""
    folder = prepare(tmp_path)
    alone = process(folder, *run_arguments(tiny_bert, 2, max_memory=5))
    done = process(folder, *run_arguments(tiny_bert, 2, max_memory=5, workers=2))
    assert (alone.code, done.code) == (3, 3), done.err
    assert done.err.splitlines()[-1] == alone.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_run_ends_after_ten_kills_without_a_finished_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    environment = {**worker_environment(2, None), "PYTHONPATH": str(tmp_path)}
    console = make_console(stderr=True)
    progress = SearchProgress(console, 9, "accuracy", lambda _: None)
    unfinished = dataclasses.replace(make_snapshot(), n_trials=9)
    with pytest.raises(MissingResource, match=r"killed 10 times before one finished a trial: .*smaller `workers`"):
        Pool(2, ["tiny"], environment, progress, lambda: unfinished, lambda step: step()).run(None)
    assert 9 <= capsys.readouterr().err.count("another one takes its place") <= 10


WORKER = """\
    import json, os, signal, sys, time
    first = not os.path.exists("gave-up")
    if first and os.path.exists("other"):
        open("gave-up", "w").close()
        print(json.dumps({"event": "away"}), flush=True)
        print("farsearch: the storage db does not answer", file=sys.stderr, flush=True)
        os._exit(5)
    open("other", "w").close()
    while first and not os.path.exists("gave-up"):
        time.sleep(0.05)
    time.sleep(1.0)  # until the pool has seen that the other one ended
    print(json.dumps({"event": "finished", "number": 0 if first else 1}), flush=True)
    os._exit(0)
"""


def test_a_worker_restarts_when_the_storage_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two workers ends because the storage is away; it restarts when the other one reports a trial.

    A program replaces farsearch in both processes and prints a worker's events.
    """
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(WORKER))
    monkeypatch.chdir(tmp_path)
    environment = {**worker_environment(2, None), "PYTHONPATH": str(tmp_path)}
    progress = SearchProgress(make_console(stderr=True), 9, "accuracy", lambda _: None)
    complete = make_snapshot()
    Pool(2, ["tiny"], environment, progress, lambda: complete, lambda step: step()).run(None)
    told = capsys.readouterr().err
    assert "ended: the storage db does not answer" in told
    assert told.count("is started again") == 1


def test_workers_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one for each, unless the user sets a number; the storage address is in the environment."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0))
    assert worker_environment(1, None)["OMP_NUM_THREADS"] == str(cores)
    assert worker_environment(10 * cores, None)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = worker_environment(2, "postgresql://me:secret@host/db")
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["FARSEARCH_STORAGE"] == "postgresql://me:secret@host/db"


@pytest.mark.service
def test_a_worker_joins_from_another_folder(postgres: Postgres, tmp_path: Path, tiny_bert: Path) -> None:
    """It needs only the database's address and copies of data and model, but no space file.

    It ends when the study is complete, as the run that it joined.
    """
    folder, other = prepare(tmp_path / "first"), tmp_path / "second"
    other.mkdir()
    shutil.copytree(folder / "data", other / "mine")
    shutil.copytree(tiny_bert, other / tiny_bert.name)
    joining = ["worker", "tiny", "--storage", postgres.url, "--data-dir", "mine", "--model", f"./{tiny_bert.name}"]
    with watch(folder, *run_arguments(tiny_bert, 8, storage=postgres.url, **SLOW)) as run:
        run.until("] trial ")
        shutil.rmtree(folder / "data")
        (folder / "tiny.yaml").unlink()
        joined = process(other, *joining)
        done = run.end()
    assert (joined.code, done.code) == (0, 0), joined.err + done.err
    assert joined.out == ""
    assert "worker of study tiny in postgresql://" in joined.err
    assert len(re.findall(r"^\[\d/8\] trial \d  ", joined.err, re.MULTILINE)) >= 1
    assert len(workers_of(folder, postgres.url)) == 2
    assert_whole(folder, 8, postgres.url)
    again = process(other, *joining)
    assert again.code == 0
    assert "study tiny: 8 of 8 trials are done" in again.err


@pytest.mark.service
def test_a_suspended_worker_drops_a_trial_that_another_one_took(
    postgres: Postgres, tmp_path: Path, tiny_bert: Path
) -> None:
    """After its heartbeats were missed, its trial is given to another worker.

    The number of finished trials is exact, without duplicates, and both workers end without an error.
    """
    folder, other = prepare(tmp_path / "first"), prepare(tmp_path / "second")
    options = {"storage": postgres.url, "heartbeat": 1, **SLOW}
    with watch(folder, *run_arguments(tiny_bert, 3, **options)) as run:
        run.until("] trial ")
        until(in_work(folder, 1, postgres.url))
        os.killpg(run.child.pid, signal.SIGSTOP)
        done = process(other, *run_arguments(tiny_bert, 3, **options))
        assert done.code == 0, done.err
        os.killpg(run.child.pid, signal.SIGCONT)
        late = run.end()
    assert late.code == 0, late.err
    assert "was given to another worker while this one was away; its result is dropped" in late.err
    assert "its process was killed; it is tried again" in done.err
    snapshot = read_study(folder, postgres.url)
    finished = [repr(flat(trial).config) for trial in snapshot.trials if flat(trial).state == "complete"]
    assert len(finished) == len(set(finished)) == 3


def test_a_worker_with_other_data_or_weights_is_refused(finished_study: Path, tmp_path: Path, tiny_bert: Path) -> None:
    """Exit code 4, with the differences from the study's settings."""
    folder = shutil.copytree(finished_study, tmp_path / "copy")
    prepare(tmp_path / "other")
    with (tmp_path / "other" / "data" / "train.tsv").open("a") as file:
        file.write("one more good film\t1\n")
    model = make_bert(tmp_path / tiny_bert.name, seed=1)
    before = call(folder, "trials", "--json").out
    others = (
        (("--data-dir", tmp_path / "other" / "data"), "the rows differ"),
        (("--model", model), "job.weights: "),
    )
    for options, named in others:
        done = call(folder, "worker", "tiny", *options)
        assert (done.code, done.out) == (4, ""), done.err
        last = done.err.splitlines()[-1]
        assert "this host has other data, model or device than the study 'tiny' (here, there): " in last
        assert named in last
        assert "give the same with --data-dir, --model or --device" in last
    assert call(folder, "trials", "--json").out == before


def test_a_worker_needs_a_study_that_has_begun(finished_study: Path, tmp_path: Path) -> None:
    """A finished study ends it at once."""
    done = call(tmp_path, "worker", "tiny")
    assert done.code == 2
    assert "there is no study in" in done.err
    folder = shutil.copytree(finished_study, tmp_path / "copy")
    store = Store(folder / ".farsearch")
    held = store.load("tiny").user_attrs
    old = optuna.create_study(study_name="old", storage=store.storage, directions=["maximize", "minimize", "minimize"])
    for key in ("schema_version", "settings"):
        old.set_user_attr(key, held[key])
    old.set_user_attr("meta", {key: value for key, value in held["meta"].items() if key != "options"})
    done = call(folder, "worker", "old")
    assert done.code == 2
    assert "the study 'old' has not begun" in done.err
    old.set_user_attr("sampler", "tpe")
    done = call(folder, "worker", "old")
    assert done.code == 4
    assert "made by another version" in done.err
    assert call(folder, "worker", "tiny").code == 0
