"""Bundle use: the FAR phase on a user's file, and bundles that are refused as damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from farsearch.bundle.read import read_bundle
from farsearch.errors import BundleError
from farsearch.runtime.bundle_files import digest_of, file_digest
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.tasks.load import load_task
from farsearch.tasks.spec import get_task
from farsearch.tasks.split import split_examples
from tests.journey import call

BUNDLED = (
    "far.json", "start.safetensors", "model/config.json", "model/model.safetensors", "model/tokenizer.json",
    "model/vocab.txt", "far/loop.py", "train.py",
)  # fmt: skip


def write_rows(path: Path, *rows: tuple[str, object]) -> Path:
    """Write a user's file."""
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_training_on_the_trials_rows_reproduces_the_trial(bundle: Path, finished_study: Path, tmp_path: Path) -> None:
    """Tensor by tensor."""
    data = load_task("sst2", finished_study / "data")
    rows = data.train.take(split_examples(data.train, 320, 0).train)
    train = write_rows(tmp_path / "train.tsv", *zip((text for (text,) in rows.texts), rows.answers, strict=True))
    done = call(
        finished_study, "finetune", bundle, "--train", train, "--dev", finished_study / "data" / "dev.tsv",
        "--out", tmp_path / "tuned",
    )  # fmt: skip
    assert done.code == 0, done.err
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "tuned", bundle / "model"))
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)
    trial = snapshot_of(Store(finished_study / ".farsearch").load("tiny")).trials[
        json.loads((bundle / "far.json").read_text())["trial"]["number"]
    ]
    result = json.loads((tmp_path / "tuned" / "measurement.json").read_text())["measured"]
    assert result["steps"] == trial.outcome.curve[-1].step
    assert result["metric"] == pytest.approx(trial.outcome.dev_metric)
    assert f"{100 * trial.outcome.dev_metric:.1f} ±" in done.out


def test_the_output_is_an_ordinary_model(bundle: Path, tmp_path: Path) -> None:
    """With named labels, another length and no development file, transformers loads it with its labels."""
    rows = [(f"{word} film number {i}", label) for i in range(6) for word, label in (("good", "positive"), ("bad", 0))]
    train = write_rows(tmp_path / "mine.tsv", *rows)
    done = call(tmp_path, "finetune", bundle, "--train", train, "--out", "tuned", "--epochs", 2)
    assert done.code == 0, done.err
    first, *costs = done.out.splitlines()
    assert first == "tuned: the fine-tuned model after 2 steps"
    assert [line.split()[0] for line in costs] == ["peak", "time"]
    assert done.err == ""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "tuned")("a good film")["input_ids"]
    measured = json.loads((tmp_path / "tuned" / "measurement.json").read_text())["measured"]
    assert (measured["metric"], measured["steps"], measured["rows"], measured["epochs"]) == (None, 2, 12, 2.0)
    assert measured["peak_memory_mib"] > 100
    assert measured["predicted_time_s"] > 0


def test_only_learners_are_trained(bundle: Path, tmp_path: Path) -> None:
    """The other hidden neurons are unchanged on the user's data too."""
    data = json.loads((bundle / "far.json").read_text())
    train = write_rows(tmp_path / "mine.tsv", ("a good film", 1), ("a bad film", 0))
    assert call(tmp_path, "finetune", bundle, "--train", train, "--out", "tuned", "--epochs", 3).code == 0
    before, after = load_file(bundle / "start.safetensors"), load_file(tmp_path / "tuned" / "model.safetensors")
    for layer, chosen in zip(data["phase"]["layout"]["layers"], data["phase"]["learners"], strict=True):
        if chosen is None:
            continue
        up = f"{layer['blocks'][0]['up']}.weight"
        moved = (before[up] != after[up]).any(dim=1)
        assert set(moved.nonzero().flatten().tolist()) == set(chosen)


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([("fine", "happy")], 2, "mine.tsv line 2: the label 'happy' is unknown; labels of sst2 are 0 (negative), 1"),
        ([("fine", 1), ("worse", 2)], 2, "mine.tsv line 3: the label '2' is unknown"),
        ([("two\ttabs", 1)], 2, "mine.tsv line 2: 'two\\ttabs\\t1' has 3 columns"),
        ([("", 1)], 2, "mine.tsv line 2: the sentence is empty"),
        ([], 2, "mine.tsv has no rows"),
    ],
)
def test_invalid_rows_are_refused(
    bundle: Path, tmp_path: Path, rows: list[tuple[str, object]], code: int, message: str
) -> None:
    """An unknown label, or a malformed row, gets one line with file, line and rule; no output is made."""
    train = write_rows(tmp_path / "mine.tsv", *rows)
    done = call(tmp_path, "finetune", bundle, "--train", train, "--out", "tuned")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.tsv"]


