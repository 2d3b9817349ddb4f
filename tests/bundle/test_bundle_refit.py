"""Bundles of a final model, which is trained on the rows that the search held out too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from farsearch.runtime.bundle_files import BundleProblem, open_bundle
from tests.bundle.mutations import rewritten, signed
from tests.journey import Done, call, read_study

ROWS = 480
"""Rows of the training file."""


@pytest.fixture(scope="module")
def study(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that a refit may add its priming to."""
    return shutil.copytree(finished_study, tmp_path_factory.mktemp("refit") / "study")


@pytest.fixture(scope="module")
def exported(study: Path) -> Done:
    """The most accurate trial, refitted into ``bundle``."""
    done = call(study, "export", "--prefer", "accuracy", "--refit", "--out", "bundle")
    assert done.code == 0, done.err
    return done


def manifest_of(bundle: Path) -> dict[str, Any]:
    """Return ``far.json``."""
    values: dict[str, Any] = json.loads((bundle / "far.json").read_text(encoding="utf-8"))
    return values


def dev_accuracy(study: Path, model_folder: Path) -> float:
    """Return the share of right answers on the development file, with transformers alone."""
    lines = [line.split("\t") for line in (study / "data" / "dev.tsv").read_text().splitlines()[1:]]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    with torch.no_grad():
        texts = [text for text, _ in lines]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
        answers = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(1)
    return float((answers == torch.tensor([int(label) for _, label in lines])).float().mean())


def test_a_final_model_is_trained_on_all_rows_and_measured_on_the_development_set(study: Path, exported: Done) -> None:
    """The record has both, the trial of the search is unchanged, and transformers gives the same metric."""
    manifest, before = manifest_of(study / "bundle"), read_study(study)
    assert manifest["refit"]["rows"] == ROWS
    assert manifest["refit"]["dev_metric"] == pytest.approx(dev_accuracy(study, study / "bundle" / "model"))
    job = before.settings.job
    assert job.train_samples < ROWS
    assert job.train_samples + job.validation_samples == ROWS
    assert manifest["settings"]["job"] == job.to_dict()
    assert manifest["trial"]["metric"] == before.trials[manifest["trial"]["number"]].outcome.metric
    assert "validation" not in exported.out


def test_a_final_model_is_another_than_the_trials(study: Path, exported: Done, tmp_path: Path) -> None:
    number = manifest_of(study / "bundle")["trial"]["number"]
    done = call(study, "export", "--trial", number, "--out", tmp_path / "trial")
    assert done.code == 0, done.err
    assert "refit" not in manifest_of(tmp_path / "trial")
    models = [load_file(folder / "model" / "model.safetensors") for folder in (study / "bundle", tmp_path / "trial")]
    assert models[0].keys() == models[1].keys()
    assert not all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_the_same_refit_gives_the_same_model(study: Path, exported: Done, tmp_path: Path) -> None:
    """Its priming comes from the cache, and tensors of the trial are not needed."""
    number = manifest_of(study / "bundle")["trial"]["number"]
    copy = shutil.copytree(study, tmp_path / "copy")
    shutil.rmtree(copy / f".farsearch/studies/tiny/trials/{number:04d}")
    assert call(copy, "export", "--trial", number, "--refit", "--out", "again").code == 0
    models = [load_file(folder / "model" / "model.safetensors") for folder in (study / "bundle", copy / "again")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_the_card_reports_no_metric_of_trained_rows_as_the_models(study: Path, exported: Done) -> None:
    """The validation metric is that of the search, before the rows were trained on."""
    rows = [line for line in (study / "bundle" / "README.md").read_text().splitlines() if line.startswith("| ")]
    measured = [row for row in rows if "accuracy" in row and "constant" not in row]
    assert [row.split("|")[1].strip() for row in measured] == [
        "accuracy, development set",
        "before, trained on 320 rows: accuracy, 160 validation rows",
    ]
    assert any(row.startswith("| trained on | 480 rows") for row in rows)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_both_engines_train_a_refitted_bundle_and_report_it(
    study: Path, exported: Done, engine: str, tmp_path: Path
) -> None:
    rows = tmp_path / "mine.tsv"
    rows.write_text("sentence\tlabel\na good film\t1\na bad film\t0\n")
    bundle = tmp_path / "bundle"
    done = call(study, "export", "--prefer", "accuracy", "--refit", "--engine", engine, "--out", bundle)
    assert done.code == 0, done.err
    done = call(tmp_path, "finetune", bundle, "--train", rows, "--out", "here")
    assert done.code == 0, done.err
    assert "trained again on all 480 rows" in done.err
    command: list[str | Path] = [
        sys.executable,
        "-I",
        bundle / "train.py",
        "--train",
        rows,
        "--out",
        tmp_path / "board",
    ]
    board = subprocess.run(command, capture_output=True, text=True, check=False)
    assert board.returncode == 0, board.stderr
    assert "trained again on all 480 rows" in board.stdout
    models = [load_file(tmp_path / out / "model.safetensors") for out in ("here", "board")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize(
    ("refit", "message"),
    [
        ({"rows": 0, "dev_metric": 0.5, "dev_metric_error": 0.1}, r"refit\.rows is 0"),
        ({"rows": 480, "dev_metric": "high", "dev_metric_error": 0.1}, r"refit\.dev_metric is 'high'"),
        ({"rows": 480}, "refit lacks 'dev_metric'"),
        ([], "refit is .*; it must be a table"),
    ],
)
def test_an_invalid_record_is_refused(
    study: Path, exported: Done, refit: Any, message: str, tmp_path: Path
) -> None:  # fmt: skip
    bundle = shutil.copytree(study / "bundle", tmp_path / "bundle")
    rewritten("far.json", lambda data: data.update(refit=refit))(bundle)
    signed(bundle)
    with pytest.raises(BundleProblem, match=message):
        open_bundle(str(bundle))


def test_nothing_is_trained_before_mistakes_are_reported(study: Path, tmp_path: Path) -> None:
    """An output that exists, other data than the study's, and an option without its sense."""
    (tmp_path / "file").write_text("kept")
    taken = call(study, "export", "--refit", "--out", tmp_path / "file")
    assert (taken.code, taken.out) == (2, "")
    (tmp_path / "data").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        lines = (study / "data" / name).read_text().splitlines()
        (tmp_path / "data" / name).write_text("\n".join(lines[:-4]) + "\n")
    other = call(study, "export", "--refit", "--data-dir", tmp_path / "data", "--out", tmp_path / "b")
    assert other.code == 4
    alone = call(study, "export", "--data-dir", study / "data", "--out", tmp_path / "b")
    assert alone.code == 2
    assert "--data-dir is read by --refit alone" in alone.err
    assert not (tmp_path / "b").exists()
    assert all("training trial" not in done.err for done in (taken, other, alone))
