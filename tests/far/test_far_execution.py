"""Whole models under every execution of a step, against ordinary modules."""

from __future__ import annotations

import copy
import dataclasses
import random
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from farsearch.cost.plans import exact_plans, execution_of, optimizer_of
from farsearch.devices.registry import list_profiles, load_profile
from farsearch.far.execution import Execution
from farsearch.far.features import Features
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.loop import predict, train
from farsearch.far.optimizer import BackwardOptimizer
from farsearch.far.schedule import linear_rate
from farsearch.far.surgery import apply_far, merge
from farsearch.records import StepPlan
from tests.tiny import FAMILIES, make_model

IDS = [[2, 10 + i % 2, *(random.Random(i).randrange(5, 300) for _ in range(3 + i % 8)), 3] for i in range(40)]
ROWS = Features(IDS, [i % 2 for i in range(40)])
BATCHES = [list(range(start, start + 4)) for start in range(0, 40, 4)]
"""Ten steps over rows whose second token determines their class."""

LEAN = StepPlan(feed_forward="store", attention="recompute", dropout="seed", layer_norm="output")


EVERY = [plan for name in list_profiles() for plan in exact_plans(load_profile(name))]
PLANS = list({execution_of(plan): plan for plan in EVERY}.values())
"""The exact plans of all devices."""

ALONE = [
    StepPlan(feed_forward="store"),
    StepPlan(attention="recompute"),
    StepPlan(dropout="seed"),
    StepPlan(layer_norm="output"),
    StepPlan(checkpointing=True),
    dataclasses.replace(LEAN, micro_batch_size=3),
]
"""Each memory-saving option alone, and micro-batches."""

INEXACT = [dataclasses.replace(LEAN, feed_forward="compact"), dataclasses.replace(LEAN, frozen_dtype="bfloat16")]

HALF = [
    dataclasses.replace(LEAN, precision="bfloat16"),
    dataclasses.replace(LEAN, precision="float16", feed_forward="recompute", checkpointing=True),
]

MODELS = [*{execution_of(plan): plan for plan in PLANS}.values(), *ALONE[:-1]]
"""One exact plan for each execution of a model, independent of the optimizer."""

families = pytest.mark.parametrize("family", FAMILIES)


def plan_id(plan: StepPlan) -> str:
    """The options in which a plan differs from ordinary modules."""
    plain, values = dataclasses.asdict(StepPlan()), dataclasses.asdict(plan)
    return "-".join(key if value is True else str(value) for key, value in values.items() if value != plain[key])


def reconfigured(family: str, dropout: float, execution: Execution) -> tuple[nn.Module, ModelLayout]:
    """A model of three layers: one split, one fully trained, one without learners.

    Its matrices are five times as large as the random initialisation, so that every layer affects the loss.
    """
    model, layout = make_model(family, layers=3, dropout=dropout)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    return apply_far(model.eval(), layout, [range(0, 64, 3), None, []], execution=execution), layout


def losses_of(family: str, plan: StepPlan, dropout: float, chunk_rows: int | None = None) -> list[float]:
    """The losses of ten steps."""
    model, _ = reconfigured(family, dropout, execution_of(plan, chunk_rows))
    losses: list[float] = []
    optimizer = optimizer_of(plan, model)
    train(
        model, ROWS, BATCHES, optimizer, linear_rate(3e-3, 10), 0, 5, plan.micro_batch_size,
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    return losses


@cache
def reference(family: str, plan: StepPlan, dropout: float) -> list[float]:
    """The reference losses."""
    return losses_of(family, plan, dropout)


def batch() -> dict[str, Tensor]:
    """Token ids with padding, and labels."""
    ids = torch.randint(5, 300, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0])}


@families
@pytest.mark.parametrize("plan", [*PLANS, *ALONE], ids=plan_id)
def test_exact_plans_reproduce_the_losses_of_modules(family: str, plan: StepPlan) -> None:
    """Without dropout, ten steps agree to 2e-6, step by step."""
    assert plan.exact
    expected = reference(family, StepPlan(), 0.0)
    assert losses_of(family, plan, 0.0) == pytest.approx(expected, rel=2e-6)
    assert min(expected) < expected[0] - 0.05, "nothing was learned"


@families
@pytest.mark.parametrize("chunk_rows", [1, 3])
def test_portions_do_not_change_the_losses(family: str, chunk_rows: int) -> None:
    """In portions of one row, or of three with one left over, they agree to 2e-6."""
    plan = dataclasses.replace(LEAN, feed_forward="recompute")
    expected = reference(family, StepPlan(), 0.0)
    assert losses_of(family, plan, 0.0, chunk_rows) == pytest.approx(expected, rel=2e-6)