def test_wrong_paths_are_refused_before_training(bundle: Path, tmp_path: Path) -> None:
    """A missing file, and an output folder in use."""
    done = call(tmp_path, "finetune", bundle, "--train", "nosuch.tsv", "--out", "tuned")
    assert (done.code, done.err.count("\n")) == (5, 1)
    assert "nosuch.tsv" in done.err
    train = write_rows(tmp_path / "mine.tsv", ("a good film", 1))
    done = call(tmp_path, "finetune", bundle, "--train", train, "--out", tmp_path)
    assert done.code == 2
    assert "exists and is not empty" in done.err
    # before the bundle is opened
    done = call(tmp_path, "finetune", "nosuch", "--train", train, "--out", tmp_path)
    assert "exists and is not empty" in done.err


Change = Callable[[Path], Any]


def edit(**values: Any) -> Change:
    """Set values of far.json (None removes the key) and update its digest."""

    def change(folder: Path) -> None:
        data = json.loads((folder / "far.json").read_text())
        data = {key: value for key, value in {**data, **values}.items() if key not in values or value is not None}
        data["digest"] = digest_of(data)
        (folder / "far.json").write_text(json.dumps(data))

    return change


def phase(**values: Any) -> Change:
    """Set values of the FAR phase (None removes the key) and update the digest."""

    def change(folder: Path) -> None:
        data = json.loads((folder / "far.json").read_text())
        held = {**data["phase"], **values}
        changed = {key: value for key, value in held.items() if key not in values or value is not None}
        edit(phase=changed)(folder)

    return change


def claim(folder: Path) -> None:
    """Start weights whose header claims more bytes than the file has, with a valid checksum."""
    path = folder / "start.safetensors"
    path.write_bytes((1 << 50).to_bytes(8, "little") + path.read_bytes()[8:])
    data = json.loads((folder / "far.json").read_text())
    edit(sha256={**data["sha256"], "start.safetensors": file_digest(str(path))})(folder)


def relabel(folder: Path) -> None:
    """Start weights of another shape, with a valid checksum."""
    tensors = load_file(folder / "start.safetensors")
    tensors["classifier.weight"] = torch.zeros(3, 32)
    save_file(tensors, folder / "start.safetensors")
    data = json.loads((folder / "far.json").read_text())
    edit(sha256={**data["sha256"], "start.safetensors": file_digest(str(folder / "start.safetensors"))})(folder)


def link_away(folder: Path) -> None:
    """Replace a file of the bundle by a link to one outside."""
    outside = folder.parent / "outside"
    shutil.move(folder / "start.safetensors", outside)
    (folder / "start.safetensors").symlink_to(outside)


def listed(name: str) -> Change:
    """Add a file to the list of checksums."""

    def change(folder: Path) -> None:
        data = json.loads((folder / "far.json").read_text())
        edit(sha256={**data["sha256"], name: "0" * 64})(folder)

    return change


def flip(name: str, place: float) -> Change:
    """Flip one bit of a file."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(place * (len(data) - 1))] ^= 4
        (folder / name).write_bytes(data)

    return change


def cut(name: str) -> Change:
    """Truncate a file to half."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


def task_of(**changes: object) -> dict[str, object]:
    """The task stored in a bundle."""
    return {**get_task("sst2").task.to_dict(), **changes}


