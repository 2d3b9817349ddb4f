"""Attention that recomputes its probabilities, against plain autograd and torch's own, with and without dropout."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from farsearch.far.attention import RecomputedAttention, attend
from farsearch.far.dropout import drop_, dropped
from farsearch.far.execution import Execution, portions
from farsearch.far.layout import get_module
from farsearch.far.surgery import execute
from tests.far.saved import saved_bytes
from tests.tiny import FAMILIES, make_model

BATCH, HEADS, LENGTH, SIZE = 5, 2, 4, 3
HIDDEN = HEADS * SIZE
LENGTHS = torch.tensor([4, 1, 3, 2, 4])
KEEPS = torch.arange(LENGTH)[None, :] < LENGTHS[:, None]
"""Which keys each of the rows has: the rest is padding."""

LOWEST = torch.finfo(torch.float32).min

MASKS: dict[str, Tensor | None] = {
    "none": None,
    "bool, each row": KEEPS[:, None, None, :],
    "bool, each query": (KEEPS[:, None, None, :] & KEEPS[:, None, :, None]) | torch.eye(LENGTH, dtype=torch.bool),
    "bool, one for all": torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()[None, None],
    "added, each row": torch.zeros(BATCH, 1, 1, LENGTH).masked_fill(~KEEPS[:, None, None, :], LOWEST),
    "added, each query": torch.linspace(-2, 2, BATCH * LENGTH**2).view(BATCH, 1, LENGTH, LENGTH),
    "added, one for all": torch.linspace(-2, 2, LENGTH**2).view(1, 1, LENGTH, LENGTH),
    "added, each head": torch.linspace(-2, 2, HEADS * LENGTH**2).view(1, HEADS, LENGTH, LENGTH),
}

masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
families = pytest.mark.parametrize("family", FAMILIES)
portion_sizes = pytest.mark.parametrize("rows", [None, 1, 2, 9])


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, ``[batch, length, hidden]``."""
    generator = torch.Generator().manual_seed(4)
    made = [2 * torch.randn(BATCH, LENGTH, HIDDEN, generator=generator, dtype=torch.float64) for _ in range(3)]
    q, k, v = (x.to(dtype).requires_grad_() for x in made)
    return q, k, v


def heads_of(x: Tensor) -> Tensor:
    """``[batch, heads, length, size]``."""
    return x.view(*x.shape[:-1], HEADS, SIZE).transpose(1, 2)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, factor: Tensor | None = None) -> Tensor:
    """Explicit attention, differentiated by autograd; ``factor`` is the dropout factor."""
    scores = heads_of(q) @ heads_of(k).transpose(-1, -2) / SIZE**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    chances = scores.softmax(-1)
    if factor is not None:
        chances = chances * factor
    mixed: Tensor = chances @ heads_of(v)
    return mixed.transpose(1, 2).flatten(2)


def assert_same(got: Tensor, expected: Tensor, tensors: Sequence[Tensor]) -> None:
    """Value and gradients agree to 12 digits."""
    g = torch.linspace(-1, 1, got.numel(), dtype=got.dtype).view_as(got)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)
    gradients = (torch.autograd.grad(y, tensors, g) for y in (got, expected))
    for name, one, other in zip("qkv", *gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12, msg=name)


@masks
@portion_sizes
def test_attention_is_exact(mask: Tensor | None, rows: int | None) -> None:
    """In float64, value and gradients equal those of explicit attention, for all kinds of masks and any portions."""
    tensors = inputs()
    assert_same(attend(*tensors, mask, HEADS, rows=rows), plain(*tensors, mask), tensors)


@masks
def test_attention_equals_torch(mask: Tensor | None) -> None:
    """``scaled_dot_product_attention``, which models call."""
    tensors = inputs()
    q, k, v = (heads_of(x) for x in tensors)
    given = mask if mask is None or mask.dtype == torch.bool else mask.double()
    own = F.scaled_dot_product_attention(q, k, v, given).transpose(1, 2).flatten(2)
    assert_same(attend(*tensors, mask, HEADS), own, tensors)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("rows", [None, 2])
def test_gradcheck(p: float, rows: int | None) -> None:
    """Gradients agree with finite differences, also through dropout under one seed."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(6)
        return attend(q, k, v, MASKS["added, each query"], HEADS, p, rows)

    assert torch.autograd.gradcheck(run, inputs())


@portion_sizes
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_dropout_redraws_the_same_masks(p: float, rows: int | None) -> None:
    """The backward pass uses the forward pass's masks, whatever was drawn in between."""
    tensors = inputs()
    scores = torch.empty(BATCH, HEADS, LENGTH, LENGTH, dtype=torch.float64)
    torch.manual_seed(7)
    ones = torch.ones_like(scores)
    factor = torch.cat([drop_(ones[some], dropped(scores[some], p), p) for some in portions(scores, rows or BATCH)])
    after = torch.get_rng_state()
    torch.manual_seed(7)
    got = attend(*tensors, None, HEADS, p, rows)
    assert torch.equal(torch.get_rng_state(), after)
    torch.rand(3)
    between = torch.get_rng_state()
    assert_same(got, plain(*tensors, None, factor), tensors)
    assert torch.equal(torch.get_rng_state(), between), "the backward pass moved the generator"
    assert bool((factor == 0).any())
    assert bool((factor != 0).any()) == (p < 1)


