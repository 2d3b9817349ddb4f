"""A bundle with a compiled engine: it trains without torch, and is refused where its parts do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farsearch.runtime.bundle_files import BundleProblem, open_bundle
from tests.engines.bundles import make_bundle, sign, write_rows

_BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'onnx', 'farsearch']))"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle; copies are changed."""
    return make_bundle(tmp_path_factory.mktemp("compiled"), "onnx")


@pytest.fixture
def copied(compiled: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(compiled, tmp_path / "copy" / "bundle"))


def train(bundle: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``train.py`` in a process in which torch, transformers, onnx and farsearch can't be imported."""
    start = f"{_BLOCKED}; import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-I", "-c", start, str(bundle / "train.py"), *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def test_train_py_needs_no_torch(compiled: Path, tmp_path: Path) -> None:
    """From the rows to the model, with the measurement for the workstation."""
    rows = write_rows(tmp_path / "mine.tsv")
    done = train(compiled, tmp_path, "--train", rows, "--dev", rows, "--out", "out", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "accuracy  " in done.stdout
    measured = json.loads((tmp_path / "out" / "measurement.json").read_text())["measured"]
    assert {"onnxruntime", "numpy", "tokenizers"} <= measured["software"].keys()
    assert measured["software"]["threads"] == "1"
    assert "torch" not in measured["software"]


@pytest.mark.parametrize("threads", [0, -1, 100_000, "two"])
def test_threads_are_those_of_the_machine(threads: object, compiled: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "mine.tsv")
    done = train(compiled, tmp_path, "--train", rows, "--out", "out", "--threads", threads)
    assert done.returncode == 2
    assert "--threads" in done.stderr
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("words", [("--tuned", "--dev", "mine.tsv"), ("--tuned", "--base", "base")])
def test_an_option_that_would_be_ignored_is_refused(words: tuple[str, ...], compiled: Path, tmp_path: Path) -> None:
    done = train(compiled, tmp_path, *words, "--out", "out")
    assert done.returncode == 2
    assert words[1] in done.stderr
    assert not (tmp_path / "out").exists()


def test_compiled_weights_are_not_trained_by_torch(copied: Path) -> None:
    manifest = json.loads((copied / "far.json").read_text())
    manifest["phase"]["plan"]["engine"] = "torch"
    (copied / "far.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleProblem, match=r"plan\.engine is torch"):
        open_bundle(str(sign(copied)))


def test_pytorch_model_bin_needs_torch(compiled: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "mine.tsv")
    done = train(compiled, tmp_path, "--train", rows, "--out", "out", "--binary")
    assert done.returncode == 2
    assert "--binary needs torch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.partial").exists()


def test_a_missing_library_is_one_line(compiled: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "mine.tsv")
    start = "import sys, runpy; sys.modules['onnxruntime'] = None; sys.argv = sys.argv[1:]; "
    done = subprocess.run(
        [sys.executable, "-I", "-c", start + "runpy.run_path(sys.argv[0], run_name='__main__')",
         str(compiled / "train.py"), "--train", str(rows), "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs numpy, onnxruntime and tokenizers" in done.stderr
    assert "Traceback" not in done.stderr


def in_phase(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the phase of far.json."""

    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "far.json").read_text())
        change(manifest["phase"])
        (folder / "far.json").write_text(json.dumps(manifest))

    return apply


def in_program(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change program.json."""

    def apply(folder: Path) -> None:
        path = folder / "engine" / "program.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return apply


def as_delta(folder: Path) -> None:
    manifest = json.loads((folder / "far.json").read_text())
    manifest["base"] = {"name": "x", "sha256": "y", "names": {}}
    (folder / "far.json").write_text(json.dumps(manifest))


CHANGES: list[tuple[Callable[[Path], Any], str]] = [
    (in_phase(lambda phase: phase["plan"].update(engine="other")), "plan.engine is 'other'"),
    (in_phase(lambda phase: phase["weights"].update(start="model/model.safetensors")), "weights.start is"),
    (in_phase(lambda phase: phase["weights"]["names"].pop()), "merge has the unknown"),
    (in_phase(lambda phase: phase.update(segments=True)), "batch lacks token_type_ids"),
    (in_program(lambda values: values["step"].pop()), "program.json: step does not make"),
    (in_program(lambda values: values["graphs"].append("graph-99.onnx")), "'engine/graph-99.onnx' is not listed"),
    (lambda folder: (folder / "engine" / "program.json").write_text("[" * 10**5), "program.json is damaged"),
    (lambda folder: (folder / "engine" / "program.json").write_text("[" + " " * (1 << 24)), "at most 16,777,216"),
    (lambda folder: (folder / "engine" / "program.json").unlink(), "engine/program.json is not listed"),
    (lambda folder: (folder / "engine" / "graph-00.onnx").write_bytes(bytes((1 << 24) + 1)), "more than 16,777,216"),
    (as_delta, "a compiled engine is no delta"),
]


@pytest.mark.parametrize("i", range(len(CHANGES)))
def test_a_bundle_whose_parts_do_not_fit_is_refused_in_one_line(copied: Path, i: int) -> None:
    change, reason = CHANGES[i]
    change(copied)
    with pytest.raises(BundleProblem, match=reason) as caught:
        open_bundle(str(sign(copied)))
    assert "\n" not in str(caught.value)


def test_an_unlisted_file_of_the_engine_is_refused(copied: Path) -> None:
    (copied / "engine" / "more.onnx").write_bytes(b"")
    with pytest.raises(BundleProblem, match=r"engine/more\.onnx, which far\.json does not list"):
        open_bundle(str(copied))


def test_a_bundle_without_an_engine_is_trained_by_torch(tmp_path: Path) -> None:
    """Bundles made before engines have no such key."""
    bundle = make_bundle(tmp_path, "torch")
    in_phase(lambda phase: phase["plan"].pop("engine"))(bundle)
    assert open_bundle(str(sign(bundle))).engine == "torch"


@pytest.mark.parametrize("damage", ["graph", "weights", "other graph"])
def test_damaged_parts_of_the_engine_are_one_line(copied: Path, tmp_path: Path, damage: str) -> None:
    """No traceback, and no output is left."""
    if damage == "graph":
        (copied / "engine" / "graph-03.onnx").write_bytes(b"no graph")
    elif damage == "weights":
        path = copied / "engine" / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-4])
    else:
        shutil.copyfile(copied / "engine" / "graph-00.onnx", copied / "engine" / "graph-03.onnx")
    done = train(sign(copied), tmp_path, "--train", write_rows(tmp_path / "mine.tsv"), "--out", "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "export the bundle again" in done.stderr