DAMAGES: list[tuple[str, Change, str]] = [
    ("no folder", shutil.rmtree, "is no bundle"),
    *((f"no {name}", lambda f, name=name: (f / name).unlink(), name) for name in BUNDLED),
    *((f"half of {name}", cut(name), name) for name in BUNDLED),
    *((f"flipped {name} at {at}", flip(name, at), name) for name in BUNDLED for at in (0.0, 0.4, 0.97)),
    ("other schema", edit(schema_version=1), "schema version 1, this version reads 3"),
    ("no schema", edit(schema_version=None), "schema version None"),
    ("unknown key", edit(extra=1), "'extra'"),
    ("missing key", edit(why=None), "'why'"),
    ("no json table", lambda f: (f / "far.json").write_text("[]"), "schema version None"),
    ("outside", listed("../mine.tsv"), "'../mine.tsv', which is outside the bundle"),
    ("absolute", listed("/etc/hostname"), "'/etc/hostname', which is outside the bundle"),
    (
        "cloned without its large files",
        lambda f: (f / "start.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "start.safetensors is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    ("not there", listed("model/more.safetensors"), "lacks model/more.safetensors"),
    ("linked away", link_away, "'start.safetensors', which is outside the bundle"),
    ("checksums no table", edit(sha256=["start.safetensors"]), "lists no model/config.json"),
    ("smuggled code", lambda f: (f / "far" / "more.py").write_bytes(b""), "far/more.py"),
    ("smuggled file", lambda f: (f / "model" / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin"),
    ("learners of other layers", phase(learners=[None]), "one entry for each of the 2 feed-forward blocks"),
    ("learners no numbers", phase(learners=[None, ["1"]]), "must be whole numbers"),
    ("learners outside", phase(learners=[None, [64]]), "outside 0 to 63"),
    ("heads of other layers", phase(heads=[None]), "one entry for each of the 2 layers"),
    ("heads outside", phase(heads=[None, [64]]), "outside 0 to 1"),
    ("heads twice", phase(heads=[None, [0, 0]]), "name one twice"),
    ("a task of no kind", phase(task=task_of(kind="clairvoyance")), "'clairvoyance' is none of classification"),
    ("a task of one class", phase(task=task_of(labels=["yes"])), "at least two labels"),
    ("half a task", phase(task={"name": "mine"}), "does not describe a bundle"),
    ("segments in words", phase(segments="yes"), "segments is 'yes'; it must be true or false"),
    ("no phase", edit(phase=None), "phase is None; it must be a table"),
    ("phase without a key", phase(plan=None), "'plan'"),
    ("phase with one more", phase(more=1), "'more'"),
    (
        "an endless rate",
        phase(learning_rate=1e300),
        "learning_rate is 1e+300; it must be a number above 0 and at most 1000",
    ),
    ("half a plan", phase(plan={"optimizer": "adamw"}), "its plan has no 'attention'"),
    ("a header that claims too much", claim, "claims 1125899906842624 bytes"),
    ("other shapes", relabel, "start.safetensors does not fit its model"),
]


@pytest.mark.parametrize(("change", "named"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_damaged_bundles_are_refused(bundle: Path, tmp_path: Path, change: Change, named: str) -> None:
    """One line with the cause, exit code 2, and no model is made."""
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    change(broken)
    train = write_rows(tmp_path / "mine.tsv", ("a good film", 1), ("a bad film", 0))
    done = call(tmp_path, "finetune", broken, "--train", train, "--out", "tuned")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert named in done.err
    assert not (tmp_path / "tuned").exists()


def test_an_undamaged_bundle_is_accepted(bundle: Path, tmp_path: Path) -> None:
    """The copy that the damages start from is valid at any path."""
    shutil.copytree(bundle, tmp_path / "elsewhere")
    opened = read_bundle(tmp_path / "elsewhere")
    assert opened.task.name == "sst2"
    assert len(opened.files.phase["learners"]) == 2
    with pytest.raises(BundleError, match="is no bundle"):
        read_bundle(tmp_path / "elsewhere" / "far.json")
