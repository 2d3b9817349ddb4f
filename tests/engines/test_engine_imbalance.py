"""A bundle with weights of the classes, smoothed labels and clipped gradients, on each engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from farsearch.far.batches import phase_batches
from farsearch.far.loop import predict
from farsearch.runtime.bundle_files import BundleProblem, open_bundle
from farsearch.runtime.encoding import encode
from farsearch.runtime.job import Options
from farsearch.runtime.rows import read_rows
from farsearch.runtime.run import load_engine, run_bundle
from farsearch.runtime.torch_engine.model import load_model
from farsearch.runtime.torch_engine.tokenizer import load_tokenizer
from tests.engines.bundles import ENGINES, TASK, make_bundle, sign


def write_unequal(path: Path) -> Path:
    """Write 36 rows, four of them positive."""
    lines = [f"the film is {('bad ', 'good ')[i % 9 == 0] * (1 + i % 7)}\t{TASK.labels[i % 9 == 0]}" for i in range(36)]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return path


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_weights_are_those_of_the_rows_that_are_trained_on(
    engine: str, micro_batch_size: int | None, tmp_path: Path
) -> None:
    """36 / (2 * 4) for the rare class: the loss of the first step is the weighted one of its rows."""
    files = open_bundle(str(make_bundle(tmp_path, engine, weighted=True)))
    path = write_unequal(tmp_path / "mine.tsv")
    options = Options(str(path), str(tmp_path / "out"), epochs=1.0, micro_batch_size=micro_batch_size)
    losses = run_bundle(load_engine(files), files, options, lambda _: None, lambda *_: None).log.losses
    model, rows = load_model(open_bundle(str(make_bundle(tmp_path / "plain", "torch")))), read_rows(str(path), TASK)
    features = encode(load_tokenizer(files), rows, TASK, files.phase["max_length"]).features
    first = features.take(phase_batches(features.lengths, files.phase["batch_size"], 1.0, files.phase["seed"])[0])
    weights = torch.tensor([36 / (2 * 32), 36 / (2 * 4)])
    expected = cross_entropy(predict(model, first, 0), torch.tensor(first.targets), weights)
    assert losses[0] == pytest.approx(expected.item(), abs=1e-4)


def test_a_program_without_the_weights_of_its_record_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "onnx")
    text = (bundle / "far.json").read_text()
    (bundle / "far.json").write_text(text.replace('"phase": {', '"phase": {"class_weights": "balanced", '))
    with pytest.raises(BundleProblem, match="lacks class_weights"):
        open_bundle(str(sign(bundle)))


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_both_engines_learn_the_same_with_all_settings_of_the_loss(
    micro_batch_size: int | None, tmp_path: Path
) -> None:
    """Weighted, smoothed and clipped, without dropout; a norm that no gradient has changes nothing."""
    path, losses = write_unequal(tmp_path / "mine.tsv"), {}
    for engine, norm in (("torch", 0.05), ("onnx", 0.05), ("onnx", 1e6), ("torch", 1e6)):
        folder = tmp_path / f"{engine}-{norm}"
        bundle = make_bundle(folder, engine, weighted=True, smoothing=0.1, clip_norm=norm)
        files = open_bundle(str(bundle))
        options = Options(str(path), str(folder / "out"), epochs=2.0, micro_batch_size=micro_batch_size)
        losses[engine, norm] = run_bundle(
            load_engine(files), files, options, lambda _: None, lambda *_: None
        ).log.losses
    for norm in (0.05, 1e6):
        assert losses["torch", norm] == pytest.approx(losses["onnx", norm], abs=2e-3)
    assert losses["torch", 0.05][0] == losses["torch", 1e6][0]
