"""The training loop: learning rates, optimizer, micro-batches, errors, prediction."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from farsearch.far.batches import phase_batches
from farsearch.far.features import Features, batch_of
from farsearch.far.loop import predict, train, train_step
from farsearch.far.optimizer import BackwardOptimizer, make_optimizer
from farsearch.far.schedule import constant_rate, linear_rate
from farsearch.far.surgery import apply_far
from tests.tiny import FAMILIES, make_model

families = pytest.mark.parametrize("family", FAMILIES)

IDS = [[random.Random(i).randrange(5, 300) for _ in range(3 + i % 11)] for i in range(30)]
LABELS = [i % 2 for i in range(30)]
ROWS = Features(IDS, LABELS)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@given(st.integers(1, 500), st.floats(1e-6, 1e-2))
def test_linear_rate_rises_and_falls(steps: int, peak: float) -> None:
    """Up over the first tenth (at least one step), down to the end, never 0, never over the peak."""
    rate = linear_rate(peak, steps)
    rates = [rate(step) for step in range(steps)]
    warm = max(1, round(steps * 0.1))
    assert all(0 < value <= peak * (1 + 1e-12) for value in rates)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm - 1 :] == sorted(rates[warm - 1 :], reverse=True)
    assert max(rates) == pytest.approx(peak)


def test_linear_rate_golden() -> None:
    """Ten steps: one of warm-up, then a linear decrease."""
    rate = linear_rate(1.0, 10)
    assert [rate(step) for step in range(10)] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert linear_rate(2.0, 1)(0) == 2.0


def test_constant_rate_is_independent_of_the_length() -> None:
    """Constant after the warm-up, so that a longer priming continues a shorter one."""
    rate = constant_rate(8.0, 3)
    assert [rate(step) for step in range(6)] == pytest.approx([2.0, 4.0, 6.0, 8.0, 8.0, 8.0])
    assert constant_rate(8.0, 0)(0) == 8.0


def test_decay_is_for_matrices() -> None:
    """Biases and LayerNorms are not decayed, and frozen parameters are in no group."""
    model, layout = make_model("bert")
    apply_far(model, layout, [[1, 2], []], frozen_embeddings=True)
    groups = make_optimizer("adamw", model).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert all(p.dim() == 1 for p in groups[1]["params"])
    assert not any(group["foreach"] for group in groups)
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_sgd_has_no_state() -> None:
    """Plain gradient descent has neither momentum nor any other tensor."""
    model, _ = make_model("bert")
    optimizer = make_optimizer("sgd", model)
    train_step(model, optimizer, batch_of(ROWS.take(range(4)), 0))
    assert all(value is None for state in optimizer.state.values() for value in state.values())


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(KeyError, match="adam9"):
        make_optimizer("adam9", make_model("bert")[0])


def test_the_loss_with_class_weights_is_that_of_torch() -> None:
    model, _ = make_model("bert", dropout=0.0)
    rows = ROWS._replace(class_weights=(0.25, 3.0)).take(range(7))
    logits = model(**batch_of(rows, 0, learn=False).inputs).logits
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(rows.targets), torch.tensor([0.25, 3.0]))
    found = train_step(model, make_optimizer("sgd", model), batch_of(rows, 0))
    torch.testing.assert_close(found, expected.detach())


@families
@pytest.mark.parametrize(("weights_of_classes", "smoothing"), [(None, 0.0), ((0.25, 3.0), 0.0), ((0.25, 3.0), 0.1)])
@pytest.mark.parametrize("micro", [1, 3, 7, 50])
def test_micro_batches_give_the_gradients_of_the_whole(
    family: str, micro: int, weights_of_classes: tuple[float, float] | None, smoothing: float
) -> None:
    """Without dropout, in float64: seven rows at once, or in parts of which the last is smaller.

    One step of gradient descent with rate 1 and no decay moves each weight by its gradient.
    """
    model, layout = make_model(family, dropout=0.0)
    apply_far(model.double(), layout, [range(20), None])
    batch = batch_of(ROWS._replace(class_weights=weights_of_classes, label_smoothing=smoothing).take(range(7)), 0)
    if batch.class_weights is not None:
        batch = batch._replace(class_weights=batch.class_weights.double())
    results = []
    for size in (None, micro):
        twin = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(twin.parameters(), lr=1.0)
        loss = train_step(twin, optimizer, batch, size)
        results.append((loss, weights(twin)))
    (whole_loss, whole), (parts_loss, parts) = results
    torch.testing.assert_close(parts_loss, whole_loss, atol=1e-12, rtol=0)
    assert not torch.equal(whole["classifier.weight"], model.state_dict()["classifier.weight"])
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-11, rtol=0, msg=name)


def test_gradients_are_scaled_to_a_norm() -> None:
    """One step of gradient descent with rate 1 and no decay moves the weights by a vector of this norm."""
    model, layout = make_model("bert", dropout=0.0)
    apply_far(model, layout, [range(20), None])
    before = weights(model)
    train_step(model, torch.optim.SGD(model.parameters(), lr=1.0), batch_of(ROWS.take(range(7)), 0), 3, clip_norm=0.01)
    moved = sum(float((value - before[name]).square().sum()) for name, value in weights(model).items())
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)


def test_a_norm_needs_all_gradients_at_once() -> None:
    model, _ = make_model("bert")
    with pytest.raises(ValueError, match="steps at the end"):
        train_step(model, BackwardOptimizer("adamw", model), batch_of(ROWS.take(range(4)), 0), clip_norm=1.0)


def test_gradients_are_freed_after_a_step() -> None:
    """So that none is allocated during the next forward pass."""
    model, layout = make_model("bert")
    apply_far(model, layout, [range(20), None])
    loss = train_step(model, make_optimizer("adamw", model), batch_of(ROWS.take(range(4)), 0), 2)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not loss.requires_grad
    assert loss.dim() == 0


def run(model: nn.Module, batches: list[list[int]], first: int, optimizer: torch.optim.Optimizer) -> list[float]:
    """Train and return the losses."""
    losses: list[float] = []
    train(
        model, ROWS, batches, optimizer, constant_rate(1e-3, 2), 0, 5,
        on_step=lambda step, loss: losses.append(loss), first_step=first,
    )  # fmt: skip
    return losses


def test_a_phase_can_be_continued() -> None:
    """Six steps in one go, or four and two with ``first_step``: the same losses and weights, bit by bit."""
    model, _ = make_model("bert")
    twin = copy.deepcopy(model)
    batches = phase_batches(ROWS.lengths, 4, 0.75, 0)
    whole = run(model, batches, 0, make_optimizer("adamw", model))
    optimizer = make_optimizer("adamw", twin)
    parts = run(twin, batches[:4], 0, optimizer) + run(twin, batches[4:], 4, optimizer)
    assert len(whole) == 6
    assert parts == whole
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())


def test_training_learns() -> None:
    """The loss falls if one token determines the class."""
    model, layout = make_model("distilbert")
    apply_far(model, layout, [range(6), range(6)])
    rows = Features([[2, 10 + label, *row[:4], 3] for row, label in zip(IDS, LABELS, strict=True)], LABELS)
    losses: list[float] = []
    batches = phase_batches(rows.lengths, 10, 20.0, 0)
    train(
        model, rows, batches, make_optimizer("adamw", model), linear_rate(5e-3, len(batches)), 0, 0,
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert losses[-1] < 0.1 < 0.5 < losses[0]
    assert predict(model, rows, 0).argmax(1).tolist() == LABELS


def test_a_non_finite_loss_ends_training() -> None:
    """The error has the step, and the loss is not reported."""
    model, _ = make_model("bert")
    reported: list[int] = []

    def poison(step: int, _loss: float) -> None:
        reported.append(step)
        if step == 1:
            with torch.no_grad():
                model.get_parameter("classifier.weight").fill_(float("inf"))

    with pytest.raises(FloatingPointError, match="the loss of step 2 is"):
        train(
            model, ROWS, [[0, 1], [2, 3], [4, 5], [6, 7]], make_optimizer("sgd", model), constant_rate(1e-3, 0),
            0, 0, on_step=poison,
        )  # fmt: skip
    assert reported == [0, 1]


def test_exceptions_of_on_step_are_raised() -> None:
    class Enough(Exception):
        pass

    def stop(step: int, _loss: float) -> None:
        if step == 1:
            raise Enough

    model, _ = make_model("bert")
    with pytest.raises(Enough):
        train(model, ROWS, [[0], [1], [2]], make_optimizer("sgd", model), constant_rate(1e-3, 0), 0, 0,
              on_step=stop)  # fmt: skip


@families
def test_prediction_is_independent_of_order_and_batch(family: str) -> None:
    """Among other rows, in another order, alone, and in batches of any size."""
    model, _ = make_model(family)
    logits = predict(model, ROWS, 0)
    assert logits.shape == (30, 2)
    order = list(range(30))
    random.Random(1).shuffle(order)
    torch.testing.assert_close(predict(model, ROWS.take(order), 0), logits[order], atol=1e-6, rtol=0)
    for size in (1, 7):
        torch.testing.assert_close(predict(model, ROWS, 0, size), logits, atol=1e-6, rtol=0)
    alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in IDS])
    torch.testing.assert_close(alone, logits, atol=1e-6, rtol=0)


def test_prediction_uses_no_dropout() -> None:
    """Predictions are repeatable, also right after training."""
    model, _ = make_model("bert")
    model.train()
    assert torch.equal(predict(model, ROWS, 0), predict(model, ROWS, 0))
