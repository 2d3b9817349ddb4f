"""The feed-forward function under every policy: value, gradients and saved memory, against the plain block."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from farsearch.far.activations import activation_of
from farsearch.far.execution import Execution
from farsearch.far.ffn import SplitFeedForward, WholeFeedForward
from farsearch.far.ffn_function import feed_forward
from farsearch.far.surgery import reconfigure
from tests.far.saved import saved_bytes
from tests.tiny import FAMILIES, make_model

HIDDEN, WIDTH = 6, 12

ACTIVATIONS: dict[str, Callable[[], Any]] = {
    "GELU": nn.GELU,
    "GELUActivation": lambda: ACT2FN["gelu"],
    "function": lambda: F.gelu,
    "tanh form": lambda: nn.GELU(approximate="tanh"),
    "NewGELUActivation": lambda: ACT2FN["gelu_new"],
    "GELUTanh": lambda: ACT2FN["gelu_pytorch_tanh"],
    "ReLU": nn.ReLU,
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
}
"""All known activations, by their names in models, and an unknown one, which uses autograd."""

SHAPES = [((1, 1), None), ((5, 3), 2), ((4, 3), 1), ((3, 2), 9), ((4, 3), None), ((7,), 3)]
"""Batch and length with the rows of a portion: one token, a remainder, single rows, all at once, chosen, no length."""

LEARNERS: list[Sequence[int]] = [(), (7,), (9, 0, 4, 11), range(WIDTH)]

activations = pytest.mark.parametrize("name", ACTIVATIONS)
known = pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "Mish"])
policies = pytest.mark.parametrize("policy", ["modules", "store", "recompute"])
learner_sets = pytest.mark.parametrize("learners", LEARNERS, ids=len)


class Plain(nn.Module):
    """Linear, activation, linear, as in a model."""

    def __init__(self, name: str, dtype: torch.dtype, hidden: int, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(hidden, width, dtype=dtype), nn.Linear(width, hidden, dtype=dtype)
        self.activation = ACTIVATIONS[name]()

    def forward(self, x: Tensor) -> Tensor:
        """``[..., hidden]`` to the same shape."""
        y: Tensor = self.down(self.activation(self.up(x)))
        return y


def plain_block(
    name: str = "GELU", dtype: torch.dtype = torch.float64, hidden: int = HIDDEN, width: int = WIDTH
) -> Plain:
    """The reference, always with the same weights."""
    torch.manual_seed(1)
    return Plain(name, dtype, hidden, width)


def split(plain: Plain, learners: Sequence[int], policy: str, **options: Any) -> SplitFeedForward:
    """The split form of a copy of a block."""
    twin = copy.deepcopy(plain)
    return SplitFeedForward(twin.up, twin.activation, twin.down, learners, policy, **options)


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, hidden: int = HIDDEN) -> tuple[Tensor, Tensor]:
    """An input that covers the activation's range, and the gradient of its result."""
    generator = torch.Generator().manual_seed(2)
    x, g = (torch.randn(*shape, hidden, generator=generator, dtype=dtype) for _ in range(2))
    return (3 * x).requires_grad_(), g


