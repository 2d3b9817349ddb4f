"""Bundle export: contents, equality with the trial's model, and refused exports."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from farsearch.api.study import Study
from farsearch.api.workspace import Workspace
from farsearch.bundle.folder import opened_folder, whole_folder
from farsearch.bundle.write import write_bundle
from farsearch.errors import BadInput, BundleError, MissingResource
from farsearch.records import StudySettings, StudySnapshot, Trial, Verification, read_trial
from farsearch.runtime.bundle_files import digest_of, file_digest
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from tests.factories import changed
from tests.journey import call, chdir, prepare, run_arguments, start


def snapshot(folder: Path) -> StudySnapshot:
    """The study ``tiny`` in a working directory."""
    return snapshot_of(Store(folder / ".farsearch").load("tiny"))


@pytest.fixture(scope="module")
def distilbert_study(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> Path:
    """A study of the other family, which also freezes parts that the default space trains."""
    folder = prepare(tmp_path_factory.mktemp("distilbert"))
    options = ("--set", "frozen_embeddings=true", "--set", "frozen_attention_layers=1", "--set", "priming_epochs=0.5")
    done = call(folder, *run_arguments(tiny_distilbert, 2), *options)
    assert done.code == 0, done.err
    return folder


def dev_rows(folder: Path) -> tuple[list[str], list[int]]:
    """Sentences and labels of the development file, read without farsearch."""
    rows = [line.split("\t") for line in (folder / "data" / "dev.tsv").read_text().splitlines()[1:]]
    return [text for text, _ in rows], [int(label) for _, label in rows]


def predictions(model_folder: Path, texts: list[str]) -> torch.Tensor:
    """Logits of a saved model, with transformers alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    with torch.no_grad():
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
        logits: torch.Tensor = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits


