"""Layers in 16 bits: gradients beside those of float32, types and sizes of what is stored, and the way back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from farsearch.far.execution import Execution
from farsearch.far.layout import ModelLayout
from farsearch.far.surgery import apply_far, merge
from tests.tiny import make_model

LEAN = Execution("store", "recompute", "seed", "output")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
CLOSE = {"bfloat16": 0.1, "float16": 0.015}
"""Relative error of the worst gradient, a sum in which most cancels: 8 and 11 bits. Others are within a third of it."""

precisions = pytest.mark.parametrize("precision", DTYPES)
families = pytest.mark.parametrize("family", ["bert", "distilbert"])


def lowered(family: str, precision: str, checkpointing: bool = False) -> tuple[nn.Module, ModelLayout]:
    """A model of three layers: frozen, with learners of neurons and heads, and wholly trained."""
    model, layout = make_model(family, layers=3)
    execution = LEAN._replace(precision=precision, checkpointing=checkpointing)
    apply_far(
        model, layout, [None, range(0, 64, 3), None], False, 0, 0, execution, [None, [0], None]
    )  # fmt: skip
    return model, layout


def batch() -> dict[str, Tensor]:
    """Token ids with padding, and labels."""
    ids = torch.randint(5, 300, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0, 1])}


def gradients(model: nn.Module, factor: float = 1.0) -> dict[str, Tensor]:
    """The gradients of a loss times a factor, divided by it."""
    (model.eval()(**batch()).loss * factor).backward()
    return {name: p.grad.double() / factor for name, p in model.named_parameters() if p.grad is not None}


def worst(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error; keys' biases have no gradient but for rounding."""
    names = [name for name in expected if not name.endswith(("key.bias", "k_lin.bias", "learner_bias"))]
    return max(float((got[name] - expected[name]).norm() / expected[name].norm()) for name in names)


@families
@precisions
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_float32_up_to_rounding(family: str, precision: str, checkpointing: bool) -> None:
    expected = gradients(lowered(family, "float32")[0])
    model, _ = lowered(family, precision, checkpointing)
    got = gradients(model)
    assert got.keys() == expected.keys()
    assert worst(got, expected) < CLOSE[precision]
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_float16_keeps_small_gradients() -> None:
    """Of a loss of a hundredth the worst is off by 5 %; without the loss scale by more than all of it."""
    expected = gradients(lowered("bert", "float32")[0])
    assert worst(gradients(lowered("bert", "float16")[0], 1e-2), expected) < 0.1


@families
@precisions
def test_frozen_matrices_alone_are_stored_in_16_bits(family: str, precision: str) -> None:
    model, layout = make_model(family, layers=3)
    apply_far(model, layout, [None, range(9), []], True, 2, 1, LEAN._replace(precision=precision))
    inside = (layout.embeddings, *(layer.path for layer in layout.layers))
    for name, p in model.named_parameters():
        is_half = p.dim() > 1 and not p.requires_grad and name.startswith(inside)
        assert p.dtype == (DTYPES[precision] if is_half else torch.float32), name


@families
@precisions
def test_merge_returns_a_float32_model_with_rounded_frozen_matrices(family: str, precision: str) -> None:
    model, layout = make_model(family, layers=3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modules = {name: type(module) for name, module in model.named_modules()}
    apply_far(model, layout, [None, range(9), None], True, 1, 0, LEAN._replace(precision=precision))
    merge(model, layout)
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert model(**batch()).logits.dtype == torch.float32
    for name, value in model.state_dict().items():
        # of a split block only the frozen rows are rounded
        torch.testing.assert_close(
            value, state[name], rtol=2**-8 if value.dim() > 1 else 0.0, atol=1e-7 if value.dim() > 1 else 0.0, msg=name
        )


def test_a_model_whose_attention_is_not_recomputed_is_refused() -> None:
    model, layout = make_model("bert", layers=2)
    layers = tuple(layer._replace(self_attention=None) for layer in layout.layers)
    with pytest.raises(ValueError, match="float32"):
        apply_far(model, layout._replace(layers=layers), [None, None], execution=LEAN._replace(precision="bfloat16"))