def plain_gradients(plain: Plain, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Value, gradient of the input, and gradients of W1, b1, W2 and b2 by autograd."""
    y = plain(x)
    up, down = plain.up, plain.down
    dx, *others = torch.autograd.grad(y, [x, up.weight, up.bias, down.weight, down.bias], g)
    return y.detach(), dx, dict(zip(("up", "bias", "down", "b2"), others, strict=True))


def close(got: Tensor | None, expected: Tensor, tolerance: float = 1e-11) -> None:
    """Equal up to ``tolerance``, relative to the largest entry."""
    assert got is not None
    torch.testing.assert_close(got, expected, atol=tolerance * (1 + float(expected.abs().max())), rtol=0)


def check_learners(block: SplitFeedForward, expected: dict[str, Tensor]) -> None:
    """Learners have the plain block's gradients of their rows, entries and columns; frozen parameters have none."""
    if block.learners:
        index = torch.tensor(block.learners)
        close(block.learner_up.grad, expected["up"][index])
        close(block.learner_bias.grad, expected["bias"][index])
        close(block.learner_down.grad, expected["down"][:, index])
    for frozen in (block.frozen_up, block.frozen_bias, block.frozen_down, block.bias):
        assert frozen.grad is None


@policies
@activations
@learner_sets
def test_split_block_is_exact(policy: str, name: str, learners: Sequence[int]) -> None:
    """In float64, value and every gradient equal those of the plain block."""
    plain = plain_block(name)
    for shape, rows in SHAPES:
        x, g = inputs(shape)
        y, dx, gradients = plain_gradients(plain, x, g)
        block = split(plain, learners, policy, rows=rows)
        got = block(x)
        got.backward(g)
        close(got.detach(), y)
        close(x.grad, dx)
        check_learners(block, gradients)


@known
@learner_sets
def test_compact_is_off_by_half_a_step_at_most(name: str, learners: Sequence[int]) -> None:
    """Value and weights' gradients are exact; a frozen neuron's derivative is rounded to one of 256 values.

    Neuron j carries ``(g W2)_j f'(z_j) W1_j`` to the input's gradient, so with f' off by h its error is at most
    ``h |g W2| |W1|``, element by element. ReLU's two derivatives are among the 256.
    """
    plain = plain_block(name)
    for shape, rows in SHAPES:
        x, g = inputs(shape)
        y, dx, gradients = plain_gradients(plain, x, g)
        block = split(plain, learners, "compact", rows=rows)
        got = block(x)
        got.backward(g)
        close(got.detach(), y)
        check_learners(block, gradients)
        low, high = block.activation_pair.derivative_range or (0.0, 0.0)
        half_a_step = 0.0 if name == "ReLU" else (high - low) / 255 / 2
        bound = half_a_step * (g @ block.frozen_down).abs() @ block.frozen_up.abs()
        assert x.grad is not None
        error = (x.grad - dx).abs()
        assert bool((error <= bound + 1e-12).all())
        if name != "ReLU" and not learners:
            assert float(error.max()) > 0.01 * float(bound.max()), "the bound says nothing"


def test_half_a_step_of_gelu() -> None:
    """The documented value: 0.0025."""
    low, high = activation_of(nn.GELU()).derivative_range or (0.0, 0.0)
    assert (high - low) / 255 / 2 == pytest.approx(0.0025, abs=5e-5)


@activations
def test_activation(name: str) -> None:
    """Value and gradient against autograd of the model's own function; bounds of the derivative hold and are tight."""
    function = ACTIVATIONS[name]()
    known_as = activation_of(function)
    x = torch.linspace(-9, 9, 20001, dtype=torch.float64, requires_grad=True)
    g = torch.linspace(1, 2, 20001, dtype=torch.float64)
    y = function(x)
    (expected,) = torch.autograd.grad(y, x, g)
    close(known_as.value(x.detach()), y.detach())
    close(known_as.gradient(g, x.detach()), expected)
    if known_as.derivative_range is None:
        assert name == "Mish"
        return
    derivative = expected / g
    low, high = known_as.derivative_range
    assert low <= float(derivative.min()) < low + 1e-3
    assert high - 1e-3 < float(derivative.max()) <= high


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@known
def test_one_byte_holds_derivatives_of_any_precision(name: str, dtype: torch.dtype) -> None:
    """Rounded to bfloat16 a derivative can be above its bound; it must not wrap to the lowest one.

    The block is one neuron with both weights 1, so that the input's gradient is the derivative itself.
    """
    function = ACTIVATIONS[name]()
    one, zero = torch.ones(1, 1, dtype=dtype), torch.zeros(1, dtype=dtype)
    x = torch.linspace(-6, 6, 4001).to(dtype)[:, None].requires_grad_()
    y = feed_forward(x, activation_of(function), "compact", None, (one, zero, one), zero)
    y.backward(torch.ones_like(y))
    exact = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(function(exact).sum(), exact)
    assert x.grad is not None
    digits = torch.finfo(dtype).eps
    assert float((x.grad.double() - expected).abs().max()) < 0.0025 + 2 * digits


def test_unknown_activations_and_policies_are_refused() -> None:
    """``compact`` needs the bounds of the activation's derivative."""
    with pytest.raises(ValueError, match="'compact' needs an activation whose derivative has known bounds"):
        split(plain_block("Mish"), [1], "compact")
    with pytest.raises(ValueError, match="policy 'stores' is none of modules, store, compact, recompute"):
        split(plain_block(), [1], "stores")


@pytest.mark.parametrize("policy", ["store", "recompute"])
@pytest.mark.parametrize("name", ["GELU", "tanh form", "SiLU", "Mish"])
def test_gradcheck(policy: str, name: str) -> None:
    """The gradients of input, learners and b2 agree with finite differences."""
    torch.manual_seed(3)
    sizes = ((3, 2, 4), (3, 4), (3,), (4, 3), (4,))
    trained = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    frozen = [torch.randn(size, dtype=torch.float64) for size in ((2, 4), (2,), (4, 2))]
    function = activation_of(ACTIVATIONS[name]())

    def run(x: Tensor, up: Tensor, bias: Tensor, down: Tensor, b2: Tensor) -> Tensor:
        return feed_forward(x, function, policy, (up, bias, down), frozen, b2, rows=2)

    assert torch.autograd.gradcheck(run, trained)


@given(
    sizes=st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 5)),
    learners=st.lists(st.booleans(), min_size=1, max_size=7),
    rows=st.none() | st.integers(1, 6),
    policy=st.sampled_from(["store", "recompute"]),
    needs=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_any_shape_and_any_requires_grad(
    sizes: tuple[int, int, int],
    learners: list[bool],
    rows: int | None,
    policy: str,
    needs: list[bool],
    seed: int,
) -> None:
    """For any shape (also an empty batch), selection, and trained subset of x, W1, b1, W2 and b2."""
    torch.manual_seed(seed)
    width, hidden = len(learners), sizes[-1]
    x = torch.randn(sizes, dtype=torch.float64)
    up, bias, down, b2 = (
        torch.randn(size, dtype=torch.float64) for size in ((width, hidden), (width,), (hidden, width), (hidden,))
    )
    here, rest = torch.tensor(learners), ~torch.tensor(learners)
    parts = [[up[some], bias[some], down[:, some]] if bool(some.any()) else None for some in (here, rest)]
    learned = parts[0] or []
    tensors = [x, *learned, b2] if learned else [x, b2]
    for tensor, need in zip(tensors, needs if learned else (needs[0], needs[4]), strict=True):
        tensor.requires_grad_(need)
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    got = feed_forward(x, activation_of(nn.GELU()), policy, parts[0], parts[1], b2, rows)
    expected = b2 + sum(F.gelu(x @ part[0].t() + part[1]) @ part[2].t() for part in parts if part is not None)
    torch.testing.assert_close(got.detach(), expected.detach(), atol=1e-10, rtol=1e-10)
    assert got.requires_grad == bool(trained)
    if trained:
        g = torch.randn_like(got)
        pairs = zip(*(torch.autograd.grad(y, trained, g) for y in (got, expected)), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("policy", ["store", "compact", "recompute"])
def test_nothing_is_saved_below_the_trained_parameters(policy: str) -> None:
    """For an input without gradient, no grad_fn without learners; else only what the learners' gradients need."""
    x, g = inputs((5, 3))
    x = x.detach()
    plain = plain_block()
    bare = split(plain, (), policy)
    assert saved_bytes(lambda: bare(x), bare.parameters()) == 0
    assert not bare(x).requires_grad
    block = split(plain, (9, 0, 4), policy, rows=2)
    before = 0 if policy == "recompute" else 3 * 15 * 8
    assert saved_bytes(lambda: block(x), block.parameters()) == x.numel() * 8 + before
    block(x).backward(g)
    assert x.grad is None
    check_learners(block, plain_gradients(plain, x.requires_grad_(), g)[2])


@pytest.mark.parametrize("policy", ["store", "recompute"])
@pytest.mark.parametrize("learners", LEARNERS[1:], ids=len)
def test_frozen_learners_propagate_the_gradient(policy: str, learners: Sequence[int]) -> None:
    """With every weight frozen the input's gradient is still exact, and ``store`` does not save the input."""
    plain = plain_block()
    x, g = inputs((5, 3))
    _, dx, _ = plain_gradients(plain, x, g)
    block = split(plain, learners, policy, rows=2).requires_grad_(False)
    block(x).backward(g)
    close(x.grad, dx)
    assert all(parameter.grad is None for parameter in block.parameters())
    units = WIDTH * 15 if policy == "store" else x.numel()
    assert saved_bytes(lambda: block(x), block.parameters()) == 8 * units


@policies
def test_backward_twice(policy: str) -> None:
    """A retained graph gives the same gradients again."""
    plain = plain_block()
    x, g = inputs((5, 3))
    y = split(plain, (9, 0, 4), policy)(x)
    first, second = (torch.autograd.grad(y, x, g, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("policy", ["store", "compact", "recompute"])
@known
def test_whole_block(policy: str, name: str) -> None:
    """A fully trained block, b2 included: every gradient is the plain block's, and ``compact`` rounds nothing."""
    plain = plain_block(name)
    for shape, rows in SHAPES:
        twin = copy.deepcopy(plain)
        x, g = inputs(shape)
        y, dx, gradients = plain_gradients(plain, x, g)
        block = WholeFeedForward(twin.up, twin.activation, twin.down, policy, rows)
        got = block(block.held(x))
        got.backward(g)
        close(got.detach(), y)
        close(x.grad, dx)
        trained = {"up": twin.up.weight, "bias": twin.up.bias, "down": twin.down.weight, "b2": twin.down.bias}
        for key, parameter in trained.items():
            close(parameter.grad, gradients[key])
        assert block.release() == (twin.up, twin.activation, twin.down)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", ["store", "compact", "recompute"])
def test_whole_block_has_the_same_names(family: str, policy: str) -> None:
    """A fully trained layer has the same parameters, names and order as before."""
    model, layout = make_model(family)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    state = list(model.state_dict())
    reconfigure(model, layout, [None, None], Execution(feed_forward=policy))
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    assert list(model.state_dict()) == state


@pytest.mark.parametrize("policy", ["modules", "store", "compact", "recompute"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_frozen_weights_in_fewer_bits(policy: str, dtype: torch.dtype) -> None:
    """The block equals the plain one with rounded frozen weights, and releases these; all else is unchanged."""
    plain = plain_block(dtype=torch.float32)
    up, down = plain.up, plain.down
    block = split(plain, (9, 0, 4), policy, frozen_dtype=dtype, rows=2)
    assert (block.frozen_up.dtype, block.frozen_down.dtype) == (dtype, dtype)
    frozen = torch.tensor(block.frozen)
    with torch.no_grad():
        up.weight[frozen] = up.weight[frozen].to(dtype).float()
        down.weight[:, frozen] = down.weight[:, frozen].to(dtype).float()
    x, g = inputs((5, 3), torch.float32)
    y, dx, gradients = plain_gradients(plain, x, g)
    got = block(x)
    got.backward(g)
    assert got.dtype == torch.float32
    close(got.detach(), y, 1e-6)
    close(x.grad, dx, 0.01 if policy == "compact" else 1e-6)
    close(block.learner_up.grad, gradients["up"][torch.tensor(block.learners)], 1e-6)
    released, _, second = block.release()
    for one, other in ((released.weight, up.weight), (released.bias, up.bias), (second.weight, down.weight)):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@learner_sets
def test_release_is_exact(dtype: torch.dtype, learners: Sequence[int]) -> None:
    """Frozen weights stored in ``float32``, the model's own type, are restored bit by bit."""
    plain = plain_block(dtype=dtype)
    released, activation, second = split(plain, learners, "store").release()
    assert type(activation) is nn.GELU
    for one, other in ((released, plain.up), (second, plain.down)):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias, other.bias)
        assert one.weight.dtype == dtype
        assert one.weight.requires_grad
        assert one.bias.requires_grad


@policies
def test_a_block_may_be_cast_later(policy: str) -> None:
    """Split in float32 and cast to float64, it computes and returns float64."""
    block = split(plain_block(dtype=torch.float32), (9, 0, 4), policy).double()
    x, _ = inputs((2, 3))
    assert block(x).dtype == torch.float64
    assert block.release()[0].weight.dtype == torch.float64


def relative(one: Tensor | None, other: Tensor | None) -> float:
    """Distance of two tensors in units of the second's norm."""
    assert one is not None
    assert other is not None
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("policy", ["store", "compact", "recompute"])
@pytest.mark.parametrize("learners", LEARNERS[1:3], ids=len)
def test_autocast(policy: str, learners: Sequence[int]) -> None:
    """Values are bfloat16 and parameters' gradients float32, no farther from exact ones than modules'.

    The tolerance is an eighth of bfloat16's step, and half a step of the derivative.
    """
    exact = plain_block(dtype=torch.float64, hidden=32, width=128)
    plain = plain_block(dtype=torch.float32, hidden=32, width=128)
    with torch.no_grad():
        for one, other in zip(exact.parameters(), plain.parameters(), strict=True):
            one.copy_(other)
    x, g = inputs((5, 3), hidden=32)
    y, dx, gradients = plain_gradients(exact, x, g)
    results = {}
    for name, block in (("modules", split(plain, learners, "modules")), (policy, split(plain, learners, policy))):
        narrow = x.detach().float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = block(narrow)
        assert got.dtype == torch.bfloat16
        got.backward(g.bfloat16())
        assert narrow.grad is not None
        assert narrow.grad.dtype == torch.float32
        assert block.learner_up.grad is not None
        assert block.learner_up.grad.dtype == block.learner_down.grad.dtype == torch.float32
        index = torch.tensor(block.learners)
        results[name] = {
            "y": relative(got.detach(), y),
            "dx": relative(narrow.grad, dx),
            "up": relative(block.learner_up.grad, gradients["up"][index]),
            "bias": relative(block.learner_bias.grad, gradients["bias"][index]),
            "down": relative(block.learner_down.grad, gradients["down"][:, index]),
        }
    step = torch.finfo(torch.bfloat16).eps
    for key, error in results[policy].items():
        assert error < results["modules"][key] + step / 8 + (0.005 if (policy, key) == ("compact", "dx") else 0), key
    assert results[policy]["y"] < step


@pytest.mark.parametrize("learners", [0, 1, 16, 80, 160])
def test_saved_for_the_backward_pass(learners: int) -> None:
    """The module's table, in units of the block's input: four neurons per channel, r of them learners."""
    block = plain_block(dtype=torch.float32, hidden=40, width=160)
    x, _ = inputs((3, 16), torch.float32, hidden=40)
    unit = x.numel() * 4
    r = learners / 160
    table = {"modules": 5 + 4 * r, "store": 5.0, "compact": 2 + 3 * r}
    expected = {policy: units - (learners == 0) for policy, units in table.items()} | {"recompute": 1.0}
    for policy, units in expected.items():
        made = split(block, range(learners), policy, rows=2)
        assert saved_bytes(partial(made, x), made.parameters()) == round(units * unit), policy


class Gated(nn.Module):
    """``down(dropout(activation(a) b))`` with ``a, b`` the halves of ``up(x)``."""

    def __init__(self, bias: bool, p: float = 0.0, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.up, self.down = (nn.Linear(*size, bias=bias).double() for size in ((HIDDEN, 2 * width), (width, HIDDEN)))
        self.activation, self.dropout = nn.GELU(), nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., hidden]`` to the same shape."""
        inner, gate = self.up(x).chunk(2, -1)
        y: Tensor = self.down(self.dropout(self.activation(inner) * gate))
        return y


def split_gated(plain: Gated, learners: Sequence[int], **options: Any) -> SplitFeedForward:
    """The split form of a copy of a block."""
    twin = copy.deepcopy(plain)
    return SplitFeedForward(
        twin.up, twin.activation, twin.down, learners, gated=twin, dropout=twin.dropout, **options
    )  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
@learner_sets
def test_a_gated_block_is_exact(bias: bool, learners: Sequence[int]) -> None:
    """Value and gradients equal the plain block's, for both rows of a learner and its column; merging restores it."""
    plain = Gated(bias)
    x, g = inputs((5, 3))
    plain(x).backward(g)
    expected = x.grad
    x.grad = None
    block = split_gated(plain, learners)
    got = block(x)
    got.backward(g)
    close(got.detach(), plain(x).detach())
    assert expected is not None
    close(x.grad, expected)
    if block.learners:
        both = torch.tensor([*block.learners, *(j + WIDTH for j in block.learners)])
        assert plain.up.weight.grad is not None
        assert plain.down.weight.grad is not None
        close(block.learner_up.grad, plain.up.weight.grad[both])
        close(block.learner_down.grad, plain.down.weight.grad[:, both[: len(block.learners)]])
    up, _, down = block.release()
    for one, other in ((up, plain.up), (down, plain.down)):
        assert torch.equal(one.weight, other.weight)
        assert one.bias is None if other.bias is None else torch.equal(one.bias, other.bias)


def test_a_gated_block_with_zero_padding() -> None:
    """Both halves are padded, which changes nothing: 300 neurons of which 7 learn."""
    plain = Gated(True, width=300)
    block = split_gated(plain, range(7))
    assert block.frozen_up.shape[0] == 2 * 304 == 2 * block.frozen_down.shape[1]
    x, _ = inputs((5, 3))
    close(block(x).detach(), plain(x).detach())
    assert torch.equal(block.release()[0].weight, plain.up.weight)


def test_a_gated_block_applies_dropout_before_down() -> None:
    """In training at its rate, in evaluation not at all."""
    plain = Gated(False, p=1.0)
    block = split_gated(plain, (3, 5))
    x, _ = inputs((2, 3))
    assert not block.train()(x).any()
    close(block.eval()(x).detach(), plain.eval()(x).detach())


def test_a_gated_block_supports_one_policy() -> None:
    """The functions of the other policies have no gate."""
    with pytest.raises(ValueError, match="'store' is for blocks without a gate"):
        split_gated(Gated(False), (1,), policy="store")


@policies
@learner_sets
def test_a_block_without_biases_is_exact(policy: str, learners: Sequence[int]) -> None:
    """Neither the split block nor the merged one gains a bias."""
    plain = plain_block()
    plain.up.bias = plain.down.bias = None  # type: ignore[assignment]
    x, g = inputs((5, 3))
    plain(x).backward(g)
    expected = x.grad
    x.grad = None
    block = split(plain, learners, policy, rows=2)
    got = block(x)
    got.backward(g)
    assert expected is not None
    close(got.detach(), plain(x).detach())
    close(x.grad, expected)
    assert {name.split("_")[-1] for name, _ in block.named_parameters()} == {"up", "down"}
    if block.learners:
        assert plain.up.weight.grad is not None
        close(block.learner_up.grad, plain.up.weight.grad[torch.tensor(block.learners)])
    up, _, down = block.release()
    assert torch.equal(up.weight, plain.up.weight)
    assert [name for linear in (up, down) for name, _ in linear.named_parameters()] == ["weight", "weight"]
