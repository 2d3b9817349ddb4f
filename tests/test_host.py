"""The machine that trains: its device, and whether its memory suffices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.runtime.bundle_files import BundleProblem
from farsearch.runtime.torch_engine.device import TRAIN_ON, gpu_memory_mib, gpu_name, training_device
from farsearch.training.host import host_need_mib
from tests.journey import call

HERE = [
    *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else []), "cpu",
]  # fmt: skip
"""Devices of this machine, the fastest first."""
REVIEWS = ("run", "--device", "jetson-nano", "--task", "reviews", "--model", "minilm", "--n-trials", 1)


def test_the_fastest_device_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's, then Apple's, then the CPU; the variable chooses another."""
    monkeypatch.delenv(TRAIN_ON, raising=False)
    assert training_device().type == HERE[0]
    for kind in HERE:
        monkeypatch.setenv(TRAIN_ON, kind)
        assert training_device().type == kind
        assert (gpu_name() is None) == (kind == "cpu")
        assert (gpu_memory_mib(training_device()) == 0) == (kind == "cpu")


@pytest.mark.parametrize("kind", sorted({"cuda", "mps", "CPU", "tpu"} - {*HERE}))
def test_a_device_that_this_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv(TRAIN_ON, kind)
    with pytest.raises(BundleProblem, match=f"{TRAIN_ON} is '{kind}'; torch has {', '.join(HERE)} on this machine"):
        training_device()


def test_a_search_names_a_missing_device_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``doctor`` does."""
    monkeypatch.setenv(TRAIN_ON, "tpu")
    done = call(tmp_path, *REVIEWS)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"farsearch: {TRAIN_ON} is 'tpu'")
    checks = {each["check"]: each for each in call(tmp_path, "doctor", "--json").json["checks"]}
    assert (checks["torch"]["state"], TRAIN_ON in checks["torch"]["text"]) == ("problem", True)


def test_a_search_that_does_not_fit_this_machine_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """One line with what is needed and what is available, and exit code 5; with more workers it is more."""
    for workers in (1, 2):
        done = call(tmp_path, *REVIEWS, "--batch-size", 100_000, "--workers", workers)
        assert done.code == 5
        line = done.err.splitlines()[-1]
        assert "minilm with batches of 100000 x " in line
        assert ("fewer --workers" in line) == (workers > 1)
        assert "--batch-size" in line


def test_the_need_of_a_training_is_that_of_all_parameters() -> None:
    """Weights, gradients and both moments of AdamW, a second copy of the weights, and the activations above them."""
    config = load_config(resolve_model("minilm"), with_known=True)
    least = 5 * 22_713_986 * 4 / 2**20
    few, many = (host_need_mib(config, Head(), rows, 64) for rows in (1, 64))
    assert least < few < many