@families
@pytest.mark.parametrize(
    "plan", [plan for plan in MODELS if plan.attention == "recompute" and plan.dropout == "seed"], ids=plan_id
)
def test_exact_plans_draw_the_same_dropout(family: str, plan: StepPlan) -> None:
    """All exact plans except ordinary modules draw the same masks, also when checkpointing runs a layer twice."""
    expected = reference(family, LEAN, 0.1)
    assert losses_of(family, plan, 0.1) == pytest.approx(expected, rel=2e-6)
    assert expected != pytest.approx(reference(family, LEAN, 0.0), rel=1e-3), "dropout did nothing"


@families
@pytest.mark.parametrize("plan", [*INEXACT, *HALF], ids=plan_id)
def test_inexact_plans_stay_close(family: str, plan: StepPlan) -> None:
    """One-byte derivatives, and weights or layers in 16 bits, change the losses by less than a hundredth."""
    assert not plan.exact
    got = losses_of(family, plan, 0.0)
    expected = reference(family, StepPlan(), 0.0)
    assert got == pytest.approx(expected, rel=1e-2)
    assert got != pytest.approx(expected, rel=1e-5), "it is exact"


@families
@pytest.mark.parametrize("plan", [*MODELS, INEXACT[0]], ids=plan_id)
def test_merge_restores_everything(family: str, plan: StepPlan) -> None:
    """Types and names of all modules, mode, hooks, state dict and gradients equal those of an unchanged model."""
    model, layout = make_model(family, layers=3)
    before = {name: type(module) for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    apply_far(model.eval(), layout, [range(5), None, []], True, 1, 1, execution_of(plan))
    model.train()
    merge(model, layout)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert all(module.training for module in model.modules())
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    for layer in layout.layers:
        assert "forward" not in vars(get_module(model, layer.path))


@families
@pytest.mark.parametrize("plan", [*MODELS, *INEXACT], ids=plan_id)
def test_predictions_before_and_after_merge(family: str, plan: StepPlan) -> None:
    """A trained model predicts the same reconfigured and merged, to 1e-6."""
    model, layout = reconfigured(family, 0.1, execution_of(plan))
    optimizer = optimizer_of(plan, model)
    train(model, ROWS, BATCHES[:2], optimizer, linear_rate(1e-3, 2), 0, 0, plan.micro_batch_size)
    if isinstance(optimizer, BackwardOptimizer):
        optimizer.close()
    logits = predict(model, ROWS, 0)
    torch.testing.assert_close(predict(merge(model, layout), ROWS, 0), logits, atol=1e-6, rtol=0)


@families
@pytest.mark.parametrize("plan", [*MODELS, *INEXACT, *HALF], ids=plan_id)
def test_a_deep_copy_is_independent(family: str, plan: StepPlan) -> None:
    """A copy of a reconfigured model computes the same, and its backward pass does not affect the original."""
    model, layout = reconfigured(family, 0.0, execution_of(plan))
    twin = copy.deepcopy(model)
    losses = [float(one(**batch()).loss.detach()) for one in (model, twin)]
    assert losses[0] == losses[1]
    twin(**batch()).loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert all((p.grad is not None) == p.requires_grad for p in twin.parameters())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert float(model(**batch()).loss.detach()) == losses[0]
    assert float(twin(**batch()).loss.detach()) != losses[0]
    twin.zero_grad()
    assert list(merge(twin, layout).state_dict()) == list(make_model(family, layers=3)[0].state_dict())


@families
@pytest.mark.parametrize("bottom", [0, 1, 2])
def test_checkpointing_ends_at_the_lowest_trained_parameter(family: str, bottom: int) -> None:
    """With frozen embeddings nothing below it has a grad_fn, checkpointed or not."""
    model, layout = make_model(family, layers=3)
    apply_far(
        model, layout, [None] * bottom + [range(5)] * (3 - bottom), True, 0, bottom, Execution(checkpointing=True)
    )
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    for path in (layout.embeddings, *(layer.path for layer in layout.layers)):
        get_module(model, path).register_forward_hook(keep)
    model.train()(**batch()).loss.backward()
    assert [output.requires_grad for output in outputs[:4]] == [False] * (bottom + 1) + [True] * (3 - bottom)
    below = (layout.embeddings, *(f"{layer.path}." for layer in layout.layers[:bottom]))
    for name, parameter in model.named_parameters():
        assert not (name.startswith(below) and parameter.grad is not None), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
