"""Settings of the training, from a user's unequal rows to a bundle that each engine fine-tunes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farsearch.bundle.read import finetune, read_bundle
from farsearch.bundle.write import write_bundle
from farsearch.records import Engine
from tests.journey import chdir
from tests.tasks.searches import Searched, search_task, write_user_rows


@pytest.fixture(scope="module")
def searched(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search of one trial with class weights, early stopping, smoothed labels and clipped gradients."""
    folder = tmp_path_factory.mktemp("unequal")
    rows = [f"{('a bad', 'a good')[i % 9 == 0]} film {i} of {i % 13},{('no', 'yes')[i % 9 == 0]}" for i in range(180)]
    (folder / "mine.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with chdir(folder):
        return search_task(
            folder, tiny_bert, 1, own={"train": "mine.csv"}, patience=1, label_smoothing=0.1, clip_norm=0.5,
            engine="any", device="raspberry-pi-4",
        )  # fmt: skip


def test_a_trial_is_trained_and_priced_with_them(searched: Searched) -> None:
    """No plan steps in the backward pass, and memory and time have the best state and the evaluations."""
    job, trial = searched.snapshot.settings.job, searched.snapshot.front[0]
    assert (job.class_weights, searched.snapshot.metric_name) == ("balanced", "macro_f1")
    assert trial.plan.optimizer_step == "end"
    assert {plan.plan.optimizer_step for plan in trial.plans} == {"end"}
    assert trial.cost.memory["best state"] == pytest.approx(4 * trial.cost.trainable / 2**20)
    assert trial.cost.time["evaluations"] > 0 < trial.cost.time["clipping"]


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_bundle_trains_with_them(searched: Searched, engine: Engine, tmp_path: Path) -> None:
    """By their record, on rows whose classes are of other sizes."""
    trial = searched.snapshot.front[0]
    out = tmp_path / "bundle"
    write_bundle(searched.snapshot, trial, searched.search.folder, out, "a test", home=tmp_path / "home", engine=engine)
    phase = json.loads((out / "far.json").read_text(encoding="utf-8"))["phase"]
    assert {name: phase[name] for name in ("class_weights", "patience", "label_smoothing", "clip_norm")} == {
        "class_weights": "balanced", "patience": 1, "label_smoothing": 0.1, "clip_norm": 0.5,
    }  # fmt: skip
    assert "| class weights | balanced |" in (out / "README.md").read_text(encoding="utf-8")
    dev = write_user_rows(tmp_path, searched.bench, "dev")
    tuned = finetune(read_bundle(out), dev, dev, tmp_path / "tuned", epochs=8.0)
    assert tuned.metric is not None
    assert "the best by --dev" in tuned.summary[0]
