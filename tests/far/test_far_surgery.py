"""Reconfigure and merge: the same function, the same weights after merging, the right gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from farsearch.far.features import Batch
from farsearch.far.ffn import SplitFeedForward
from farsearch.far.layout import FeedForwardLayout, LayerLayout, ModelLayout, get_module
from farsearch.far.loop import train_step
from farsearch.far.optimizer import make_optimizer
from farsearch.far.selection import learner_counts
from farsearch.far.surgery import apply_far, freeze, merge, reconfigure, trainable_count, width_of
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import ModelSource
from tests.tiny import FAMILIES, make_model

WIDTH = 64
families = pytest.mark.parametrize("family", FAMILIES)

choices = st.lists(
    st.one_of(
        st.none(),
        st.just([]),
        st.just(list(range(WIDTH))),
        st.lists(st.integers(0, WIDTH - 1), unique=True, max_size=WIDTH),
    ),
    min_size=2,
    max_size=2,
)
"""Learners of two layers: untouched, none, all, or any, in any order."""

_made: dict[str, tuple[nn.Module, ModelLayout]] = {}


def fresh(family: str) -> tuple[nn.Module, ModelLayout]:
    """A copy of one model per family, in eval mode: much faster than making one."""
    if family not in _made:
        _made[family] = make_model(family)
    model, layout = _made[family]
    return copy.deepcopy(model).eval(), layout


def batch(rows: int = 3, length: int = 9) -> dict[str, Tensor]:
    """Token ids with padding, and labels."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 300, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(rows) % 2}


def test_golden_number_of_the_paper() -> None:
    """DistilBERT with two classes has 66,955,010 parameters, and FAR at r = 10 % trains 41,451,572 of them.

    The paper prints 41.45 M (Vucetic et al. 2022, table 1).
    """
    name = "distilbert-base-uncased"
    with torch.device("meta"):
        model, layout = build_model(load_config(ModelSource(name, name), with_known=True), Head())
        assert trainable_count(model) == 66_955_010
        counts = learner_counts(width_of(model, layout.layers[0]), [0.9] * 6)
        apply_far(model, layout, [None if k is None else range(k) for k in counts])
    assert trainable_count(model) == 41_451_572


@families
@given(learners=choices)
def test_merge_undoes_reconfigure(family: str, learners: list[list[int] | None]) -> None:
    """The same state dict bit by bit, in the same order, for any selection, and all gradients enabled."""
    model, layout = fresh(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in model.named_modules()]
    merge(apply_far(model, layout, learners, True, 1, 1), layout)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [name for name, _ in model.named_modules()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())


@families
@given(learners=choices)
def test_reconfigured_model_computes_the_same(family: str, learners: list[list[int] | None]) -> None:
    """Logits agree to 1e-6 for any selection: a split changes only the order of sums."""
    model, layout = fresh(family)
    with torch.no_grad():
        before = model(**batch()).logits
        after = model_logits(reconfigure(model, layout, learners))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


def model_logits(model: nn.Module) -> Tensor:
    """Logits of the batch."""
    logits: Tensor = model(**batch()).logits
    return logits


@families
@given(learners=choices)
def test_gradients_are_slices_of_plain_autograd(family: str, learners: list[list[int] | None]) -> None:
    """In float64, a learner's gradients are those of its row, bias entry and column in the unsplit model.

    Other trained parameters have the same gradients as before, and frozen ones have none.
    """
    model, layout = fresh(family)
    model.double()
    model(**batch()).loss.backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    reconfigure(model, layout, learners)(**batch()).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    expected = dict(plain)
    for block, chosen in zip(layout.blocks, learners, strict=True):
        if chosen is None:
            continue
        index = torch.tensor(sorted(chosen), dtype=torch.long)
        expected[f"{block.down}.learner_up"] = expected.pop(f"{block.up}.weight")[index]
        expected[f"{block.down}.learner_bias"] = expected.pop(f"{block.up}.bias")[index]
        expected[f"{block.down}.learner_down"] = expected.pop(f"{block.down}.weight")[:, index]
        del expected[f"{block.down}.bias"]
        for name in ("frozen_up", "frozen_bias", "frozen_down", "bias"):
            assert gradients.pop(f"{block.down}.{name}") is None
        if not chosen:
            for name in ("learner_up", "learner_bias", "learner_down"):
                assert gradients.pop(f"{block.down}.{name}") is None
                del expected[f"{block.down}.{name}"]
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-12, rtol=1e-9, msg=name)


