"""MiniLM on SST-2 without torch in a process that may allocate 300 MiB, on new and on a board's software."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.engine_limit import glue_folder, make_bundles, train, write_sample
from tests.board.test_board import PYTHON

pytestmark = [pytest.mark.board, pytest.mark.real_data, pytest.mark.slow, pytest.mark.timeout(1200)]

LIMIT_MIB = 300
ROWS = 128


def test_minilm_learns_in_300_mib_what_it_learns_with_torch(tmp_path: Path) -> None:
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    if not glue_folder().is_dir():
        pytest.skip("no GLUE files; FARSEARCH_GLUE_DIR names the folder with SST-2 and CoLA of the GLUE download")
    bundles = make_bundles(tmp_path, dropout=False)
    rows = tmp_path / "rows.tsv"
    write_sample(rows, ROWS)
    here = Path(sys.executable)
    expected = train(here, bundles["torch"], rows, tmp_path / "out-torch", None)["metric"]
    for name, python in (("here", here), ("board", PYTHON)):
        found = train(python, bundles["onnx"], rows, tmp_path / f"out-{name}", LIMIT_MIB)
        assert found["metric"] == pytest.approx(expected, abs=0.01)
        assert found["peak_memory_mib"] < LIMIT_MIB
