"""``train.py`` of a bundle: equality with ``finetune``, interruption at any point, and errors in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from farsearch.runtime.bundle_files import digest_of, open_bundle
from farsearch.runtime.job import Options
from farsearch.runtime.memory import fitting_micro_batch
from farsearch.runtime.run import run_bundle
from farsearch.runtime.torch_engine import run as engine_run
from farsearch.runtime.torch_engine.run import TorchEngine
from tests.journey import call

LOADED = "print(sorted({name.split('.')[0] for name in sys.modules}))"


@pytest.fixture
def rows(finished_study: Path, tmp_path: Path) -> Path:
    """A user's file."""
    lines = (finished_study / "data" / "train.tsv").read_text().splitlines()[:121]
    path = tmp_path / "mine.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def command(bundle: Path, *arguments: object) -> list[str]:
    """The command, in a Python that sees installed packages only, not this checkout."""
    return [sys.executable, "-I", str(bundle / "train.py"), *map(str, arguments)]


def train(bundle: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(bundle, *arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )


def measured(out: Path) -> dict[str, Any]:
    """The measurements of a run."""
    data: dict[str, Any] = json.loads((out / "measurement.json").read_text())
    return data


def test_training_equals_finetune(bundle: Path, finished_study: Path, rows: Path, tmp_path: Path) -> None:
    """The same losses, weights and metric, by the bundle's plan and by the fastest."""
    dev = finished_study / "data" / "dev.tsv"
    done = train(bundle, tmp_path, "--train", rows, "--dev", dev, "--out", "theirs")
    assert done.returncode == 0, done.stderr
    ours = call(tmp_path, "finetune", bundle, "--train", rows, "--dev", dev, "--out", "ours")
    assert ours.code == 0, ours.err
    one, other = (measured(tmp_path / name) for name in ("theirs", "ours"))
    assert len(one["losses"]) > 10
    torch.testing.assert_close(torch.tensor(one["losses"]), torch.tensor(other["losses"]), rtol=1e-4, atol=1e-5)
    assert one["measured"]["metric"] == other["measured"]["metric"]
    theirs, mine = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert theirs.keys() == mine.keys()
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)
    assert f"accuracy  {one['measured']['metric']:.4f}" in done.stdout
    # but for the figures, both print the same on memory and time
    heads = ("the fine-tuned model after", "peak memory  process", "time ")
    for printed in (done.stdout, ours.out):
        assert all(head in printed for head in heads), printed
    assert "farsearch sync tiny --measurement measurement.json" in done.stdout
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_farsearch_and_safetensors_are_not_imported(bundle: Path) -> None:
    """Checked while it validates its bundle."""
    code = f"import sys; sys.path.insert(0, {str(bundle.parent)!r}); import bundle.runtime.main; {LOADED}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert "'bundle'" in done.stdout
    assert not {"'farsearch'", "'safetensors'", "'optuna'"} & set(done.stdout.strip("[]\n").split(", "))


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_savepoint(bundle: Path, rows: Path, tmp_path: Path) -> None:
    """The same command ends with the same weights."""
    arguments = ("--train", rows, "--epochs", 40, "--save-every", 0.01)
    whole = train(bundle, tmp_path, *arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    savepoint = tmp_path / "cut.partial" / "savepoint.safetensors"
    with subprocess.Popen(
        command(bundle, *arguments, "--out", "cut"), cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as child:
        deadline = time.monotonic() + 120
        while not savepoint.exists() and time.monotonic() < deadline:
            assert child.poll() is None, "the training ended before it was seen"
            time.sleep(0.005)
        child.kill()
    assert not (tmp_path / "cut").exists()
    again = train(bundle, tmp_path, *arguments, "--out", "cut")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "cut.partial").exists()
    one, other = (measured(tmp_path / name)["losses"] for name in ("whole", "cut"))
    assert 0 < len(other) < len(one)
    assert other == one[-len(other) :]
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sigterm_ends_after_a_step_with_a_savepoint(bundle: Path, rows: Path, tmp_path: Path) -> None:
    """Exit code 143, and a message on how to resume."""
    arguments = ("--train", rows, "--epochs", 400, "--out", "out")
    with subprocess.Popen(
        command(bundle, *arguments), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("step 1 of ")
        os.kill(child.pid, signal.SIGTERM)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "the same command resumes" in err
    assert (tmp_path / "out.partial" / "savepoint.safetensors").is_file()
    other = train(bundle, tmp_path, "--train", rows, "--epochs", 1, "--out", "out")
    assert other.returncode == 2
    assert "it is of another training: other rows, epochs or bundle; remove that folder to start again" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--train", "nosuch.tsv"), 5, "nosuch.tsv: No such file"),
        (("--train", "bad.tsv"), 2, "bad.tsv line 2: the label 'happy' is unknown"),
        (("--train", "mine.tsv", "--epochs", "0"), 2, "0 is not a number above 0"),
        (("--train", "mine.tsv", "--micro-batch", "-1"), 2, "-1 is not a whole number above 0"),
        ((), 2, "one of the arguments --train --tuned is required"),
    ],
)
def test_errors_are_one_line(
    bundle: Path, rows: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, named: str
) -> None:
    """With the cause and farsearch's exit codes, and no output is left."""
    (tmp_path / "bad.tsv").write_text("sentence\tlabel\nfine\thappy\n")
    done = train(bundle, tmp_path, *arguments, "--out", "out")
    assert done.returncode == code
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"bad.tsv", rows.name}


