"""Every kind of task on a board's software: its old tokenizers and models learn what the workstation's learn."""

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
from tests.board.test_board import PYTHON
from tests.journey import chdir
from tests.tasks.layouts import write_task
from tests.tasks.searches import search_task, write_user_rows
from tests.tiny import make_bert

pytestmark = [pytest.mark.board, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("name", ["mrpc", "stsb", "mnli", "squad", "squad_v2"])
def test_a_kind_of_task_on_the_board(name: str, tmp_path: Path) -> None:
    """The same loss at each step and the same metric, without dropout: old and new torch draw different masks."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    model = make_bert(tmp_path / "model", dropout=0.0)
    with chdir(tmp_path):
        found = search_task(tmp_path, model, 1, task=name, data_dir=write_task(tmp_path, name))
    trial = found.snapshot.trials[0]
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
