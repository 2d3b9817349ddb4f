"""Every kind of task on a board's software: old tokenizers and models train as the workstation's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from farsearch.bundle.read import finetune, read_bundle
from farsearch.bundle.write import write_bundle
from farsearch.runtime.rows import read_rows
from tests.board.test_board import PYTHON, copy_code
from tests.journey import chdir
from tests.tasks.forms import CASES, loaded, made
from tests.tasks.layouts import write_task
from tests.tasks.searches import search_task, write_user_rows
from tests.tiny import make_bert

pytestmark = [pytest.mark.board, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("name", ["mrpc", "stsb", "mnli", "squad", "squad_v2"])
def test_a_kind_of_task_on_the_board(name: str, tmp_path: Path) -> None:
    """The same losses and metric, without dropout: old and new torch draw different masks."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    model = make_bert(tmp_path / "model", dropout=0.0)
    with chdir(tmp_path):
        found = search_task(tmp_path, model, 1, task=name, data_dir=write_task(tmp_path, name))
    (trial,) = found.snapshot.complete
    write_bundle(found.snapshot, trial, found.search.folder, tmp_path / "bundle", "a test", home=tmp_path / "home")
    train, dev = (write_user_rows(tmp_path, found.bench, part) for part in ("train", "dev"))
    here = finetune(read_bundle(tmp_path / "bundle"), train, dev, tmp_path / "tuned")
    shutil.copytree(tmp_path / "bundle", tmp_path / "there" / "bundle")
    done = subprocess.run(
        [PYTHON, "-I", "bundle/train.py", "--train", train, "--dev", dev, "--out", "tuned"], cwd=tmp_path / "there",
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        json.loads((folder / "tuned" / "measurement.json").read_text()) for folder in (tmp_path, tmp_path / "there")
    )
    assert len(theirs["losses"]) == len(ours["losses"]) == here.steps
    torch.testing.assert_close(torch.tensor(theirs["losses"]), torch.tensor(ours["losses"]), rtol=1e-3, atol=1e-4)
    assert theirs["measured"]["metric"] == pytest.approx(ours["measured"]["metric"], abs=0.02)


READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from board.runtime.rows import read_rows
from board.runtime.task import Task
for path, task in json.load(sys.stdin):
    print(json.dumps(read_rows(path, Task.from_dict(task))))
"""


def test_every_form_on_the_board(tmp_path: Path) -> None:
    """The old Python reads the same rows from each file that is marked as supported on a board."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    asked, expected = [], []
    for number, case in enumerate(case for case in CASES.values() if case.board):
        (tmp_path / str(number)).mkdir()
        path = made(case, tmp_path / str(number))
        task = loaded(path, case.options).spec.task
        asked.append((str(path), task.to_dict()))
        expected.append(json.loads(json.dumps(read_rows(str(path), task))))
    copy_code(tmp_path / "board")
    done = subprocess.run(
        [PYTHON, "-I", "-c", READ, tmp_path], input=json.dumps(asked), capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