def test_an_output_folder_in_use_is_not_changed(bundle: Path, rows: Path, tmp_path: Path) -> None:
    """It is refused before any training."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    done = train(bundle, tmp_path, "--train", rows, "--out", "out")
    assert done.returncode == 2
    assert "exists and is not empty" in done.stderr
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


def test_a_changed_file_is_refused(bundle: Path, rows: Path, tmp_path: Path) -> None:
    """Its own code too: the exported code must be the one that trains."""
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    with (broken / "far" / "loop.py").open("a") as file:
        file.write("\n# changed\n")
    done = train(broken, tmp_path, "--train", rows, "--out", "out")
    assert done.returncode == 2
    assert "far/loop.py differs from its checksum" in done.stderr


def test_the_micro_batch_fits_the_memory_budget() -> None:
    """The largest that fits is used, or the smallest if none does, which is reported."""
    peaks: list[list[Any]] = [[None, 900.0], [4, 700.0], [1, 500.0]]
    assert fitting_micro_batch(peaks, None) == (None, 900.0, True)
    assert fitting_micro_batch(peaks, 900.0) == (None, 900.0, True)
    assert fitting_micro_batch(peaks, 899.0) == (4, 700.0, True)
    assert fitting_micro_batch(peaks, 600.0) == (1, 500.0, True)
    assert fitting_micro_batch(peaks, 400.0) == (1, 500.0, False)


def test_out_of_memory_halves_the_micro_batch(
    bundle: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for four rows, it trains with four, and the losses equal those of whole batches."""
    told: list[str] = []
    options = Options(str(rows), str(tmp_path / "whole"))
    whole = run_bundle(TorchEngine(), open_bundle(str(bundle)), options, told.append, lambda *_: None)
    real = getattr(engine_run, "train_phase")  # noqa: B009  its own name of the function that is replaced

    def small(*arguments: Any) -> Any:
        size = arguments[8]
        if size is None or size > 4:
            next(arguments[0].parameters()).data.add_(1.0)  # an interrupted step may have changed weights
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return real(*arguments)

    monkeypatch.setattr(engine_run, "train_phase", small)
    files, options = open_bundle(str(bundle)), options._replace(out=str(tmp_path / "small"))
    result = run_bundle(TorchEngine(), files, options, told.append, lambda *_: None)
    assert told == ["memory ran out with 16 rows at once; continuing with 8",
                    "memory ran out with 8 rows at once; continuing with 4"]  # fmt: skip
    torch.testing.assert_close(torch.tensor(result.log.losses), torch.tensor(whole.log.losses), rtol=0.15, atol=0.1)


def test_a_tokenizer_with_other_ids_is_refused(bundle: Path, rows: Path, tmp_path: Path) -> None:
    """If no way to construct it reproduces the bundle's token ids, nothing is trained."""
    opened = open_bundle(str(bundle))
    proof = [[text, [1, 2, 3]] for text, _ in opened.phase["tokenizer"]["proof"]]
    other = opened._replace(phase={**opened.phase, "tokenizer": {**opened.phase["tokenizer"], "proof": proof}})
    assert digest_of(opened.manifest) == opened.manifest["digest"]
    with pytest.raises(ValueError, match="other token ids than the bundle's"):
        run_bundle(TorchEngine(), other, Options(str(rows), str(tmp_path / "out")), lambda _: None, lambda *_: None)
    assert not (tmp_path / "out.partial").exists()
