"""farsearch as a library: the names of ``import farsearch``."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import farsearch
from farsearch import FarConfig, SearchSpec, Study, Workspace, estimate, search, sweep
from farsearch.errors import BadInput
from farsearch.records import flat


def test_the_public_surface_is_pinned() -> None:
    assert farsearch.__all__ == [
        "FarConfig", "PrimingResult", "RankedDevice", "SearchSpec", "Selection", "Study", "Workspace", "apply_far",
        "estimate", "largest_batch", "merge", "open_study", "prime", "prime_with", "random_learners", "rank_devices",
        "search", "select_learners", "sweep",
    ]  # fmt: skip
    assert all(getattr(farsearch, name).__name__ == name for name in farsearch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        farsearch.serach  # noqa: B018


def test_importing_does_not_load_torch() -> None:
    """The command line has to answer at once."""
    code = "import sys, farsearch; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_estimate_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known model is priced offline; freezing lowers memory and trained parameters."""
    monkeypatch.chdir(tmp_path)
    full = estimate("jetson-nano", "google/bert_uncased_L-2_H-128_A-2", batch_size=2, max_length=16)
    far = estimate("jetson-nano", "google/bert_uncased_L-2_H-128_A-2", batch_size=2, max_length=16, frozen_fraction=0.9)
    assert far.trainable < full.trainable
    assert far.tensor_peak_mib < full.tensor_peak_mib
    with pytest.raises(BadInput, match="at most 512"):
        estimate("jetson-nano", "google/bert_uncased_L-2_H-128_A-2", max_length=600)


