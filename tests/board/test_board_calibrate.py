"""The calibration script on a board: it runs alone under Python 3.6 and torch 1.10, and its result is imported here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from farsearch.calibration.result import read_result
from farsearch.devices.profile import read_profile
from tests.journey import call

pytestmark = pytest.mark.board

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / os.environ.get("FARSEARCH_BOARD_PYTHON", ".venv-board/bin/python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and with the result of the board's Python."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    folder = tmp_path_factory.mktemp("board")
    assert call(folder, "devices", "calibrate", "--script", "calibrate.py").code == 0
    done = subprocess.run(
        [PYTHON, "-I", "calibrate.py", "--out", "board.json", "--seconds", "2", "--threads", "1"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("wrote board.json; on the workstation: farsearch devices import")
    return folder


def test_the_script_measures_on_a_board(folder: Path) -> None:
    """It reports the old versions, and measures every case except the kernel that torch 1.10 lacks."""
    result = read_result(folder / "board.json")
    assert result.machine.torch.startswith("1.10.")
    assert result.machine.python.startswith("3.6.")
    assert result.machine.threads == 1
    assert result.samples
    assert "fused_adamw" not in {sample.case for sample in result.samples}
    assert result.launch.operation < result.launch.tiny_step
    assert not list(folder.glob("*.part"))


def test_every_case_but_the_fused_kernel_runs_on_a_board(folder: Path) -> None:
    """Once each, at the smallest size: a slow machine has no time for all of them."""
    code = (
        "import json, torch, calibrate as c\n"
        "missing = []\n"
        "take = lambda *shapes: [torch.rand(shape) for shape in shapes]\n"
        "for name in c.CASES:\n"
        "    dims = min((d for n, d in c.cases('products') + c.cases('streams') if n == name), key=sum)\n"
        "    try:\n"
        "        with torch.no_grad():\n"
        "            c.make_call(name, dims, take)()\n"
        "    except (AttributeError, RuntimeError, TypeError):\n"
        "        missing.append(name)\n"
        "print(json.dumps(missing))\n"
    )
    done = subprocess.run([PYTHON, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=100)
    assert json.loads(done.stdout) == ["fused_adamw"]


def test_its_result_is_a_valid_profile(folder: Path) -> None:
    """Attention is as before torch 2.0, nothing is fused, and a model is priced on it."""
    done = call(folder, "devices", "import", "board.json", "--name", "old-board")
    assert done.code == 0, done.err
    profile = read_profile(folder / ".farsearch" / "devices" / "old-board.toml")
    assert (profile.name, profile.attention, profile.foreach) == ("old-board", "eager", False)
    assert profile.rates is not None
    assert "fused" not in profile.rates.streams
    model = "google/bert_uncased_L-2_H-128_A-2"
    done = call(folder, "estimate", "--device", "old-board", "--model", model, "--batch-size", 4, "--json")
    assert done.code == 0, done.err
    assert done.json["step_time_s"] > 0


def test_the_engine_without_torch_is_measured_on_a_board(tmp_path: Path) -> None:
    """By onnxruntime 1.10 and numpy alone; its result gives a profile the engine's own figures."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    assert call(tmp_path, "devices", "calibrate", "--engine", "onnx", "--script", "calibrate.py").code == 0
    done = subprocess.run(
        [PYTHON, "-I", "calibrate.py", "--out", "board.json", "--seconds", "5", "--threads", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    result = read_result(tmp_path / "board.json")
    assert (result.engine, result.machine.onnxruntime[:5], result.machine.python[:4]) == ("onnx", "1.10.", "3.6.")
    assert result.sustained
    words = ("devices", "import", "board.json", "--name", "zero", "--like", "raspberry-pi-zero-2-w")
    assert call(tmp_path, *words).code == 0
    profile = read_profile(tmp_path / ".farsearch" / "devices" / "zero.toml")
    assert profile.onnx is not None
    assert profile.onnx.rates is not None
    assert profile.onnx.process_mib.basis == "measured"