@families
@given(
    fractions=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    flags=st.tuples(st.booleans(), st.booleans()),
    counts=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_freezing_more_never_trains_more(
    family: str, fractions: list[float], flags: tuple[bool, bool], counts: list[int]
) -> None:
    """In each of the five settings, and in all of them together."""

    def trained(low: bool) -> int:
        pick = min if low else max
        frozen = [pick(fractions[0], fractions[1]), pick(fractions[2], fractions[3])]
        attention, bottom = pick(counts[:2]), pick(counts[2:])
        model, layout = fresh(family)
        learners = [None if k is None else range(k) for k in learner_counts(WIDTH, frozen, bottom)]
        return trainable_count(apply_far(model, layout, learners, pick(flags), attention, bottom))

    assert trained(low=True) >= trained(low=False)


@families
def test_frozen_tensors_have_no_optimizer_state(family: str) -> None:
    """After real steps only trained tensors have AdamW's two moments, and frozen ones are unchanged."""
    model, layout = fresh(family)
    apply_far(model, layout, [range(10), []], frozen_embeddings=True, frozen_attention_layers=1)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = make_optimizer("adamw", model)
    for _ in range(2):
        train_step(model, optimizer, Batch(batch(), (1,) * len(batch()["labels"])))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in optimizer.state} == {id(p) for p in trained}
    held = sum(v.numel() for state in optimizer.state.values() for v in state.values() if v.dim())
    assert held == 2 * trainable_count(model)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in frozen.items())


def gradients_of(family: str, **frozen: Any) -> tuple[set[str], ModelLayout]:
    """Names of the parameters with a gradient after a backward pass."""
    model, layout = fresh(family)
    freeze(model, layout, **frozen)
    model(**batch()).loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}, layout


@families
def test_frozen_embeddings(family: str) -> None:
    """The tables and their LayerNorm have no gradient, everything else has."""
    everything, layout = gradients_of(family)
    left, _ = gradients_of(family, embeddings=True)
    assert everything - left == {name for name in everything if name.startswith(layout.embeddings)}
    assert any("LayerNorm" in name for name in everything - left)


@families
def test_frozen_attention(family: str) -> None:
    """In the lowest layers the four linear maps have no gradient; LayerNorms and feed-forward blocks have."""
    everything, layout = gradients_of(family)
    left, _ = gradients_of(family, attention_layers=1)
    maps = {f"{path}.{part}" for path in layout.layers[0].attention for part in ("weight", "bias")}
    assert everything - left == maps
    assert len(maps) == 8
    both, _ = gradients_of(family, attention_layers=2)
    assert {name for name in everything - both if "norm" in name.lower()} == set()


@families
def test_frozen_bottom_stops_the_backward_pass(family: str) -> None:
    """The output of a frozen bottom layer has no grad_fn."""
    model, layout = fresh(family)
    freeze(model, layout, bottom_layers=1)
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        assert isinstance(output, Tensor | tuple)
        outputs.append(output if isinstance(output, Tensor) else output[0])

    for layer in layout.layers:
        get_module(model, layer.path).register_forward_hook(keep)
    model(**batch()).loss.backward()
    assert outputs[0].grad_fn is None
    assert outputs[1].grad_fn is not None
    without = (layout.embeddings, f"{layout.layers[0].path}.")
    assert all((p.grad is None) == name.startswith(without) for name, p in model.named_parameters())


@families
def test_all_layers_frozen_train_the_head(family: str) -> None:
    """With the whole bottom frozen the parameters above the layers still train."""
    left, layout = gradients_of(family, bottom_layers=2)
    assert left
    assert not any(name.startswith((layout.embeddings, *(layer.path for layer in layout.layers))) for name in left)


def test_invalid_selections_are_refused() -> None:
    """One entry per layer, and indices inside the block; negative indices are invalid."""
    model, layout = fresh("bert")
    with pytest.raises(ValueError, match="1 selections for 2 feed-forward blocks"):
        reconfigure(model, layout, [None])
    for wrong in ([WIDTH], [-1, 3]):
        with pytest.raises(ValueError, match="outside 0 to 63"):
            reconfigure(model, layout, [wrong, None])


class _Plain(nn.Module):
    """A model whose activation is a plain function, as in older versions of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.activation = F.gelu

    def forward(self, x: Tensor) -> Tensor:
        """``[..., 4]`` to the same shape."""
        y: Tensor = self.down(self.activation(self.up(x)))
        return y


def test_activation_may_be_a_function() -> None:
    """A function is replaced and restored like a module."""
    model = _Plain()
    holder = nn.ModuleDict({"layer": model})
    block = FeedForwardLayout("layer.up", "layer.activation", "layer.down")
    layout = ModelLayout("layer", (LayerLayout("layer", (), (block,)),))
    x = torch.randn(2, 4)
    before = model(x)
    reconfigure(holder, layout, [[1, 5]])
    assert isinstance(model.down, SplitFeedForward)
    torch.testing.assert_close(model(x), before)
    merge(holder, layout)
    assert model.activation is F.gelu
    assert torch.equal(model(x), before)


@families
def test_layout_round_trip(family: str) -> None:
    """A layout survives a JSON round trip, and unknown keys are errors."""
    _, layout = fresh(family)
    data = layout.to_dict()
    assert ModelLayout.from_dict(data) == layout
    with pytest.raises(TypeError, match="colour"):
        ModelLayout.from_dict({**data, "colour": 1})
