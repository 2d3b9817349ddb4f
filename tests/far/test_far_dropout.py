"""Dropout that redraws its masks in the backward pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from farsearch.far.dropout import SeededDropout, dropped
from tests.far.saved import saved_bytes


def run(module: nn.Module, x: Tensor, g: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient, and the generator's state after the forward pass, which the backward pass must restore."""
    x = x.detach().requires_grad_()
    torch.manual_seed(seed)
    y = module(x)
    after = torch.get_rng_state()
    torch.rand(5)
    between = torch.get_rng_state()
    y.backward(g)
    assert torch.equal(torch.get_rng_state(), between), "the backward pass moved the generator"
    assert x.grad is not None
    return y.detach(), x.grad, after


@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    p=st.sampled_from([0.1, 0.5, 0.9, 1.0]) | st.floats(0.01, 0.99),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_have_one_mask(shape: list[int], p: float, dtype: torch.dtype, seed: int) -> None:
    """An element and its gradient are 0 or divided by 1 - p; a seed is reproducible."""
    torch.manual_seed(seed)
    x, g = (torch.rand(shape).add(0.5).to(dtype) for _ in range(2))
    module = SeededDropout(nn.Dropout(p))
    y, dx, after = run(module, x, g, seed)
    scale = 0.0 if p == 1.0 else 1 / (1 - p)
    for got, whole in ((y, x), (dx, g)):
        kept = got != 0
        assert torch.equal(kept, y != 0)
        assert torch.equal(got, torch.where(kept, whole * scale, torch.zeros_like(whole)))
    again = run(module, x, g, seed)
    assert all(torch.equal(one, other) for one, other in zip((y, dx, after), again, strict=True))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_dropped_share_is_p(p: float) -> None:
    """Within five standard errors over a million elements; neighbours are uncorrelated."""
    torch.manual_seed(1)
    mask = dropped(torch.empty(1_000_003), p)
    error = (p * (1 - p) / mask.numel()) ** 0.5
    assert float(mask.double().mean()) == pytest.approx(p, abs=5 * error)
    for distance in (1, 2, 3, 4):
        both = (mask[distance:] & mask[:-distance]).double().mean()
        assert float(both) == pytest.approx(p * p, abs=10 * error)


@pytest.mark.parametrize("p", [0.1, 0.7])
def test_the_mask_is_independent_of_the_layout(p: float) -> None:
    """Value and gradient are dropped at the same indices, for any memory layout of either."""
    module = SeededDropout(nn.Dropout(p))
    x, g = torch.ones(40, 30), torch.ones(40, 30)
    for one, other in ((x, g), (x.t().contiguous().t(), g), (x, g.t().contiguous().t()), (x, g[:1].expand(40, 30))):
        y, dx, _ = run(module, one, other, 3)
        assert torch.equal(y, dx)
        assert 0 < int((y == 0).sum()) < y.numel()


@pytest.mark.parametrize(("p", "training"), [(0.3, False), (1.0, False), (0.0, True)])
def test_identity(p: float, training: bool) -> None:
    """In eval mode and with p = 0 the input itself is returned, and nothing is drawn."""
    x = torch.ones(3, 4)
    state = torch.get_rng_state()
    assert SeededDropout(nn.Dropout(p)).train(training)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_everything_dropped() -> None:
    """With p = 1 value and gradient are 0."""
    y, dx, _ = run(SeededDropout(nn.Dropout(1.0)), torch.ones(3, 4), torch.ones(3, 4), 0)
    assert not y.any()
    assert not dx.any()


def test_nothing_is_saved() -> None:
    """Neither the mask nor the input; ``nn.Dropout`` saves its mask."""
    x = torch.ones(8, 16, requires_grad=True)
    assert saved_bytes(lambda: SeededDropout(nn.Dropout(0.3))(x)) == 0
    assert saved_bytes(lambda: nn.Dropout(0.3)(x)) > 0


def test_two_in_a_row() -> None:
    """Each redraws its own mask, in any order of the backward pass."""
    first, second = (SeededDropout(nn.Dropout(0.5)) for _ in range(2))
    x = torch.ones(20, 20, requires_grad=True)
    torch.manual_seed(1)
    y = second(first(x))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_release_returns_the_original() -> None:
    own = nn.Dropout(0.2)
    assert SeededDropout(own).release() is own
