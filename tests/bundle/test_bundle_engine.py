"""Bundles for the engine without torch: what ``export --engine onnx`` writes, and both ways to fine-tune with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from farsearch.graph.memory import EngineMemory
from tests.journey import call


@pytest.fixture(scope="module")
def compiled(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trial of ``bundle``, compiled."""
    out = tmp_path_factory.mktemp("compiled") / "bundle"
    done = call(
        finished_study, "export", "--prefer", "accuracy", "--plan", "recompute", "--engine", "onnx", "--out", out
    )  # fmt: skip
    assert done.code == 0, done.err
    return out


def manifest_of(bundle: Path) -> dict[str, Any]:
    """Return ``far.json``."""
    values: dict[str, Any] = json.loads((bundle / "far.json").read_text(encoding="utf-8"))
    return values


def test_a_compiled_bundle_has_its_start_weights_once(compiled: Path) -> None:
    phase = manifest_of(compiled)["phase"]
    assert phase["plan"]["engine"] == "onnx"
    assert phase["weights"]["start"] == "engine/weights.safetensors"
    assert not (compiled / "start.safetensors").exists()
    graphs = [path for path in (compiled / "engine").iterdir() if path.name != "weights.safetensors"]
    assert sum(path.stat().st_size for path in graphs) < 5 * 2**20


def test_the_trial_of_a_compiled_bundle_is_that_of_the_study(compiled: Path) -> None:
    assert "engine" not in manifest_of(compiled)["trial"]["plan"]


def test_its_card_names_all_that_a_board_needs(compiled: Path) -> None:
    assert "pip install numpy onnxruntime tokenizers" in (compiled / "README.md").read_text(encoding="utf-8")


def test_its_prediction_is_that_of_the_boards_cpu(compiled: Path) -> None:
    predicted = manifest_of(compiled)["phase"]["predicted"]
    assert predicted["device"] == "jetson-nano-cpu"
    peaks = [peak for _, peak in predicted["peaks"]]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] > predicted["process_mib"]


def test_memory_grows_with_the_batch_and_is_less_without_the_optimizers_state(compiled: Path) -> None:
    memory = EngineMemory.of_folder(compiled / "engine")
    small, wide, long = (memory.step(*sizes) for sizes in ((2, 8), (4, 8), (2, 16)))
    assert small.passing < wide.passing
    assert small.passing < long.passing
    assert small.mapped == wide.mapped == (compiled / "engine" / "weights.safetensors").stat().st_size
    assert memory.step(2, 8, optimizer="sgd").held * 3 == small.held


@pytest.fixture(scope="module")
def rows(finished_study: Path) -> Path:
    """Rows of the study's task."""
    return finished_study / "data" / "dev.tsv"


def tuned(study: Path, bundle: Path, rows: Path, out: Path, *options: str) -> dict[str, Any]:
    """Fine-tune a bundle, and return the weights."""
    done = call(study, "finetune", bundle, "--train", rows, "--epochs", "1", "--out", out, *options)
    assert done.code == 0, done.err
    weights: dict[str, Any] = load_file(out / "model.safetensors")
    return weights


def test_a_bundle_for_torch_is_compiled_for_one_finetuning(
    finished_study: Path, bundle: Path, compiled: Path, rows: Path, tmp_path: Path
) -> None:
    """It trains exactly as the compiled bundle of the same trial does, and is not changed."""
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    mine = tuned(finished_study, bundle, rows, tmp_path / "mine", "--engine", "onnx")
    expected = tuned(finished_study, compiled, rows, tmp_path / "expected")
    assert mine.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_a_compiled_bundle_can_not_be_trained_by_torch(
    finished_study: Path, compiled: Path, rows: Path, tmp_path: Path
) -> None:
    done = call(
        finished_study, "finetune", compiled, "--train", rows, "--out", tmp_path / "tuned", "--engine", "torch"
    )  # fmt: skip
    assert done.code == 2
    assert "--engine torch" in done.err
    assert not (tmp_path / "tuned").exists()


def test_a_compiled_engine_is_no_delta(finished_study: Path, tmp_path: Path) -> None:
    done = call(finished_study, "export", "--engine", "onnx", "--delta", "--out", tmp_path / "bundle")
    assert done.code == 2
    assert "--delta" in done.err
    assert not (tmp_path / "bundle").exists()