def test_nothing_is_drawn_without_dropout() -> None:
    """The generator's state is unchanged."""
    state = torch.get_rng_state()
    attend(*inputs(), None, HEADS).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_gradient_in_any_layout() -> None:
    """The gradient of the output need not be contiguous: expanded as by a sum, or transposed."""
    tensors = inputs()
    for above in (torch.ones(1, 1, 1).double().expand(BATCH, LENGTH, HIDDEN),
                  torch.linspace(-1, 1, 120).double().view(HIDDEN, LENGTH, BATCH).permute(2, 1, 0)):  # fmt: skip
        results = (torch.autograd.grad(y, tensors, above) for y in (attend(*tensors, None, 2), plain(*tensors, None)))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_a_row_without_keys_is_finite() -> None:
    """If a boolean mask masks all keys, they have equal weights: padding gives no NaN."""
    tensors = inputs()
    y = attend(*tensors, torch.zeros(BATCH, 1, 1, LENGTH, dtype=torch.bool), HEADS)
    mean = tensors[2].mean(1, keepdim=True).expand_as(y)
    torch.testing.assert_close(y, mean, atol=1e-12, rtol=0)


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("name", ["none", "added, each row"])
def test_saved_for_the_backward_pass(name: str, p: float) -> None:
    """Queries, keys, values and the mask: only a mask may grow with the square of the length."""
    tensors, mask = inputs(torch.float32), MASKS[name]
    saved = saved_bytes(lambda: attend(*tensors, mask, HEADS, p))
    assert saved == 4 * (3 * tensors[0].numel() + (0 if mask is None else mask.numel()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@masks
def test_half_precision(dtype: torch.dtype, mask: Tensor | None) -> None:
    """Half-precision inputs give half-precision results and gradients, within two rounding steps (in norm)."""
    tensors = inputs(dtype)
    q, k, v = exact = [x.detach().double().requires_grad_() for x in tensors]
    got, expected = attend(*tensors, mask, HEADS), plain(q, k, v, mask)
    gradients = torch.autograd.grad(got.double().sum(), tensors), torch.autograd.grad(expected.sum(), exact)
    for one, other in ((got.detach(), expected.detach()), *zip(*gradients, strict=True)):
        assert one.dtype == dtype
        assert float((one.double() - other).norm()) < 2 * torch.finfo(dtype).eps * float(1 + other.norm())


def batch(length: int = 9) -> dict[str, Tensor]:
    """Token ids with padding, and labels."""
    ids = torch.randint(5, 300, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0])}


@families
@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("padded", [True, False])
def test_models_compute_the_same(family: str, rows: int | None, padded: bool) -> None:
    """A model's loss and every gradient in float64, with and without padding; parameter names are unchanged."""
    model, layout = make_model(family, dropout=0.0)
    model.double().train()
    twin = execute(copy.deepcopy(model), layout, Execution(attention="recompute", chunk_rows=rows))
    for layer in layout.layers:
        assert layer.self_attention is not None
        assert isinstance(get_module(twin, layer.self_attention.path), RecomputedAttention)
    assert list(twin.state_dict()) == list(model.state_dict())
    data = batch()
    if not padded:
        data["attention_mask"] = torch.ones_like(data["input_ids"])
    losses = [one(**data).loss for one in (model, twin)]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-13, rtol=0)
    for loss in losses:
        loss.backward()
    gradients = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, atol=1e-12, rtol=1e-9, msg=name)


@families
def test_models_under_autocast(family: str) -> None:
    """The loss is within a bfloat16 step of the original modules', and gradients are float32."""
    model, layout = make_model(family, dropout=0.0)
    twin = execute(copy.deepcopy(model).train(), layout, Execution(attention="recompute"))
    losses = []
    for one in (model.train(), twin):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses.append(one(**batch()).loss)
        losses[-1].backward()
    assert abs(float(losses[0].detach() - losses[1].detach())) < torch.finfo(torch.bfloat16).eps
    assert {parameter.grad.dtype for parameter in twin.parameters() if parameter.grad is not None} == {torch.float32}


def test_call_signatures() -> None:
    """Versions of transformers differ in argument names, and pass a mask per token or per score."""
    model, layout = make_model("distilbert", dropout=0.0)
    execute(model.eval(), layout, Execution(attention="recompute"))
    path = layout.layers[0].self_attention
    assert path is not None
    attention = get_module(model, path.path)
    x, mask = torch.randn(3, 9, 32), batch()["attention_mask"]
    expected, nothing = attention(x, mask)
    assert nothing is None
    added = torch.zeros(3, 1, 1, 9).masked_fill(mask[:, None, None, :] == 0, LOWEST)
    for result in (
        attention(hidden_states=x, attention_mask=mask.bool()[:, None, None, :]),
        attention(query=x, key=x, value=x, mask=mask.float(), head_mask=None, output_attentions=False),
        attention(x, attention_mask=added),
    ):
        torch.testing.assert_close(result[0], expected, atol=1e-6, rtol=0)
    assert not torch.allclose(attention(x)[0], expected)
