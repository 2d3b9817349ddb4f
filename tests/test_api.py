"""farsearch as a library: what `import farsearch` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import farsearch
from farsearch import FarConfig, JobOptions, estimate, search, sweep
from farsearch.errors import BadInput
from farsearch.records import TrialRecord


class Listener:
    """Hears of a search and keeps what it heard."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def trial_started(self, *_: object) -> None:
        """Not looked at here."""

    def step(self, *_: object) -> None:
        """Not looked at here."""

    def note(self, *_: object) -> None:
        """Not looked at here."""

    def trial_ended(self, record: TrialRecord, *_: object) -> None:
        """Keep the number."""
        self.ended.append(record.number)


def test_the_public_surface() -> None:
    """A change to what the package offers is always on purpose."""
    assert farsearch.__all__ == [
        "FarConfig", "JobOptions", "PrimingResult", "Selection", "apply_far", "estimate", "merge", "prime",
        "prime_with", "random_learners", "search", "select_learners", "sweep",
    ]  # fmt: skip
    assert all(getattr(farsearch, name).__name__ == name for name in farsearch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        farsearch.serach  # noqa: B018


def test_importing_is_light() -> None:
    """``import farsearch`` loads no torch, so that the command line answers at once."""
    code = "import sys, farsearch; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_estimate_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known model is priced offline; freezing lowers what is trained; wrong lengths are refused."""
    monkeypatch.chdir(tmp_path)
    full = estimate("jetson-nano", "google/bert_uncased_L-2_H-128_A-2", batch_size=2, max_length=16)
    far = estimate("jetson-nano", "google/bert_uncased_L-2_H-128_A-2", batch_size=2, max_length=16, frozen_fraction=0.9)
    assert far.trainable < full.trainable
    assert far.tensor_peak_mib < full.tensor_peak_mib
    with pytest.raises(BadInput, match="at most 512"):
        estimate("jetson-nano", "google/bert_uncased_L-2_H-128_A-2", max_length=600)


def test_sweep_prices_as_estimate_does(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prices of a swept configuration are those of an estimate of it alone, batch, rows and optimizer included."""
    monkeypatch.chdir(tmp_path)
    job = {"batch_size": 4, "max_length": 16, "samples": 12, "optimizer": "sgd", "micro_batch_size": 2}
    swept = sweep("jetson-nano", str(tiny_bert), "uniform", configurations=5, **job)  # type: ignore[arg-type]
    for i, config in enumerate(swept.configs):
        alone = estimate("jetson-nano", str(tiny_bert), config, **job)  # type: ignore[arg-type]
        assert swept.peak_memory_mib[0, i] == pytest.approx(alone.peak_memory_mib, rel=1e-12)
        assert swept.wall_time_s[0, i] == pytest.approx(alone.wall_time_s, rel=1e-12)
    assert {plan.optimizer for plan in swept.plans} == {"sgd"}
    assert {plan.micro_batch_size for plan in swept.plans} == {2}
    with pytest.raises(BadInput, match="give --samples"):
        sweep("jetson-nano", str(tiny_bert), prime_on_device=True)


def test_search_is_the_commands_search(tiny_bert: Path, tmp_path: Path) -> None:
    """The library's search trains the asked number of trials, tells of each, and goes on with its study."""
    options = JobOptions(task="reviews", device="jetson-nano", model=str(tiny_bert), train_samples=32, max_length=16)
    listener = Listener()
    snapshot = search(options, listener, n_trials=2, home=tmp_path / "home")
    assert [trial.number for trial in snapshot.complete] == listener.ended == [0, 1]
    again = search(options, Listener(), n_trials=3, home=tmp_path / "home")
    assert len(again.complete) == 3


@pytest.mark.parametrize(
    "name",
    ["microsoft/deberta-v3-small", "microsoft/mpnet-base", "answerdotai/ModernBERT-base", "google/mobilebert-uncased"],
)
@pytest.mark.parametrize("device", ["jetson-nano", "raspberry-pi-4"])
def test_every_kind_of_attention_is_priced_for_every_torch(name: str, device: str) -> None:
    """With layers that run forward again: they keep the same there as before, with the device's functions."""
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
def test_the_library_s_route_takes_what_is_predicted() -> None:
    """A process of its own, MiniLM 16 x 128 in full: within the predicted range; above it where that is off."""
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
