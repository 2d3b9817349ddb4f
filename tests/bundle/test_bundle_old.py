"""A stored bundle of an earlier version (``far/board`` instead of ``runtime``) is still usable."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from farsearch.bundle.read import read_bundle
from farsearch.errors import BundleError
from tests.journey import call

OLD = Path(__file__).parents[1] / "assets" / "bundle-0.1.zip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the unpacked bundle, and rows of its task."""
    with zipfile.ZipFile(OLD) as file:
        file.extractall(tmp_path)
    rows = [("good fun", 1), ("a dull film", 0)] * 24
    lines = ["sentence\tlabel", *(f"{text} {i}\t{label}" for i, (text, label) in enumerate(rows))]
    (tmp_path / "mine.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_an_old_bundle_is_read_and_fine_tuned(folder: Path) -> None:
    assert (folder / "bundle-0.1" / "far" / "board" / "main.py").is_file()
    done = call(folder, "finetune", OLD, "--train", "mine.tsv", "--dev", "mine.tsv", "--out", "tuned")
    assert done.code == 0, done.err
    assert (folder / "tuned" / "model.safetensors").is_file()


def test_an_old_bundle_runs_with_its_own_code(folder: Path) -> None:
    """The measured losses equal those that today's code computes from the same bundle and rows."""
    done = subprocess.run(
        [sys.executable, "-I", "bundle-0.1/train.py", "--train", "mine.tsv", "--out", "theirs"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert call(folder, "finetune", "bundle-0.1", "--train", "mine.tsv", "--out", "ours").code == 0
    theirs, ours = (json.loads((folder / name / "measurement.json").read_text()) for name in ("theirs", "ours"))
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4, abs=1e-5)
    assert ours.keys() == theirs.keys()
    assert ours["measured"].keys() == theirs["measured"].keys()
    assert ours["measured"]["software"].keys() == theirs["measured"]["software"].keys()


@pytest.mark.parametrize("place", ["far", "far/board", "runtime"])
def test_code_added_to_an_old_bundle_is_refused(folder: Path, place: str) -> None:
    added = folder / "bundle-0.1" / place / "more.py"
    added.parent.mkdir(exist_ok=True)
    added.write_text("")
    with pytest.raises(BundleError, match=f"{place}/more.py"):
        read_bundle(folder / "bundle-0.1")