@pytest.mark.parametrize("study", ["finished_study", pytest.param("distilbert_study", marks=pytest.mark.slow)])
def test_exported_models_score_as_their_trials(study: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With transformers alone, each gives the trial's own logits for each development sentence."""
    folder: Path = request.getfixturevalue(study)
    texts, labels = dev_rows(folder)
    front = snapshot(folder).front
    assert front
    for trial in front:
        out = tmp_path / str(trial.number)
        done = call(folder, "export", "--trial", trial.number, "--out", out)
        assert done.code == 0, done.err
        logits = predictions(out / "model", texts)
        saved = load_file(folder / f".farsearch/studies/tiny/trials/{trial.number:04d}/logits.safetensors")["dev"]
        torch.testing.assert_close(logits, saved, rtol=1e-4, atol=1e-5)
        assert torch.equal(logits.argmax(1), saved.argmax(1))
        right = int((logits.argmax(1) == torch.tensor(labels)).sum())
        assert right / len(labels) == pytest.approx(trial.outcome.dev_metric)


def test_far_json_records_the_bundle(finished_study: Path, tmp_path: Path) -> None:
    """The records, learners at the selected fractions, provenance, and a checksum of every file."""
    done = call(finished_study, "export", "--prefer", "memory", "--out", tmp_path / "b")
    assert done.code == 0, done.err
    study = snapshot(finished_study)
    data = json.loads((tmp_path / "b" / "far.json").read_text())
    trial = read_trial(data["trial"])
    assert trial == study.trials[trial.number]
    assert StudySettings.from_dict(data["settings"]) == study.settings
    assert data["study"] == "tiny"
    assert data["base"] is None
    phase = data["phase"]
    assert phase["task"] == {
        "name": "sst2", "kind": "classification", "labels": ["negative", "positive"], "metric": "accuracy",
        "texts": ["sentence"], "label": "label", "columns": None, "label_columns": False, "unanswerable": False,
        "positive": None, "label_separator": None, "decimal_comma": False,
    }  # fmt: skip
    assert phase["segments"] is False
    assert (phase["seed"], phase["batch_size"]) == (study.settings.job.seed, study.settings.job.batch_size)
    assert data["why"].startswith(f"Trial {trial.number}: least memory")
    assert set(data["versions"]) >= {"farsearch", "torch", "transformers"}
    assert isinstance(trial, Trial)
    for fraction, chosen in zip(trial.config.frozen_fractions, phase["learners"], strict=True):
        assert (chosen is None) == (fraction == 0)
        if chosen is not None:
            assert len(chosen) == round((1 - fraction) * 64)
    files = {p.relative_to(tmp_path / "b").as_posix(): p for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert data["sha256"] == {name: file_digest(str(path)) for name, path in files.items() if name != "far.json"}
    assert data["digest"] == digest_of(data)


def test_predictions_agree_with_the_cost_model(finished_study: Path, tmp_path: Path) -> None:
    """The peak is the trial's; smaller micro-batches need less memory; the longest text takes the longest step."""
    done = call(finished_study, "export", "--prefer", "memory", "--out", tmp_path / "b")
    assert done.code == 0, done.err
    data = json.loads((tmp_path / "b" / "far.json").read_text())
    predicted = data["phase"]["predicted"]
    assert predicted["peaks"][0] == [data["phase"]["plan"]["micro_batch_size"], data["trial"]["peak_memory_mib"]]
    peaks = [peak for _, peak in predicted["peaks"]]
    assert peaks == sorted(peaks, reverse=True)
    seconds = {int(length): seconds for length, seconds in predicted["step_s"].items()}
    assert max(seconds) == data["phase"]["max_length"]
    assert sorted(seconds.values()) == [seconds[length] for length in sorted(seconds)]


def test_a_bundle_as_a_zip_file(finished_study: Path, tmp_path: Path) -> None:
    """It is used like the folder and leaves no other file; an archive that writes outside its folder is refused."""
    done = call(finished_study, "export", "--prefer", "memory", "--out", tmp_path / "b.zip")
    assert done.code == 0, done.err
    with opened_folder(tmp_path / "b.zip") as folder:
        assert (folder / "far.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("../escaped", "x")
    with pytest.raises(BundleError, match=r"'\.\./escaped', which is outside"), opened_folder(tmp_path / "evil.zip"):
        pass
    data = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=r"cut\.zip is damaged"), opened_folder(tmp_path / "cut.zip"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"b.zip", "cut.zip", "evil.zip"}


def test_a_bundle_of_differences_equals_the_whole_bundle(finished_study: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """With the public checkpoint it trains to the same weights, and gives the same model."""
    for name, option in (("whole", ()), ("delta", ("--delta",))):
        done = call(finished_study, "export", "--prefer", "accuracy", "--out", tmp_path / name, *option)
        assert done.code == 0, done.err
    assert "less); of the start weights'" in done.out
    sizes = {
        name: sum(p.stat().st_size for p in (tmp_path / name).rglob("*.safetensors")) for name in ("whole", "delta")
    }
    assert sizes["delta"] < sizes["whole"]
    rows = tmp_path / "mine.tsv"
    rows.write_text("sentence\tlabel\na good film\t1\na bad film\t0\n")
    for name, base in (("whole", ()), ("delta", ("--base", tiny_bert))):
        done = call(tmp_path, "finetune", name, "--train", rows, "--out", f"tuned-{name}", *base)
        assert done.code == 0, done.err
    whole, delta = (load_file(tmp_path / f"tuned-{name}" / "model.safetensors") for name in ("whole", "delta"))
    assert whole.keys() == delta.keys()
    assert all(torch.equal(whole[name], delta[name]) for name in whole)
    command = [sys.executable, "-I", str(tmp_path / "delta" / "train.py")]
    put_together = subprocess.run(
        [*command, "--tuned", "--out", tmp_path / "back", "--base", tiny_bert],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert put_together.returncode == 0, put_together.stderr
    back, model = (
        load_file(tmp_path / "back" / "model.safetensors"),
        load_file(tmp_path / "whole/model/model.safetensors"),
    )
    assert all(torch.equal(back[name], model[name]) for name in model)
    done = call(tmp_path, "finetune", "delta", "--train", rows, "--out", "more")
    assert done.code == 2
    assert "carries only what differs from" in done.err
    assert done.err.endswith("give the folder of that checkpoint with --base\n")


def test_the_output_explains_the_choice(finished_study: Path, tmp_path: Path) -> None:
    """Two lines on the choice, one with predicted costs, and the command for the user's data."""
    out = tmp_path / "my bundle"
    done = call(finished_study, "export", "--prefer", "accuracy", "--out", out)
    assert "best metric" in done.out
    assert "MiB" in done.out
    assert "on jetson-nano (estimates)" in done.out
    assert f"finetune '{out}' --train mine.tsv" in done.out
    assert done.err == ""


def test_export_refuses_existing_output(finished_study: Path, tmp_path: Path) -> None:
    """A non-empty folder and a file are left unchanged; an empty folder is filled."""
    full, file, empty = (tmp_path / name for name in ("full", "file", "empty"))
    full.mkdir()
    empty.mkdir()
    (full / "mine.txt").write_text("kept")
    file.write_text("kept")
    # before the study is opened
    assert "exists and is not empty" in call(finished_study, "export", "nosuch", "--out", full).err
    for out in (full, file):
        done = call(finished_study, "export", "--out", out)
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
        assert f"--out {out} exists and is not empty; name a new folder" in done.err
    assert (full / "mine.txt").read_text() == "kept"
    assert file.read_text() == "kept"
    assert call(finished_study, "export", "--out", empty).code == 0
    assert (empty / "far.json").is_file()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--trial", 99), 2, "trial 99 is not in study tiny"),
        (("--trial", 0, "--prefer", "time"), 2, "--trial 0 and --prefer time ask for different things"),
        (("--prefer", "speed"), 2, "'speed' is not one of 'knee', 'accuracy', 'memory', 'time'"),
        (("--trial", "best"), 2, "'best' is not a valid integer"),
    ],
)
def test_export_refuses_invalid_trials(
    finished_study: Path, tmp_path: Path, options: tuple[object, ...], code: int, message: str
) -> None:
    """Each mistake gets one line, and nothing is written."""
    done = call(finished_study, "export", *options, "--out", tmp_path / "b")
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_trial_without_tensors_is_refused(finished_study: Path, tmp_path: Path) -> None:
    """A trial off the front has none, and is not silently trained again: the error suggests a fix."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_study, folder)
    number = snapshot(folder).front[0].number
    (folder / f".farsearch/studies/tiny/trials/{number:04d}/trained.safetensors").unlink()
    done = call(folder, "export", "--trial", number, "--out", tmp_path / "b")
    assert done.code == 5
    assert f"the tensors of trial {number} are gone" in done.err
    assert not (tmp_path / "b").exists()


def test_a_trial_without_a_result_is_refused(finished_study: Path, tmp_path: Path) -> None:
    """A stopped trial cannot be exported, nor a verification, whose weights are not stored."""
    study = snapshot(finished_study)
    stopped = changed(study.front[0], state="pruned", reason="the loss is nan")
    with chdir(tmp_path), pytest.raises(BadInput, match=r"is pruned \(the loss is nan\) and has no result"):
        Study(dataclasses.replace(study, trials=(stopped,)), Workspace()).export(stopped.number, "b")
    again = changed(study.front[0], verifies=Verification(0, 1, 48))
    with pytest.raises(BadInput, match="is a verification, whose weights are not stored"):
        write_bundle(study, again, finished_study, tmp_path / "b", "", home=tmp_path)


def test_changed_weights_are_refused(tmp_path: Path, finished_study: Path, tiny_bert: Path) -> None:
    """A bundle starts from the study's weights: nothing is exported if the model folder has others by now."""
    from tests.tiny import make_bert

    study = snapshot(finished_study)
    other = make_bert(tmp_path / "tiny-bert", seed=1)
    moved = dataclasses.replace(study, meta=dict(study.meta) | {"model": str(other)})
    folder = finished_study / ".farsearch" / "studies" / "tiny"
    with pytest.raises(MissingResource, match="no longer those of the study"):
        write_bundle(moved, moved.front[0], folder, tmp_path / "b", "", home=tmp_path)
    assert not (tmp_path / "b").exists()


def test_export_is_atomic(tmp_path: Path) -> None:
    """A failure leaves neither the folder nor temporary files; a complete export has the usual permissions."""

    def fail() -> None:
        with whole_folder(tmp_path / "a" / "b") as work:
            (work / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list((tmp_path / "a").iterdir())
    with whole_folder(tmp_path / "c") as work:
        (work / "file").write_text("whole")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["file"]


def test_a_kill_leaves_no_partial_bundle(finished_study: Path, tmp_path: Path) -> None:
    """An export killed while writing leaves nothing under the final name, and the next one works."""
    with start(finished_study, "export", "--out", tmp_path / "b") as child:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".b.*/start.safetensors")) and time.monotonic() < deadline:
            assert child.poll() is None, "the export ended before it was seen"
            time.sleep(0.001)
        os.killpg(child.pid, signal.SIGKILL)
    assert not (tmp_path / "b").exists()
    assert call(finished_study, "export", "--out", tmp_path / "b").code == 0
    with chdir(tmp_path):
        assert predictions(Path("b/model"), ["a good film"]).shape == (1, 2)
