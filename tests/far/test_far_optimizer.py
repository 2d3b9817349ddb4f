"""The optimizer: a step in the backward pass equals one at its end, and leaves no gradient."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from farsearch.far.batches import phase_batches
from farsearch.far.features import Features
from farsearch.far.loop import train
from farsearch.far.optimizer import BackwardOptimizer, Optimizer, has_backward_hooks, has_fused, make_optimizer
from farsearch.far.schedule import linear_rate
from farsearch.far.surgery import apply_far
from tests.tiny import FAMILIES, make_model

IDS = [[random.Random(i).randrange(5, 300) for _ in range(3 + i % 11)] for i in range(24)]
ROWS = Features(IDS, [i % 2 for i in range(24)])
BATCHES = phase_batches(ROWS.lengths, 4, 1.0, 0)

families = pytest.mark.parametrize("family", FAMILIES)
kinds = pytest.mark.parametrize("kind", ["adamw", "sgd"])
kernels = pytest.mark.parametrize("kernel", ["loop", "fused"])


def start(family: str) -> nn.Module:
    """A model reconfigured for FAR, with dropout."""
    model, layout = make_model(family)
    return apply_far(model, layout, [range(10), None], frozen_attention_layers=1)


def run(model: nn.Module, make: Callable[..., Optimizer], kind: str, kernel: str) -> tuple[list[float], Any]:
    """Six steps with warm-up and decay: the losses, and the optimizer."""
    losses: list[float] = []
    optimizer = make(kind, model, kernel=kernel)
    train(
        model, ROWS, BATCHES, optimizer, linear_rate(1e-2, len(BATCHES), 0.3), 0, 5,
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == 6
    return losses, optimizer


def batch() -> dict[str, Tensor]:
    """A batch of four."""
    ids = torch.tensor([row[:3] for row in IDS[:4]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(ROWS.targets[:4])}


def weights(model: nn.Module) -> list[Tensor]:
    """A copy of all weights."""
    return [value.detach().clone() for value in model.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Equal bit by bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@families
@kinds
@kernels
def test_backward_equals_end(family: str, kind: str, kernel: str) -> None:
    """Over six steps with a schedule, losses, weights and moments are the same bit by bit."""
    model = start(family)
    twin = copy.deepcopy(model)
    before = weights(model)
    losses, at_end = run(model, make_optimizer, kind, kernel)
    others, in_backward = run(twin, BackwardOptimizer, kind, kernel)
    in_backward.close()
    assert others == losses
    assert same(weights(twin), weights(model))
    assert not same(weights(model), before)
    states, twins = (
        [optimizer.state.get(p, {}) for p in trained.parameters() if p.requires_grad]
        for optimizer, trained in ((at_end, model), (in_backward, twin))
    )
    assert any(states) == (kind == "adamw")
    for one, other in zip(states, twins, strict=True):
        for name in one.keys() | other.keys():
            assert torch.equal(one[name], other[name])


@kinds
def test_fused_is_close_to_the_loop(kind: str) -> None:
    """One kernel rounds in another order: losses to 1e-4 after six steps."""
    losses = [run(start("bert"), make_optimizer, kind, kernel)[0] for kernel in ("loop", "fused")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@kinds
def test_foreach_equals_the_loop(kind: str) -> None:
    """All tensors at once or one after another: the same losses bit by bit."""
    (expected, loop), (losses, foreach) = (run(start("bert"), make_optimizer, kind, k) for k in ("loop", "foreach"))
    assert losses == expected
    assert [[group["foreach"] for group in o.param_groups] for o in (loop, foreach)] == [[False] * 2, [True] * 2]


def test_unsupported_kernels_are_refused() -> None:
    """An unknown kernel, and one that steps all parameters at once in the backward pass."""
    model = start("bert")
    with pytest.raises(ValueError, match="kernel 'fast' is none of loop, foreach, fused"):
        make_optimizer("adamw", model, kernel="fast")
    with pytest.raises(ValueError, match="'foreach' steps all parameters at once"):
        BackwardOptimizer("adamw", model, kernel="foreach")


@kernels
def test_one_gradient_exists_at_a_time(kernel: str) -> None:
    """When a gradient is complete it is the only one, and none is left after the backward pass."""
    model = start("bert")
    parameters = list(model.parameters())
    alive: list[int] = []

    def count(_: Tensor) -> None:
        alive.append(sum(p.grad is not None for p in parameters))

    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(count)
    optimizer = BackwardOptimizer("adamw", model, kernel=kernel)
    before = weights(model)
    model(**batch()).loss.backward()
    assert set(alive) == {1}
    assert all(p.grad is None for p in parameters)
    assert not same(weights(model), before)
    stepped = weights(model)
    optimizer.step()
    optimizer.zero_grad()
    assert same(weights(model), stepped), "all was done in the backward pass"


def test_groups_and_state() -> None:
    """Every trained tensor is in one group, decayed if it is a matrix, and has AdamW's two moments."""
    model = start("bert")
    optimizer = BackwardOptimizer("adamw", model, 0.07)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = optimizer.param_groups
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in trained]
    assert all(group["weight_decay"] == (0.07 if group["params"][0].dim() > 1 else 0.0) for group in groups)
    model(**batch()).loss.backward()
    assert set(optimizer.state) == set(trained)
    assert all(state["exp_avg"].shape == p.shape == state["exp_avg_sq"].shape for p, state in optimizer.state.items())


def test_closed() -> None:
    """After ``close`` a backward pass leaves gradients and changes nothing, and a new optimizer starts afresh."""
    model = start("bert")
    BackwardOptimizer("sgd", model).close()
    before = weights(model)
    model(**batch()).loss.backward()
    assert same(weights(model), before)
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    model.zero_grad()
    twin = copy.deepcopy(model)
    assert run(model, BackwardOptimizer, "adamw", "loop")[0] == run(twin, BackwardOptimizer, "adamw", "loop")[0]
    assert same(weights(model), weights(twin))


def test_a_shared_parameter_is_stepped_once() -> None:
    """A tensor that is used twice has one gradient, complete after both uses."""
    results = []
    for make in (make_optimizer, BackwardOptimizer):
        torch.manual_seed(0)
        linear = nn.Linear(3, 3)
        optimizer = make("sgd", linear)
        linear(linear(torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
        results.append(weights(linear))
    assert same(*results)


def test_this_torch_supports_both() -> None:
    """Fused kernels and hooks, which plans for newer devices use."""
    assert has_fused()
    assert has_backward_hooks()
