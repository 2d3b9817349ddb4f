"""The folder ``far`` on a board: Python 3.6, torch 1.10 and transformers 4.18 compute the same as the workstation.

``make test-board`` creates that Python in .venv-board; FARSEARCH_BOARD_PYTHON names another one, e.g. on a real board.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import farsearch.far
from farsearch.cost.plans import exact_plans, execution_of
from farsearch.cost.pricer import Pricer
from farsearch.far.selection import learner_counts
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.records import FarConfig, StepPlan
from tests.board import checks
from tests.cost.reference import make_profile
from tests.tiny import FAMILIES, make_config

pytestmark = pytest.mark.board

FAR = Path(farsearch.far.__file__).parent
ROOT = Path(__file__).parents[2]
PYTHON = ROOT / os.environ.get("FARSEARCH_BOARD_PYTHON", ".venv-board/bin/python")

families = pytest.mark.parametrize("family", FAMILIES)

WIDTH = 64
LEARNERS = [[1, 5, 40, 41, 63], []]

LABELS = [i % 2 for i in range(26)]
ROWS = [[2, 10 + label, *random.Random(i).choices(range(5, 300), k=i % 11), 3] for i, label in enumerate(LABELS)]
"""One token of a row tells its label, so that training must move the loss."""

TRAINING = {
    "check": "training",
    "rows": ROWS,
    "labels": LABELS,
    "learners": LEARNERS,
    "batch_size": 4,
    "epochs": 2.0,
    "seed": 3,
    "learning_rate": 3e-3,
    "micro_batch_size": None,
    "optimizer": {"kind": "adamw"},
    "freeze": {},
    "execution": {},
}

LEAN = {"feed_forward": "recompute", "attention": "recompute", "dropout": "seed", "layer_norm": "output"}
"""Keeps least for the backward pass without checkpointing."""


@pytest.fixture(scope="module")
def board() -> Path:
    """The board's Python."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    return PYTHON


def model_folder(folder: Path, family: str, dropout: float = 0.0) -> Path:
    """A tiny model as in a bundle, and the same model with changes as by priming."""
    config = make_config(family, neurons=WIDTH, dropout=dropout)
    config.initializer_range = 0.2
    return folder_of(folder, config)


def folder_of(folder: Path, config: Any) -> Path:
    """A model of this configuration with random weights."""
    torch.manual_seed(0)
    model, layout = build_model(config, Head())
    config.save_pretrained(folder)
    (folder / "layout.json").write_text(json.dumps(layout.to_dict()))
    start = model.state_dict()
    torch.save(start, folder / "start.pt")
    torch.save({name: value + 1e-3 * torch.randn(value.shape) for name, value in start.items()}, folder / "primed.pt")
    return folder


def copy_code(folder: Path) -> None:
    """Copy the packages that a bundle carries into a folder."""
    for package in (FAR, FAR.with_name("runtime")):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / package.name, ignore=ignored, dirs_exist_ok=True)


