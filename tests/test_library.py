"""The library's round trip: prime, select, apply, train, merge, save, and load with transformers alone."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import farsearch
from farsearch import FarConfig, PrimingResult, Selection
from farsearch.errors import BadInput, Diverged
from farsearch.models.families import layout_of
from tests.tiny import make_config, make_model

HALF = FarConfig((0.5, 0.0), 1e-3, 1.0)


def batches(rows: int = 24, size: int = 8) -> list[dict[str, Tensor]]:
    """Return batches of random tokens; the first token is that of the class."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 100, (rows, 6), generator=generator)
    return [
        {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": (part[:, 0] > 50).long()}
        for part in tokens.split(size)
    ]


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dict."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def train(model: nn.Module, learning_rate: float = 1e-2) -> None:
    """Train with a user's own loop."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    for batch in batches():
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_documented_example_runs_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training loop of docs/library.md prints the text below it."""
    text = Path("docs/library.md").read_text(encoding="utf-8")
    code, printed = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[-1] for kind in ("python", "text"))
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    shown = capsys.readouterr().out
    exact = [line for line in shown.splitlines() if not line.startswith("right")]
    assert exact == [line for line in printed.splitlines() if not line.startswith("right")]
    # the last digits of a training depend on the machine
    right = [float(re.findall(r"^right (.*)$", each, re.MULTILINE)[0]) for each in (shown, printed)]
    assert right[0] == pytest.approx(right[1], abs=0.05)
    # the model saved in the middle is complete too
    _, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        "after-an-epoch", output_loading_info=True
    )
    assert not any(report.values())


def test_learners_have_primed_and_frozen_neurons_pre_trained_values() -> None:
    """Learners are the neurons with the largest change; the second bias is reset too."""
    model, layout = make_model("bert")
    before = state(model)
    priming = farsearch.prime(model, batches(), epochs=1.0, learning_rate=1e-3)
    primed = state(model)
    block = layout.blocks[0]
    up, down = f"{block.up}.weight", f"{block.down}.weight"
    moved = (primed[up] - before[up]).abs().sum(1) + (primed[down] - before[down]).abs().sum(0)
    moved += (primed[f"{block.up}.bias"] - before[f"{block.up}.bias"]).abs()
    selection = farsearch.select_learners(model, HALF, priming)
    learners = selection.learners[0]
    assert learners is not None
    assert selection.learners[1] is None
    assert set(learners) == set(moved.topk(32).indices.tolist())
    farsearch.apply_far(model, HALF, selection)
    after = model.state_dict()
    here = torch.tensor(sorted(learners))
    rest = torch.tensor(sorted(set(range(64)) - set(learners)))
    assert torch.equal(after[up][here], primed[up][here])
    assert torch.equal(after[up][rest], before[up][rest])
    assert torch.equal(after[down][:, here], primed[down][:, here])
    assert torch.equal(after[down][:, rest], before[down][:, rest])
    assert torch.equal(after[f"{block.down}.bias"], before[f"{block.down}.bias"])
    assert torch.equal(after["classifier.weight"], primed["classifier.weight"])


