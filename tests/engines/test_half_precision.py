"""A bundle whose plan has layers in 16 bits: trained where the device has them, refused in one line elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from farsearch.far import safetensors
from farsearch.runtime.bundle_files import BundleFiles, BundleProblem, open_bundle
from farsearch.runtime.job import Options
from farsearch.runtime.run import load_engine, run_bundle
from farsearch.runtime.torch_engine import precision
from tests.engines.bundles import make_bundle, sign, write_rows


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> BundleFiles:
    """A bundle for torch with layers in bfloat16."""
    folder = make_bundle(tmp_path_factory.mktemp("half"), "torch")
    manifest = json.loads((folder / "far.json").read_text())
    manifest["phase"]["plan"].update(precision="bfloat16", attention="recompute")
    (folder / "far.json").write_text(json.dumps(manifest))
    return open_bundle(str(sign(folder)))


def run(bundle: BundleFiles, folder: Path, monkeypatch: pytest.MonkeyPatch, features: str) -> Path:
    """Train on a CPU with these features; return the folder of the model."""
    (folder / "cpuinfo").write_text(f"processor : 0\nflags : fpu {features}\n")
    monkeypatch.setattr(precision, "CPU_FILE", str(folder / "cpuinfo"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = Options(train=str(write_rows(folder / "rows.tsv")), out=str(folder / "tuned"), epochs=1.0)
    run_bundle(load_engine(bundle), bundle, options, lambda _: None, lambda *_: None)
    return folder / "tuned"


def test_a_tuned_model_is_in_float32(bundle: BundleFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = run(bundle, tmp_path, monkeypatch, "avx512_bf16")
    saved = dict(safetensors.read(str(tuned / "model.safetensors")))
    start = dict(safetensors.read(bundle.path(bundle.phase["weights"]["start"])))
    assert saved.keys() == start.keys()
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float32}
    assert any(not torch.equal(value, start[name]) for name, value in saved.items())


def test_a_device_without_the_precision_is_named(
    bundle: BundleFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleProblem, match="bfloat16, which this CPU lacks") as error:
        run(bundle, tmp_path, monkeypatch, "avx2")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"precision": "int8"}, "precision"),
        ({"attention": "modules"}, "precision"),
        ({"engine": "onnx"}, "torch"),
    ],
)  # fmt: skip
def test_an_invalid_precision_is_refused(
    bundle: BundleFiles, tmp_path: Path, changes: dict[str, str], fragment: str
) -> None:
    folder = make_bundle(tmp_path, "torch")
    manifest = json.loads((folder / "far.json").read_text())
    manifest["phase"]["plan"].update({"precision": "bfloat16", "attention": "recompute", **changes})
    (folder / "far.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleProblem, match=fragment):
        open_bundle(str(sign(folder)))
