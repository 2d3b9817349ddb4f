"""A bundle with a compiled engine on a board's software: onnxruntime 1.10 on Python 3.6 equals the workstation's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.board.test_board import PYTHON
from tests.engines.bundles import make_bundle, write_rows

pytestmark = [pytest.mark.board, pytest.mark.timeout(600)]


def trained(python: Path, folder: Path, rows: Path, out: str) -> dict[str, Any]:
    """The measurement of a run under one Python, in which torch, transformers and onnx can't be imported."""
    start = "import sys, runpy; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'onnx'])); "
    start += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [python, "-I", "-c", start, folder / "bundle" / "train.py", "--train", rows, "--dev", rows, "--out", out],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads((folder / out / "measurement.json").read_text())
    return data


def test_the_board_learns_the_same(tmp_path: Path) -> None:
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    make_bundle(tmp_path, "onnx", dropout=0.1)
    rows = write_rows(tmp_path / "mine.tsv")
    there, here = (
        trained(python, tmp_path, rows, out) for python, out in ((PYTHON, "there"), (Path(sys.executable), "here"))
    )
    assert there["measured"]["software"]["onnxruntime"].startswith("1.10.")
    np.testing.assert_allclose(there["losses"], here["losses"], rtol=1e-3, atol=1e-4)
    assert there["measured"]["metric"] == here["measured"]["metric"]
