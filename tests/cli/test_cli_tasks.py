"""``farsearch tasks``: what there is, and what each task needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farsearch.runtime.scores import METRICS
from farsearch.tasks import TASKS
from farsearch.tasks.official import OFFICIAL
from tests.journey import call
from tests.tasks.layouts import NAMES, TABLES


def test_the_list_has_every_task(tmp_path: Path) -> None:
    """A line a task: its kind, its metric, how many rows it has and under which terms."""
    done = call(tmp_path, "tasks", "list")
    assert (done.code, done.err) == (0, "")
    head, *lines = done.out.splitlines()
    assert head.split() == ["task", "kind", "metric", "train", "dev", "licence"]
    assert [line.split()[0] for line in lines] == list(TASKS)
    assert [*NAMES, "reviews"] == list(TASKS)
    for line, spec in zip(lines, TASKS.values(), strict=True):
        name, kind, metric, train, dev = line.split()[:5]
        rows = OFFICIAL[name].rows
        assert (kind, metric) == (spec.kind, spec.metric)
        assert (train, dev) == (f"{rows['train']:,}", f"{rows['dev']:,}")
        assert line.endswith(f"  {spec.licence}")
    assert max(len(line) for line in lines) <= 140


def test_the_list_for_programs(tmp_path: Path) -> None:
    """``--json`` has all that ``show`` has, by the same keys for each task."""
    done = call(tmp_path, "tasks", "list", "--json")
    listed = json.loads(done.out)
    assert listed["schema_version"] == 1
    assert [task["name"] for task in listed["tasks"]] == list(TASKS)
    for task in listed["tasks"]:
        assert json.loads(call(tmp_path, "tasks", "show", task["name"], "--json").out) == {
            "schema_version": 1,
            "task": task,
        }
        assert task["metric_parts"] == list(METRICS[task["metric"]].parts)
    assert {len(task) for task in listed["tasks"]} == {len(listed["tasks"][0])}


@pytest.mark.parametrize("name", [*NAMES, "reviews"])
def test_every_metric_is_one_for_the_kind_of_its_task(name: str) -> None:
    """A task is scored as its publishers score it, by a metric that there is."""
    assert TASKS[name].kind in METRICS[TASKS[name].metric].kinds


@pytest.mark.parametrize("name", [*NAMES, "reviews"])
def test_show_says_what_a_task_needs(tmp_path: Path, name: str) -> None:
    """Files, columns, labels, metric, rows, source, licence and a command to begin with."""
    done = call(tmp_path, "tasks", "show", name)
    assert (done.code, done.err) == (0, "")
    spec, official = TASKS[name], OFFICIAL[name]
    assert done.out.startswith(f"{name}: {spec.title}\n")
    told = dict(line.split(maxsplit=1) for line in done.out.splitlines()[3:] if len(line.split(maxsplit=1)) == 2)
    assert told["licence"] == spec.licence
    assert told["cite"] == official.source
    assert told["metric"].startswith(spec.metric)
    assert told["rows"].startswith(f"train {official.rows['train']:,}, dev {official.rows['dev']:,}")
    assert all(file in told["files"] for file in official.files)
    assert told.get("labels", "") == ", ".join(f"{i} {label}" for i, label in enumerate(spec.labels))
    if spec.hub is not None:
        assert told["hub"] == f"{spec.hub[0]}, configuration {spec.hub[1]}"
    assert f"  farsearch run --device jetson-nano --task {name}\n" in done.out


@pytest.mark.parametrize("name", list(TABLES))
def test_the_columns_shown_are_those_of_the_files(tmp_path: Path, name: str) -> None:
    """What is said of an official training file is its header, word by word."""
    task = json.loads(call(tmp_path, "tasks", "show", name, "--json").out)["task"]
    folder, head, line = TABLES[name]
    assert task["official"]["folder"] == folder
    assert task["official"]["header"] == bool(head)
    assert len(task["official"]["columns"]) == len(line.split("\t"))
    if head:
        assert task["official"]["columns"] == head.lstrip("\ufeff").split("\t")


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    """The line names the tasks there are and the closest one; exit code 2."""
    done = call(tmp_path, "tasks", "show", "squad2")
    assert (done.code, done.out) == (2, "")
    assert "the task 'squad2' is unknown; it must be one of cola, mnli, " in done.err
    assert done.err.rstrip().endswith("; did you mean 'squad'?")
