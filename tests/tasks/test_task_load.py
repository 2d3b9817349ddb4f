"""Sources of a task's rows, and the errors when they are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from farsearch.errors import BadInput, MissingResource
from farsearch.runtime.task import Task
from farsearch.tasks import TASKS, Examples, TaskData, TaskSpec, get_task
from farsearch.tasks.load import load_task
from tests.tasks.layouts import GLUE, TABLES, examples_of, write_task

ROWS = "sentence\tlabel\ngood\t1\nbad\t0\n"


def test_an_unknown_task_suggests_known_ones() -> None:
    """The message names the value, the tasks, and the closest of them."""
    known = "cola, mnli, mrpc, qnli, qqp, reviews, rte, squad, squad_v2, sst2, stsb, wnli"
    with pytest.raises(BadInput, match=f"'SST-2' is unknown; it must be one of {known}; did you mean 'sst2'"):
        get_task("SST-2")
    with pytest.raises(BadInput, match=f"'xyz' is unknown; it must be one of {known}$"):
        get_task("xyz")


def test_the_parent_folder_is_accepted(tmp_path: Path) -> None:
    """``--data-dir`` takes the task's folder, or the GLUE folder above it."""
    (tmp_path / "SST-2").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "SST-2" / name).write_text(ROWS, encoding="utf-8")
    above, inside = load_task("sst2", tmp_path), load_task("sst2", tmp_path / "SST-2")
    assert above == inside
    assert above.source == "files in SST-2"


def test_a_folder_can_replace_the_packaged_reviews(tmp_path: Path) -> None:
    """Custom rows work for the task that has no GLUE folder."""
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(ROWS, encoding="utf-8")
    assert load_task("reviews", tmp_path).train.texts == (("good",), ("bad",))


def test_a_missing_folder_or_file_is_reported(tmp_path: Path) -> None:
    """The message has the expected path and a suggestion."""
    with pytest.raises(MissingResource, match=r"none' does not exist; pass `data_dir`"):
        load_task("sst2", tmp_path / "none")
    with pytest.raises(MissingResource, match=r"no train\.tsv in the folder .* or its parent with SST-2 in it"):
        load_task("sst2", tmp_path)
    (tmp_path / "train.tsv").write_text(ROWS, encoding="utf-8")
    with pytest.raises(MissingResource, match=r"no dev\.tsv in the folder"):
        load_task("sst2", tmp_path)


@pytest.mark.parametrize(
    ("name", "missing", "needs"),
    [
        (
            "mnli",
            "dev_mismatched.tsv",
            "train.tsv, dev_matched.tsv and dev_mismatched.tsv: pass `data_dir` the folder ",
        ),
        (
            "mrpc",
            "train.tsv",
            "train.tsv and dev.tsv: pass `data_dir` the folder that holds both, or its parent with M",
        ),
        ("squad", "dev-v1.1.json", "train-v1.1.json and dev-v1.1.json: pass `data_dir` the folder that holds both"),
    ],
)
def test_required_files_are_listed(tmp_path: Path, name: str, missing: str, needs: str) -> None:
    """The message names the missing file, and all files that the task needs."""
    folder = write_task(tmp_path, name, 9)
    (folder / missing).unlink()
    with pytest.raises(MissingResource) as caught:
        load_task(name, folder)
    assert f"no {missing} in the folder " in str(caught.value)
    assert f"task {name!r} needs {needs}" in str(caught.value)


@pytest.mark.parametrize("name", GLUE)
def test_the_download_folder_holds_every_task(tmp_path: Path, name: str) -> None:
    """``--data-dir`` of the whole GLUE download serves each of its tasks."""
    for each in GLUE:
        write_task(tmp_path, each, 9)
    data = load_task(name, tmp_path)
    assert data.train == examples_of(name, "train", 9)
    assert data.source.startswith(f"files in {TABLES[name][0]}")


def test_the_fingerprint_depends_on_the_rows_alone() -> None:
    """On texts, labels, order and part, not on the source of the rows."""
    spec, a, b = TASKS["sst2"], Examples((("x",), ("y",)), (0, 1)), Examples((("z",),), (0,))
    base = TaskData(spec, a, b, "here").fingerprint
    assert len(base) == 64
    assert TaskData(spec, a, b, "there").fingerprint == base
    others = [
        (Examples((("x ",), ("y",)), (0, 1)), b),
        (Examples((("x",), ("y",)), (1, 1)), b),
        (Examples((("x",), ("y",)), (0.5, 1)), b),
        (Examples((("y",), ("x",)), (1, 0)), b),
        (Examples((("x", "y"), ("y", "x")), (0, 1)), b),
        (Examples((("x",), ("y",), ("z",)), (0, 1, 0)), Examples((), ())),
        (b, a),
    ]
    prints = {TaskData(spec, train, dev, "here").fingerprint for train, dev in others}
    prints |= {TaskData(spec, a, b, "here", {name: part}).fingerprint for name in ("c", "d") for part in (a, b)}
    assert len(prints | {base}) == len(others) + 5


def test_take_preserves_the_requested_order() -> None:
    assert Examples((("x",), ("y",), ("z",)), (0, 1, 0)).take([2, 1]) == Examples((("z",), ("y",)), (0, 1))


def test_every_official_task_has_a_hub_dataset() -> None:
    """Including the names of its splits."""
    sets = {name: spec.hub for name, spec in TASKS.items() if spec.hub is not None}
    assert sets == {name: ("nyu-mll/glue", name) for name in GLUE} | {
        "squad": ("rajpurkar/squad", "plain_text"),
        "squad_v2": ("rajpurkar/squad_v2", "squad_v2"),
    }


@pytest.mark.parametrize("spec", TASKS.values(), ids=list(TASKS))
def test_a_task_survives_a_json_round_trip(spec: TaskSpec) -> None:
    """Studies and bundles store it; so does the part that a board reads."""
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert Task.from_dict(json.loads(json.dumps(spec.task.to_dict()))) == spec.task


def test_an_unknown_key_of_a_task_is_refused() -> None:
    """Also a missing key and an unknown kind."""
    good = TASKS["sst2"].to_dict()
    with pytest.raises(BadInput, match="unknown key 'metrics'"):
        TaskSpec.from_dict({**good, "metrics": "f1"})
    with pytest.raises(BadInput, match="lacks the key 'metric'"):
        TaskSpec.from_dict({key: value for key, value in good.items() if key != "metric"})
    with pytest.raises(BadInput, match=r"\.kind is 'ranking'; it must be one of 'classification', "):
        TaskSpec.from_dict({**good, "kind": "ranking"})


def test_importing_tasks_loads_no_vendor() -> None:
    """The command line can list tasks and read files without importing datasets, evaluate or torch."""
    code = (
        "import sys, farsearch.tasks, farsearch.tasks.load, farsearch.tasks.split\n"
        "print(sorted({'datasets', 'evaluate', 'torch', 'transformers', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
