"""``farsearch tasks``: the list of tasks, and the requirements of each."""

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
    """A line per task with kind, metric, number of rows and licence."""
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


def test_the_list_as_json_has_the_fields_of_show(tmp_path: Path) -> None:
    """Every task has the same keys."""
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
def test_every_metric_fits_the_kind_of_its_task(name: str) -> None:
    """Tasks are scored as their publishers score them."""
    assert TASKS[name].kind in METRICS[TASKS[name].metric].kinds


@pytest.mark.parametrize("name", [*NAMES, "reviews"])
def test_show_prints_the_requirements_of_a_task(tmp_path: Path, name: str) -> None:
    """Files, columns, labels, metric, rows, source, licence and a first command."""
    done = call(tmp_path, "tasks", "show", name)
    assert (done.code, done.err) == (0, "")
    spec, official = TASKS[name], OFFICIAL[name]
    assert done.out.startswith(f"{name}: {spec.title}\n")
    told = dict(line.split(maxsplit=1) for line in done.out.splitlines()[3:] if len(line.split(maxsplit=1)) == 2)
    assert told["licence"] == spec.licence
    assert official.source in " ".join(done.out.split())  # long cells take several lines
    assert told["metric"].startswith(spec.metric)
    assert told["rows"].startswith(f"train {official.rows['train']:,}, dev {official.rows['dev']:,}")
    assert all(file in told["files"] for file in official.files)
    assert told.get("labels", "") == ", ".join(f"{i} {label}" for i, label in enumerate(spec.labels))
    if spec.hub is not None:
        assert told["hub"] == f"{spec.hub[0]}, configuration {spec.hub[1]}"
    assert f"  farsearch run --device jetson-nano --task {name}\n" in done.out


@pytest.mark.parametrize("name", list(TABLES))
def test_the_columns_shown_equal_the_header_of_the_file(tmp_path: Path, name: str) -> None:
    task = json.loads(call(tmp_path, "tasks", "show", name, "--json").out)["task"]
    folder, head, line = TABLES[name]
    assert task["official"]["folder"] == folder
    assert task["official"]["header"] == bool(head)
    assert len(task["official"]["columns"]) == len(line.split("\t"))
    if head:
        assert task["official"]["columns"] == head.lstrip("\ufeff").split("\t")


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    """The line lists the tasks and suggests the closest one."""
    done = call(tmp_path, "tasks", "show", "squad2")
    assert (done.code, done.out) == (2, "")
    assert "the task 'squad2' is unknown; it must be one of cola, mnli, " in done.err
    assert done.err.rstrip().endswith("; did you mean 'squad'?")
