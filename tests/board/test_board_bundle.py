"""A bundle on a board's software: training with Python 3.6, torch 1.10 and transformers 4.18 equals the workstation's.

``make test-board`` creates that Python; ``-s`` prints the table of predicted and measured figures.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

import farsearch.devices
from tests.board.test_board import PYTHON
from tests.journey import call, prepare, run_arguments
from tests.tiny import FAMILIES, make_bert, make_distilbert

pytestmark = [pytest.mark.board, pytest.mark.timeout(1200)]

MAKE = {"bert": make_bert, "distilbert": make_distilbert}

SETTINGS = [
    ("bert", "memory", 32),
    ("bert", "memory", 128),
    ("bert", "time", 128),
    ("distilbert", "memory", 128),
    ("distilbert", "time", 32),
    ("distilbert", "time", 128),
]
"""Family, what the step plan is chosen for, tokens."""


@pytest.fixture(scope="module")
def board() -> Path:
    """The board's Python."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    return PYTHON


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device whose CPU runs this board's torch: a Raspberry Pi's rates, and the memory behaviour of torch 1.10."""
    shipped = Path(farsearch.devices.__file__).parent / "profiles" / "raspberry-pi-4.toml"
    path = tmp_path_factory.mktemp("profiles") / "old-board.toml"
    text = shipped.read_text(encoding="utf-8").replace('name = "raspberry-pi-4"', 'name = "old-board"')
    lines = ['torch = "1.10"' if line.startswith("torch = ") else line for line in text.splitlines()]
    lines = ['attention = "eager"' if line.startswith("attention = ") else line for line in lines]
    lines = ["foreach = false" if line.startswith("foreach = ") else line for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def bundle_of(folder: Path, model: Path, profile: Path, **options: Any) -> Path:
    """A bundle of a study of one trial."""
    done = call(folder, *run_arguments(model, 1, device=profile, baselines="none", **options))
    assert done.code == 0, done.err
    done = call(folder, "export", "--trial", 0, "--out", "bundle")
    assert done.code == 0, done.err
    return folder / "bundle"


def on_board(board: Path, folder: Path, *arguments: object) -> dict[str, Any]:
    """Return the measurements of ``train.py`` on the board, which has a copy of the bundle and no farsearch."""
    shutil.copytree(folder / "bundle", folder / "there" / "bundle")
    done = subprocess.run(
        [board, "-I", "bundle/train.py", "--out", "tuned", *map(str, arguments)], cwd=folder / "there",
        capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads((folder / "there" / "tuned" / "measurement.json").read_text())
    return data


@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_the_board_equals_the_workstation(board: Path, profile: Path, tmp_path: Path, family: str) -> None:
    """The same losses and metric, and a model that both versions of transformers load.

    Without dropout: old and new versions of torch draw different masks of the same seed.
    """
    folder = prepare(tmp_path)
    model = MAKE[family](tmp_path / "model", dropout=0.0)
    bundle_of(folder, model, profile, train_samples=64, plan="memory")
    train, dev = folder / "data" / "dev.tsv", folder / "data" / "train.tsv"
    there = on_board(board, folder, "--train", train, "--dev", dev, "--binary")
    here = call(folder, "finetune", "bundle", "--train", train, "--dev", dev, "--out", "tuned")
    assert here.code == 0, here.err
    ours = json.loads((folder / "tuned" / "measurement.json").read_text())
    assert len(there["losses"]) == len(ours["losses"]) > 10
    torch.testing.assert_close(torch.tensor(there["losses"]), torch.tensor(ours["losses"]), rtol=1e-3, atol=1e-4)
    assert there["measured"]["metric"] == pytest.approx(ours["measured"]["metric"], abs=0.01)
    assert there["measured"]["software"]["torch"].startswith("1.10.")
    code = "import transformers; transformers.AutoModelForSequenceClassification.from_pretrained('tuned')"
    subprocess.run([board, "-I", "-c", code], cwd=folder / "there", check=True, capture_output=True)
    synced = call(folder, "sync", "--measurement", folder / "there" / "tuned" / "measurement.json")
    assert synced.code == 0, synced.err
    imported = call(folder, "devices", "import", "there/tuned/measurement.json", "--name", "mine", "--like", profile)
    assert imported.code == 0, imported.err


def long_rows(path: Path, tokens: int, count: int = 64) -> Path:
    """Rows that are all truncated at the length for which the peak is predicted."""
    words = [" ".join(random.Random(i).choices(["film", "good", "bad", "the", "a"], k=tokens)) for i in range(count)]
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(words)))
    return path


@pytest.fixture(scope="module")
def measured(board: Path, profile: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The board's measurements in each of the six settings."""
    found = []
    for family, plan, length in SETTINGS:
        folder = prepare(tmp_path_factory.mktemp(f"{family}-{plan}-{length}"))
        size = {"hidden": 320, "neurons": 1280, "layers": 4, "heads": 5, "vocabulary": 10000}
        model = MAKE[family](folder / "model", **size)
        rows = long_rows(folder / "long.tsv", length)
        bundle_of(folder, model, profile, train_samples=64, max_length=length, plan=plan)
        found.append(on_board(board, folder, "--train", rows, "--epochs", 2, "--threads", 1)["measured"])
    for setting, one in zip(SETTINGS, found, strict=True):
        tensors = one["peak_memory_mib"] - one["process_memory_mib"]
        predicted = one["predicted_memory_mib"] - one["predicted_process_mib"]
        print(
            f"{' '.join(map(str, setting)):24} tensors {tensors:6.1f} MiB, predicted {predicted:6.1f} "
            f"({predicted / tensors - 1:+.1%}); step {one['step_time_s']:.3f} s, of {one['predicted_time_s']:.1f} s"
        )
    return found


def test_the_peak_is_as_predicted(measured: list[dict[str, Any]]) -> None:
    """In all six settings, the process's memory is within 3 % of the bundle's prediction for that software."""
    for setting, one in zip(SETTINGS, measured, strict=True):
        tensors = one["peak_memory_mib"] - one["process_memory_mib"]
        predicted = one["predicted_memory_mib"] - one["predicted_process_mib"]
        assert predicted == pytest.approx(tensors, rel=0.03), setting


def test_the_times_are_in_the_predicted_order(measured: list[dict[str, Any]]) -> None:
    """The prediction is for another processor, so the times themselves differ."""
    times = [(one["predicted_time_s"], one["wall_time_s"]) for one in measured]
    assert stats.kendalltau(*zip(*times, strict=True)).statistic > 0.5