def on_board(board: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Return the board's answer to a case; it has a copy of far, and nothing else of farsearch."""
    copy_code(folder)
    (folder / "case.json").write_text(json.dumps(case))
    done = subprocess.run(
        [board, "-I", checks.__file__, folder], cwd=folder, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def on_both(board: Path, folder: Path, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answers of board and workstation to a case."""
    return on_board(board, folder, case), checks.CHECKS[case["check"]]("farsearch.far", folder, case)


def test_the_board_has_old_versions(board: Path) -> None:
    """Python 3.6, torch 1.10 and transformers 4.18, and no farsearch: otherwise the tests below prove nothing."""
    says = "import sys, torch, transformers; print(sys.version, torch.__version__, transformers.__version__, sep='|')"
    done = subprocess.run([board, "-I", "-c", says], capture_output=True, text=True, check=True)
    python, torch_version, transformers_version = done.stdout.split("|")
    assert python.startswith("3.6.")
    assert torch_version.startswith("1.10.")
    assert transformers_version.startswith("4.18.")
    assert subprocess.run([board, "-I", "-c", "import farsearch"], capture_output=True, check=False).returncode == 1


def test_every_module_is_imported(board: Path, tmp_path: Path) -> None:
    """Under the folder's name on a board."""
    names = [path.stem for path in sorted(FAR.glob("*.py")) if path.stem != "__init__"]
    answer, _ = on_both(board, tmp_path, {"check": "modules", "modules": names})
    assert answer["imported"] == [f"far.{name}" for name in names]


def test_optimizer_features_differ(board: Path, tmp_path: Path) -> None:
    """The board has neither fused optimizers nor hooks after gradient accumulation; the workstation has both."""
    answer, expected = on_both(board, tmp_path, {"check": "abilities"})
    assert answer == {"fused": False, "in_backward": False}
    assert expected == {"fused": True, "in_backward": True}


def test_same_order_and_rates(board: Path, tmp_path: Path) -> None:
    """The batches of a phase of several epochs have the same rows, order and learning rates."""
    lengths = [random.Random(i).randrange(3, 64) for i in range(333)]
    case = {"check": "order", "lengths": lengths, "batch_size": 8, "epochs": 2.6, "seed": 7, "learning_rate": 3e-4}
    answer, expected = on_both(board, tmp_path, case)
    assert len(expected["batches"]) == 109
    assert answer == expected


@families
def test_same_learners(board: Path, tmp_path: Path, family: str) -> None:
    """By score, by the lower index on ties, and at random."""
    ties = [float(random.Random(i).randrange(4)) for i in range(WIDTH)]
    case = {"check": "selection", "frozen_fraction": 0.6, "ties": ties, "seed": 11}
    answer, expected = on_both(board, model_folder(tmp_path, family), case)
    for name in ("top", "ties", "random"):
        assert answer[name] == expected[name]
    torch.testing.assert_close(torch.tensor(answer["scores"]), torch.tensor(expected["scores"]), atol=1e-12, rtol=0)


@families
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="plain"),
        pytest.param({"learners": [None, list(range(WIDTH))]}, id="no neuron frozen"),
        pytest.param({"optimizer": {"kind": "sgd"}, "learning_rate": 0.1}, id="sgd"),
        pytest.param({"micro_batch_size": 3}, id="micro-batches"),
        pytest.param({"freeze": {"frozen_embeddings": True, "frozen_attention_layers": 1}}, id="frozen parts"),
        pytest.param({"freeze": {"heads": [[1], None]}, "execution": LEAN, "dropout": 0.1}, id="frozen heads"),
        pytest.param({"freeze": {"frozen_bottom_layers": 1}, "learners": [None, LEARNERS[0]]}, id="frozen bottom"),
        *(
            pytest.param({"execution": {"feed_forward": policy}}, id=f"{policy} feed-forward")
            for policy in ("store", "compact", "recompute")
        ),
        pytest.param({"execution": {"feed_forward": "store"}, "learners": [None, []]}, id="whole feed-forward"),
        pytest.param({"execution": {"attention": "recompute"}}, id="attention"),
        pytest.param({"execution": {"layer_norm": "output"}}, id="LayerNorm"),
        pytest.param({"execution": {"checkpointing": True}}, id="checkpointing"),
        pytest.param(
            {"execution": {"checkpointing": True}, "freeze": {"frozen_embeddings": True}}, id="checkpointing, frozen"
        ),
        pytest.param({"execution": {"frozen_dtype": "bfloat16", "feed_forward": "recompute"}}, id="bfloat16"),
        pytest.param({"execution": LEAN}, id="lean"),
        pytest.param({"dropout": 0.1}, id="plain, dropout"),
        pytest.param({"execution": LEAN, "dropout": 0.1}, id="lean, dropout"),
        pytest.param({"execution": {"checkpointing": True}, "dropout": 0.1}, id="checkpointing, dropout"),
    ],
)
def test_same_training(board: Path, tmp_path: Path, family: str, change: dict[str, Any]) -> None:
    """The same losses step by step and logits to 1e-4, the same tensors and neurons moved, and a merged model."""
    case = {**TRAINING, **change}
    answer, expected = on_both(board, model_folder(tmp_path, family, case.pop("dropout", 0.0)), case)
    assert len(expected["losses"]) == 14
    assert answer["losses"] == pytest.approx(expected["losses"], abs=1e-4)
    assert max(expected["losses"]) - min(expected["losses"]) > 0.1
    torch.testing.assert_close(torch.tensor(answer["logits"]), torch.tensor(expected["logits"]), atol=1e-4, rtol=0)
    for name in ("trainable", "moved", "moved_neurons"):
        assert answer[name] == expected[name]
    assert answer["same_names"]
    for moved, learners in zip(answer["moved_neurons"], case["learners"], strict=True):
        if learners is not None and "frozen_dtype" not in case["execution"]:  # frozen weights are rounded after that
            assert moved == learners


NEURONS, ROWS_AT_ONCE, TOKENS = 3072, 4, 48
PROFILE = make_profile(torch="1.10", attention="eager")
PLANS = {"modules": StepPlan(), **{plan.summary: plan for plan in exact_plans(PROFILE)}}
MICRO = {f"{name}, rows by 2": dataclasses.replace(PLANS[name], micro_batch_size=2) for name in ("modules", "store")}


@families
def test_peak_memory_is_as_predicted(
    board: Path, tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cost model, which traces this machine's libraries, against the board's own profiler: to 1 %.

    Two layers of BERT's real size with a small vocabulary, so that saved tensors outweigh the weights.
    """
    config = make_config(family, hidden=768, neurons=NEURONS, heads=12, vocabulary=1000)
    pricer = Pricer(config, Head(), ROWS_AT_ONCE, TOKENS, PROFILE)
    steps, cases = [], []
    for fraction in (0.0, 0.9):
        far = FarConfig((fraction,) * 2, 1e-4, 1.0)
        counts = learner_counts(NEURONS, far.frozen_fractions, 0)
        for name, plan in {**PLANS, **MICRO}.items():
            cases.append((f"{family}, {fraction:.0%} frozen", name, pricer.price(far, plan).tensor_peak_mib))
            steps.append(
                {
                    "execution": execution_of(plan)._asdict(),
                    "learners": [None if count is None else list(range(count)) for count in counts],
                    "kind": plan.optimizer,
                    "batch_size": ROWS_AT_ONCE,
                    "length": TOKENS,
                    "micro_batch_size": plan.micro_batch_size,
                }
            )
    answer = on_board(board, folder_of(tmp_path, config), {"check": "peaks", "steps": steps})
    peaks = [size / 2**20 for size in answer["peaks"]]
    with capsys.disabled():
        print(f"\n{'model':24}{'plan':26}{'predicted MiB':>14}{'measured MiB':>14}{'difference':>12}")
        for (model, name, predicted), measured in zip(cases, peaks, strict=True):
            print(f"{model:24}{name:26}{predicted:14.1f}{measured:14.1f}{predicted / measured - 1:12.2%}")
    assert [predicted for *_, predicted in cases] == pytest.approx(peaks, rel=0.01)
