"""A resumed phase equals one without interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from farsearch.far.features import Features
from farsearch.far.layout import ModelLayout
from farsearch.far.safetensors import load, save
from farsearch.far.surgery import apply_far
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.records import StepPlan
from farsearch.runtime.job import Interrupted, PhaseLog
from farsearch.runtime.memory import is_out_of_memory
from farsearch.runtime.recorder import Savepoints
from farsearch.runtime.torch_engine.phase import train_phase
from tests.tiny import make_config

ROWS = Features([[2, 10 + i % 2, *range(5, 5 + i % 7), 3] for i in range(24)], [i % 2 for i in range(24)])

PLANS = {
    "adamw": StepPlan(),
    "sgd": StepPlan(optimizer="sgd"),
    "fused, in the backward pass": StepPlan(optimizer_kernel="fused", optimizer_step="backward"),
    "micro-batches": StepPlan(micro_batch_size=2),
}
plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def make_model() -> tuple[nn.Module, ModelLayout]:
    """Return a tiny model prepared for its phase, the same at each call."""
    torch.manual_seed(0)
    model, layout = build_model(make_config("bert", neurons=16, dropout=0.1), Head())
    return apply_far(model, layout, [[1, 5], []]), layout


def run(model: nn.Module, plan: StepPlan, path: Path | None = None, stop_after: int | None = None) -> PhaseLog:
    """Run the phase, optionally interrupted after some steps."""
    done = 0

    def stopping() -> bool:
        nonlocal done
        done += 1
        return done == stop_after

    return train_phase(
        model, plan.to_dict(), ROWS, 1e-3, 2.0, 4, 0, 7, plan.micro_batch_size,
        savepoints=Savepoints(None if path is None else str(path), "mine", stopping=stopping),
    )  # fmt: skip


@plans
@pytest.mark.parametrize("cut", [1, 7, 11])
def test_an_interrupted_phase_ends_as_an_uninterrupted_one(tmp_path: Path, plan: StepPlan, cut: int) -> None:
    """Weights and losses are equal bit by bit, for each interruption and optimizer."""
    whole, _ = make_model()
    expected = run(whole, plan)
    assert len(expected.losses) == expected.steps == 12
    first, _ = make_model()
    with pytest.raises(Interrupted):
        run(first, plan, tmp_path / "savepoint", stop_after=cut)
    second, _ = make_model()
    course = run(second, plan, tmp_path / "savepoint")
    assert course.first_step == cut
    assert course.losses == expected.losses[cut:]
    for (name, one), other in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_frozen_weights_are_not_written(tmp_path: Path) -> None:
    """The savepoint has the trained tensors, and the optimizer's two tensors of each."""
    model, _ = make_model()
    with pytest.raises(Interrupted):
        run(model, StepPlan(), tmp_path / "savepoint", stop_after=3)
    names = load(str(tmp_path / "savepoint"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.removeprefix("weight/") for name in names if name.startswith("weight/")} == trained
    assert {name.split("/")[1] for name in names if name.startswith("state/")} >= {"exp_avg", "exp_avg_sq"}
    assert len(trained) < len(list(model.parameters()))


def test_a_savepoint_of_another_training_is_refused(tmp_path: Path) -> None:
    """Savepoints of other rows or other weights, and truncated ones, are not resumed."""
    path = tmp_path / "savepoint"
    model, _ = make_model()
    with pytest.raises(Interrupted):
        run(model, StepPlan(), path, stop_after=3)
    held = load(str(path))
    cases = [
        (held, {"identity": "another", "steps": "3"}, "another training"),
        (held, {"identity": "mine", "steps": "three"}, "another training"),
        ({k: v for k, v in held.items() if "classifier.bias" not in k}, {"identity": "mine", "steps": "3"}, "lacks"),
        ({**held, "weight/more": torch.ones(2)}, {"identity": "mine", "steps": "3"}, "'more', which is not trained"),
        ({**held, "weight/classifier.bias": torch.ones(3)}, {"identity": "mine", "steps": "3"}, "another shape"),
    ]
    for tensors, texts, named in cases:
        save(str(path), tensors, texts)
        again, _ = make_model()
        with pytest.raises(ValueError, match=named):
            run(again, StepPlan(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="bytes"):
        run(again, StepPlan(), path)


def test_out_of_memory_is_distinguished_from_other_errors() -> None:
    """On a CPU torch raises a plain RuntimeError, Python its own exception."""
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("out of memory"))