def test_sweep_prices_as_estimate_does(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch, rows and optimizer included."""
    monkeypatch.chdir(tmp_path)
    job = {"batch_size": 4, "max_length": 16, "samples": 12, "optimizer": "sgd", "micro_batch_size": 2}
    swept = sweep("jetson-nano", str(tiny_bert), "uniform", configurations=5, **job)  # type: ignore[arg-type]
    for i, config in enumerate(swept.configs):
        alone = estimate("jetson-nano", str(tiny_bert), config, **job)  # type: ignore[arg-type]
        assert swept.peak_memory_mib[0, i] == pytest.approx(alone.peak_memory_mib, rel=1e-12)
        assert swept.wall_time_s[0, i] == pytest.approx(alone.wall_time_s, rel=1e-12)
    assert {plan.optimizer for plan in swept.plans} == {"sgd"}
    assert {plan.micro_batch_size for plan in swept.plans} == {2}
    with pytest.raises(BadInput, match="give `samples`"):
        sweep("jetson-nano", str(tiny_bert), prime_on_device=True)


SETTINGS: dict[str, Any] = {"device": "jetson-nano", "task": "reviews", "train_samples": 32, "max_length": 16}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    home = tmp_path_factory.mktemp("workspace")
    return Workspace(home / "home", tracking_uri=f"sqlite:///{home}/mlflow.db", progress=False)


@pytest.fixture(scope="module")
def study(workspace: Workspace, tiny_bert: Path) -> Study:
    """A study of three trials with the paper's baselines. Tests do not change it."""
    return workspace.search(**SETTINGS, model=str(tiny_bert), n_trials=3, study="tiny", baselines="paper")


def test_search_calls_back_and_resumes(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = []
    workspace = Workspace(tmp_path / "home", callbacks=[lambda trial, study: ended.append((trial.number, study.name))])
    study = workspace.search(**SETTINGS, model=str(tiny_bert), n_trials=2)
    assert ended == [(0, study.name), (1, study.name)]
    assert study.name == "reviews-tiny-bert-jetson-nano-default"
    assert "[2/2] trial 1  " in capsys.readouterr().err
    assert len(workspace.search(**SETTINGS, model=str(tiny_bert), n_trials=3).trials) == 3
    assert len(study.refresh().resume(n_trials=1).trials) == 4
    assert "resuming study reviews-tiny-bert-jetson-nano-default: 3 of 4 trials" in capsys.readouterr().err
    assert study.snapshot.n_trials == 4


def test_progress_can_be_switched_off(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.workspace.open_study("tiny").resume()
    assert capsys.readouterr() == ("", "")


def test_a_study_is_read_in_python(study: Study) -> None:
    """Trials as records and as a pandas table, the front as a picture for a notebook."""
    opened = study.workspace.open_study()
    assert opened.snapshot == study.snapshot
    table = opened.trials_dataframe()
    assert list(table.index) == [0, 1, 2]
    assert table.metric.tolist() == [flat(trial).metric for trial in opened.trials]
    assert {"learning_rate", "mean_frozen", "peak_memory_mib", "on_front", "plan"} <= set(table.columns)
    assert list(table[table.on_front].index) == sorted(trial.number for trial in opened.front)
    assert opened.plot_front()._repr_png_().startswith(b"\x89PNG")
    assert [trial.baseline.method for trial in opened.baselines if trial.baseline] == ["full", "far10", "bitfit"]
    assert repr(opened) == f"<Study tiny: 3 complete trials, {len(opened.front)} on the front>"


def test_choose_and_export(study: Study, tmp_path: Path) -> None:
    best = study.choose(prefer="accuracy")
    assert flat(best.trial).metric == max(flat(trial).metric or 0.0 for trial in study.front)
    assert study.choose(trial=1).trial.number == 1
    exported = study.export(best, tmp_path / "bundle")
    assert exported.registered is None
    assert (tmp_path / "bundle" / "far.json").is_file()
    study.export(1, tmp_path / "one.zip")
    with pytest.raises(BadInput, match="`delta` leaves the model away"):
        study.export(1, tmp_path / "delta", delta=True, register="tiny")
    with pytest.raises(BadInput, match="above 100"):
        study.choose(min_metric=101)


def test_a_study_is_reported_verified_and_mirrored(study: Study, tmp_path: Path) -> None:
    report = study.report(tmp_path / "report.html", figures=tmp_path / "figures")
    assert report.page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert tmp_path / "figures" / "front.png" in report.figures
    (verdict,) = study.verify([1], seeds=1, train_samples=32, baselines="none")
    assert (verdict.trial, len(verdict.scores), verdict.train_samples) == (1, 1, 32)
    assert study.verdicts == [verdict]
    assert [synced.study for synced in study.sync()] == ["tiny", "tiny/baselines", "tiny/verified"]
    assert [use.name for use in study.workspace.studies()] == ["tiny"]


def test_a_search_is_previewed(workspace: Workspace, tiny_bert: Path) -> None:
    lines = [*workspace.preview(**SETTINGS, model=str(tiny_bert), n_trials=5, study="new")]
    assert lines[0].startswith("study new: reviews (")
    assert "for 5 trials" in lines[-1]
    assert "new" not in [use.name for use in workspace.studies()]


def test_a_user_s_data_are_described_by_fields(workspace: Workspace, tiny_bert: Path, tmp_path: Path) -> None:
    rows = "".join(f"{word} film number {i},{label}\n" for i in range(30) for word, label in (("bad", 0), ("good", 1)))
    (tmp_path / "mine.csv").write_text(f"text,label\n{rows}")
    own = {"train": tmp_path / "mine.csv", "label_column": "label"}
    lines = workspace.preview(device="jetson-nano", own=own, model=str(tiny_bert), max_length=16)
    assert next(lines).startswith("study mine-tiny-bert-jetson-nano-default: mine (")


@pytest.mark.parametrize(
    ("settings", "value"),
    [({"n_trials": 0}, "`n_trials` is 0"), ({"plan": "fast"}, "`plan` is 'fast'"), ({"epochs": -1}, "`epochs` is -1")],
)
def test_settings_are_checked_by_their_names(settings: dict[str, Any], value: str) -> None:
    with pytest.raises(BadInput, match=value):
        search(device="jetson-nano", task="reviews", **settings)


def test_signatures_list_the_fields_with_their_defaults() -> None:
    """For ``help`` and completion."""
    parameters = inspect.signature(search).parameters
    assert list(parameters) == [field.name for field in dataclasses.fields(SearchSpec)]
    assert parameters["n_trials"].default == 30
    assert list(inspect.signature(Study.choose).parameters)[1:3] == ["prefer", "within"]
    assert "n_trials: Total number of trained trials" in (search.__doc__ or "")


ATTENTIONS = (
    "microsoft/deberta-v3-small", "microsoft/mpnet-base", "answerdotai/ModernBERT-base", "google/mobilebert-uncased",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "device"),
    [
        # each kind of attention and each torch in every run, all pairs in the whole one
        pytest.param(name, device, marks=() if i % 2 == j else pytest.mark.slow)
        for i, name in enumerate(ATTENTIONS)
        for j, device in enumerate(("jetson-nano", "raspberry-pi-4"))
    ],
)
def test_every_kind_of_attention_is_priced_for_every_torch(name: str, device: str) -> None:
    """Under the memory plan, which recomputes layers."""
    cost = estimate(device, name, frozen_fraction=0.9, batch_size=2, max_length=16, plan="memory")
    assert cost.tensor_peak_mib > 0


_LIBRARY_ROUTE = """
import sys
import torch
from farsearch import FarConfig, apply_far, random_learners
from farsearch.runtime.torch_engine.memory import peak_mib
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import ModelSource

config = load_config(ModelSource("minilm", "minilm"), with_known=True)
model, _ = build_model(config, Head())
config = FarConfig((0.0,) * 6, 1e-4, 1.0)
apply_far(model, config, random_learners(model, config), free_memory_at_once=sys.argv[1] == "True")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=False)
batch = Head().batch(16, 128).inputs
batch["attention_mask"][::2, 64:] = 0
for _ in range(3):
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(peak_mib())  # of this program alone: ru_maxrss is inherited from the process that starts it
"""


@pytest.mark.slow
def test_training_in_a_new_process_takes_the_predicted_memory() -> None:
    """MiniLM, 16 x 128: within the predicted range, and above it without ``free_memory_at_once``."""
    _, high = estimate("raspberry-pi-4", "minilm", FarConfig((0.0,) * 6, 1e-4, 1.0)).peak_memory_range_mib
    peaks = [
        float(
            subprocess.run(
                [sys.executable, "-c", _LIBRARY_ROUTE, str(asked)], check=True, capture_output=True, text=True
            ).stdout
        )
        for asked in (True, False)
    ]
    assert peaks[0] <= high < peaks[1]
