"""LayerNorm that rebuilds its input from its output, against the ordinary one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.far.norms import OutputLayerNorm, rebuilds_input
from farsearch.far.surgery import execute, merge
from tests.far.saved import saved_bytes

HIDDEN = 16

WEIGHTS = {
    "ordinary": [1.0] * HIDDEN,
    "of both signs": [0.3, -0.8] * 8,
    "zero": [0.0, 1.0] * 8,
    "all zero": [0.0] * HIDDEN,
    "tiny": [1e-30, -1e-8, 1e-3, 0.049, -0.0499, 0.0501, -0.06, 1.0] * 2,
}
weights = pytest.mark.parametrize("values", WEIGHTS.values(), ids=WEIGHTS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ordinary(values: list[float], dtype: torch.dtype = torch.float64) -> nn.LayerNorm:
    """A LayerNorm with weights and biases of both signs."""
    norm = nn.LayerNorm(len(values), dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(values, dtype=torch.float64))
        norm.bias.copy_(torch.linspace(-1, 1, len(values), dtype=torch.float64))
    return norm


def results(norm: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    """Value, and gradients of input, weight and bias."""
    x = x.detach().requires_grad_()
    y = norm(x)
    return (y.detach(), *torch.autograd.grad(y, [x, norm.get_parameter("weight"), norm.get_parameter("bias")], g))


@weights
def test_exact(values: list[float]) -> None:
    """In float64, with weights of both signs, tiny ones and zeros: channels that cannot be rebuilt are saved."""
    norm = ordinary(values)
    x, g = 3 * normal(4, 5, HIDDEN) + 1, normal(4, 5, HIDDEN, seed=1)
    for one, other in zip(results(OutputLayerNorm(norm), x, g), results(norm, x, g), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@weights
def test_float32_is_as_good_as_the_ordinary_one(values: list[float]) -> None:
    """Rebuilding costs a few roundings over a weight of at least 0.05: 1e-5 of the largest entry at most."""
    norm = ordinary(values)
    x, g = 3 * normal(4, 5, HIDDEN).float(), normal(4, 5, HIDDEN, seed=1).float()
    exact = results(norm, x.double(), g.double())
    for one, other in zip(results(OutputLayerNorm(norm.float()), x, g), exact, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5 * (1 + float(other.abs().max())), rtol=0)


@given(
    values=st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=9),
    rows=st.integers(1, 4),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_any_weights(values: list[float], rows: int, scale: float, seed: int) -> None:
    """Equal to the ordinary one for any weights, rows and size of the input."""
    norm = ordinary(values)
    x, g = (normal(rows, len(values), seed=seed + i) for i in range(2))
    for one, other in zip(results(OutputLayerNorm(norm), x * scale, g), results(norm, x * scale, g), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10 * (1 + float(other.abs().max())), rtol=0)


def test_gradcheck() -> None:
    """The input's gradient agrees with finite differences."""
    norm = OutputLayerNorm(ordinary(WEIGHTS["tiny"][:8]))
    assert torch.autograd.gradcheck(norm, (normal(3, 8).requires_grad_(),))


@pytest.mark.parametrize("value", [1e-4, -1e-4, 1e-6, -1e-6, 0.0, -0.0, 1e-30])
def test_a_weight_trained_to_zero(value: float) -> None:
    """Its channel is then saved, so the result stays exact."""
    norm = ordinary(WEIGHTS["ordinary"])
    rebuilt = OutputLayerNorm(norm)
    x, g = (normal(6, HIDDEN, seed=seed) for seed in range(2))
    with torch.no_grad():
        norm.weight[3] = value
    for one, other in zip(results(rebuilt, x, g), results(norm, x, g), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias")])
def test_frozen_parameters(frozen: tuple[str, ...]) -> None:
    """They have no gradient, and the input's gradient is unchanged."""
    norm = ordinary(WEIGHTS["tiny"])
    x, g = (normal(6, HIDDEN, seed=seed) for seed in range(2))
    expected = results(norm, x, g)[1]
    rebuilt = OutputLayerNorm(norm)
    for name in frozen:
        rebuilt.get_parameter(name).requires_grad_(False)
    x.requires_grad_()
    rebuilt(x).backward(g)
    torch.testing.assert_close(x.grad, expected, atol=1e-12, rtol=1e-12)
    assert {name for name, p in rebuilt.named_parameters() if p.grad is None} == set(frozen)


@pytest.mark.parametrize(("values", "apart"), [(WEIGHTS["of both signs"], 0), (WEIGHTS["zero"], 8)])
def test_saved_for_the_backward_pass(values: list[float], apart: int) -> None:
    """The output, one number per token, and the channels that are not rebuilt with their indices."""
    norm = OutputLayerNorm(ordinary(values, torch.float32))
    x = normal(4, 5, HIDDEN).float().requires_grad_()
    saved = saved_bytes(lambda: norm(x), norm.parameters())
    assert saved == 4 * 20 * (HIDDEN + 1 + apart) + 8 * apart


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_half_precision_is_not_rebuilt(weight_dtype: torch.dtype) -> None:
    """A bfloat16 output is too coarse: the result is the ordinary LayerNorm's, bit by bit."""
    norm = ordinary(WEIGHTS["tiny"], weight_dtype)
    x, g = (normal(6, HIDDEN, seed=seed).bfloat16() for seed in range(2))
    for one, other in zip(results(OutputLayerNorm(norm), x, g), results(norm, x, g), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"bias": False}, {"elementwise_affine": False}])
def test_norms_without_weight_or_bias_are_not_replaced(options: dict[str, bool]) -> None:
    """They cannot be rebuilt; in a model and alone."""
    model = nn.ModuleDict({"plain": nn.LayerNorm(4, **options), "whole": nn.LayerNorm(4), "wide": nn.LayerNorm((3, 4))})
    assert [rebuilds_input(norm) for norm in model.values()] == [False, True, False]
    layout = ModelLayout("plain", (), norms=("plain", "whole", "wide"))
    execute(model, layout, Execution(layer_norm="output"))
    assert [type(norm) for norm in model.values()] == [nn.LayerNorm, OutputLayerNorm, nn.LayerNorm]
    merge(model, layout)
    assert {type(norm) for norm in model.values()} == {nn.LayerNorm}


def test_state_dict_equals_the_original() -> None:
    """Same names, same tensors."""
    norm = ordinary(WEIGHTS["zero"])
    rebuilt = OutputLayerNorm(norm)
    assert {name: id(p) for name, p in rebuilt.named_parameters()} == {n: id(p) for n, p in norm.named_parameters()}
    assert list(rebuilt.state_dict()) == ["weight", "bias"]
    assert rebuilt.release() is norm


def test_meta_device() -> None:
    """Weights have no values there."""
    x = torch.zeros(2, 4, device="meta", requires_grad=True)
    OutputLayerNorm(nn.LayerNorm(4, device="meta"))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
