"""The benchmark of the engines: its figures as JSON, its table and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib.image import imread
from transformers import DistilBertConfig

from benchmarks import engines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_every_variant_is_measured_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4)
    monkeypatch.setattr(engines, "SETTINGS", (engines.Setting("tiny", config, 4, 16, True),))
    picture = tmp_path / "engines.png"
    arguments = ["--rounds", "1", "--threads", "1", "--json", "--picture", str(picture)]
    done = CliRunner().invoke(engines.main, arguments)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["schema_version"] == 1
    found = {(each["variant"], each["engine"]): each for each in data["results"]}
    assert list(found) == [
        ("full", "torch"),
        ("lora8", "torch"),
        ("far10-emb-attn", "torch"),
        ("far10-emb-attn", "onnx"),
    ]
    for each in found.values():
        assert {"variant", "engine", "batch", "seq", "time_ratio", "process_peak_mib", "anonymous_peak_mib"} <= set(
            each
        )
        assert (each["batch"], each["seq"]) == (4, 16)
        assert each["process_peak_mib"] > each["anonymous_peak_mib"] > 0
    assert found["full", "torch"]["time_ratio"] == 1.0
    compiled, eager = (found["far10-emb-attn", engine]["process_peak_mib"] for engine in ("onnx", "torch"))
    assert compiled < 0.5 * eager
    assert imread(picture).shape[0] > 500