def test_only_the_configured_share_is_trained() -> None:
    """Half of the lower layer's neurons learn, the upper layer is unchanged, and merging restores all gradients."""
    model, _layout = make_model("bert")
    before = sum(p.numel() for p in model.parameters())
    farsearch.apply_far(model, HALF, farsearch.random_learners(model, HALF))
    frozen = before - sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert frozen == (64 // 2) * (2 * 32 + 1) + 32
    farsearch.merge(model)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == before


def test_own_loop_can_prime() -> None:
    """Scores are the L1 change of each neuron, however the model was trained, and the earlier state is restored."""
    model, layout = make_model("distilbert")
    before = state(model)

    def move_one(primed: nn.Module) -> None:
        with torch.no_grad():
            primed.get_parameter(f"{layout.blocks[0].up}.weight")[5] += 0.25

    priming = farsearch.prime_with(model, move_one)
    assert priming.scores[0][5] == pytest.approx(0.25 * 32)
    assert [int(score.count_nonzero()) for score in priming.scores] == [1, 0]
    assert all(torch.equal(value, before[name]) for name, value in priming.pretrained.items())


def test_priming_runs_the_requested_steps() -> None:
    """Epochs are passes over the batches, rounded to at least one step; the training mode is unchanged."""
    model, _layout = make_model("bert", dropout=0.0)
    model.eval()
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    for epochs, steps in ((1.0, 3), (0.1, 1), (2.4, 7)):
        calls.clear()
        farsearch.prime(model, batches(), epochs=epochs)
        assert len(calls) == steps
    assert not model.training


def test_random_learners_are_drawn_by_the_seed() -> None:
    """Equal seeds give equal draws, and no pre-trained values are stored to reset frozen neurons."""
    model, _layout = make_model("bert")
    first, again, other = (farsearch.random_learners(model, HALF, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.pretrained is None


def test_training_after_saving_does_not_change_the_file(tmp_path: Path) -> None:
    """The live model trains on, and can load the values of the file."""
    model, _layout = make_model("bert", dropout=0.0)
    farsearch.apply_far(model, HALF, farsearch.random_learners(model, HALF))
    train(model)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    saved = state(model)
    train(model)
    assert any(not torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert all(torch.equal(value, saved[name]) for name, value in loaded.state_dict().items())
    model.load_state_dict(loaded.state_dict())
    farsearch.merge(model)
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_foreign_state_dict_is_reported() -> None:
    """Missing and unexpected keys and other shapes are reported by the names of the original model."""
    model, layout = make_model("bert")
    farsearch.apply_far(model, HALF, farsearch.random_learners(model, HALF))
    up, down = f"{layout.blocks[0].up}.weight", f"{layout.blocks[0].down}.weight"
    given = state(model)
    missing = {name: value for name, value in given.items() if name not in (up, down)}
    result = model.load_state_dict({**missing, f"{layout.blocks[0].down}.more": given[down]}, strict=False)
    assert sorted(result.missing_keys) == sorted([up, down])
    assert result.unexpected_keys == [f"{layout.blocks[0].down}.more"]
    with pytest.raises(RuntimeError, match=rf"size mismatch for {re.escape(up)}: \(3, 3\) in the checkpoint"):
        model.load_state_dict({**given, up: torch.zeros(3, 3)})


def test_wrapped_model_has_ordinary_names() -> None:
    """The state dict of a wrapper, or of a part of the model, has the same names."""
    model, layout = make_model("bert")
    plain = list(model.state_dict())
    farsearch.apply_far(model, HALF, farsearch.random_learners(model, HALF))
    assert list(nn.ModuleDict({"inner": model}).state_dict()) == [f"inner.{name}" for name in plain]
    part = layout.blocks[0].up.rpartition(".")[0]
    assert list(model.get_submodule(part).state_dict()) == [
        name[len(part) + 1 :] for name in plain if name.startswith(f"{part}.")
    ]


def _model() -> nn.Module:
    return make_model("bert")[0]


def _reconfigured() -> nn.Module:
    return farsearch.apply_far(_model(), HALF, farsearch.random_learners(_model(), HALF))


def _headless() -> nn.Module:
    return transformers.BertModel(make_config("bert"))


REFUSED: list[tuple[str, Any, str]] = [
    ("no step", lambda: farsearch.prime_with(_model(), lambda _: None), "moved no neuron"),
    ("no batches", lambda: farsearch.prime(_model(), []), "there are no batches"),
    (
        "an endless stream",
        lambda: farsearch.prime(_model(), iter(batches())),  # type: ignore[arg-type]
        "or they have no length",
    ),
    ("no epochs", lambda: farsearch.prime(_model(), batches(), epochs=0.0), "epochs is 0.0; it must be"),
    (
        "tuples",
        lambda: farsearch.prime(_model(), [(batches()[0]["input_ids"],)]),  # type: ignore[list-item]
        "a batch is a tuple, not a mapping",
    ),
    (
        "no labels",
        lambda: farsearch.prime(_model(), [{"input_ids": batches()[0]["input_ids"]}]),
        "have input_ids and give no loss; add the labels",
    ),
    ("twice", lambda: farsearch.random_learners(_reconfigured(), HALF), "already; merge it first"),
    ("primed when reconfigured", lambda: farsearch.prime(_reconfigured(), batches()), "already; merge it first"),
    (
        "another depth",
        lambda: farsearch.random_learners(_model(), FarConfig((0.5,) * 3, 1e-3, 1.0)),
        "has 3 layers, the model 2",
    ),
    (
        "another share",
        lambda: farsearch.apply_far(
            _model(), HALF, farsearch.random_learners(_model(), FarConfig((0.9, 0.0), 1e-3, 1.0))
        ),
        "other numbers of learners than the configuration",
    ),
    (
        "outside",
        lambda: farsearch.apply_far(_model(), HALF, Selection((tuple(range(40, 72)), None))),
        "learner 64 is outside 0 to 63",
    ),
    (
        "a priming of another size",
        lambda: farsearch.select_learners(_model(), HALF, PrimingResult((torch.ones(8),) * 2, {})),
        "is of a model of another size",
    ),
    (
        "a priming of another model",
        lambda: farsearch.apply_far(_model(), HALF, Selection((tuple(range(32)), None), {})),
        "by the priming of another model",
    ),
    ("no head", lambda: farsearch.merge(_headless()), "BertModel has no 'bert' below a head"),
    ("no transformers", lambda: farsearch.merge(nn.Linear(2, 2)), "Linear is no model of transformers"),
]


@pytest.mark.parametrize(("ask", "rule"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_errors_are_one_line(ask: Any, rule: str) -> None:
    """Each has the broken rule and a suggestion."""
    with pytest.raises(BadInput, match=rule) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_diverged_priming_is_reported() -> None:
    """Neurons with scores that are not numbers can't be ranked."""
    with pytest.raises(Diverged, match="a lower learning rate may help"):
        farsearch.prime(_model(), batches(), epochs=4.0, learning_rate=1e30)

    def spoil(model: nn.Module) -> None:
        layout = layout_of(model.config)
        with torch.no_grad():
            model.get_parameter(f"{layout.blocks[1].up}.bias")[0] = torch.nan

    with pytest.raises(Diverged, match="a weight is not finite"):
        farsearch.prime_with(_model(), spoil)


def test_trainer_of_transformers_saves_and_loads_ordinary_checkpoints(tmp_path: Path) -> None:
    """With a reconfigured model each checkpoint is complete, and the best one is loaded at the end."""
    model, _layout = make_model("bert")
    farsearch.apply_far(model, HALF, farsearch.random_learners(model, HALF))
    rows = [{name: value[i] for name, value in batch.items()} for batch in batches() for i in range(8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", report_to=[],
        load_best_model_at_end=True, use_cpu=True, disable_tqdm=True, learning_rate=1e-2,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    best = Path(str(trainer.state.best_model_checkpoint))
    found = {}
    for folder in tmp_path.glob("checkpoint-*"):
        found[folder], report = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True
        )
        assert not any(report.values())
    assert len(found) == 2
    assert all(torch.equal(value, found[best].state_dict()[name]) for name, value in model.state_dict().items())
