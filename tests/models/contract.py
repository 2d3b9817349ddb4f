"""The contract of every model family. A family's tests run all of ``CONTRACT`` on a case of it.

::

    @pytest.mark.parametrize("promise", CONTRACT, ids=told)
    def test_family(promise: Promise, tmp_path: Path) -> None:
        promise(FamilyCase("mine", make_my_config), tmp_path)
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from farsearch.calibration.steps import apply_config
from farsearch.cost.plans import exact_plans, execution_of, optimizer_of
from farsearch.cost.pricer import Pricer
from farsearch.cost.segments import EVENT_KINDS, Composed
from farsearch.cost.software import software_of
from farsearch.far.execution import rows_at_once
from farsearch.far.features import Features, batch_of
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.loop import predict, train
from farsearch.far.optimizer import BackwardOptimizer
from farsearch.far.schedule import linear_rate
from farsearch.far.selection import head_scores, learner_counts, neuron_scores, top_learners
from farsearch.far.surgery import apply_far, freeze, merge, trainable_count, width_of
from farsearch.models.config import load_config
from farsearch.models.families import layout_of, max_length_of
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import ModelSource
from farsearch.priming import start_state
from farsearch.records import FarConfig, StepPlan
from farsearch.runtime.torch_engine.model import model_class
from farsearch.tasks.data import Kind
from tests.cost.reference import make_profile, step_peak_mib, traced

__all__ = ["CONTRACT", "FamilyCase", "Golden", "Promise", "told"]

Promise = Callable[["FamilyCase", Path], None]

PAD, VOCABULARY = 1, 120
MODULES = StepPlan()
LENGTHS = (9, 5, 12, 7, 12, 3, 8, 10)


@dataclass(frozen=True)
class Golden:
    """The published checkpoint ``name`` with a head of two classes: parameters in total, and trained at r = 10 %."""

    name: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class FamilyCase:
    """A family under test.

    Attributes:
        make: a tiny configuration from layers, hidden size, neurons of a block, and dropout; with ``VOCABULARY`` tokens
            and the padding id ``PAD``.
        golden: None for a family without a public checkpoint.
        blocks: feed-forward blocks per layer.
        kinds: tasks for which transformers has a model of this family.
    """

    name: str
    make: Callable[[int, int, int, float], Any]
    golden: Golden | None = None
    blocks: int = 1
    kinds: tuple[Kind, ...] = ("classification", "token-classification", "question-answering")

    def build(self, layers: int = 2, dropout: float = 0.0, double: bool = False) -> tuple[nn.Module, ModelLayout]:
        """Return a model with random weights of a fixed seed, in eval mode, and its layout."""
        torch.manual_seed(3)
        model, layout = build_model(self.make(layers, 32, 64, dropout), Head())
        with torch.no_grad():
            for parameter in model.parameters():
                # fresh weights may be 0 or close to it: make all of them distinct
                parameter.add_(0.05 * torch.randn_like(parameter))
        return (model.double() if double else model).eval(), layout


def told(promise: Promise) -> str:
    return promise.__name__


def _features() -> Features:
    """Rows of random tokens and their classes."""
    draw = random.Random(5)
    rows = [[draw.randrange(5, VOCABULARY) for _ in range(size)] for size in LENGTHS]
    return Features(rows, [i % 2 for i in range(len(rows))])


def _batch() -> dict[str, Tensor]:
    return batch_of(_features(), PAD).inputs


def _logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**_batch()).logits
    return logits


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _some_learners(layout: ModelLayout, width: int) -> list[list[int] | None]:
    """Selections of every form: unsorted, empty, one block untouched, all."""
    kinds: Sequence[list[int] | None] = ([5, 1, width - 1], None, [], list(range(width)))
    return [kinds[i % 4] for i in range(len(layout.blocks))]


def _some_heads(layout: ModelLayout) -> list[list[int] | None] | None:
    """Trained heads: one, all that there are, none, an attention untouched; None if the family has no such heads."""
    kinds: Sequence[list[int] | None] = ([layout.heads - 1], list(range(layout.heads)), [], None)
    return [kinds[i % 4] for i in range(len(layout.layers))] if layout.heads else None


def layout_names_the_parts(case: FamilyCase, _: Path) -> None:
    """Every path exists, blocks and maps have the expected shapes, and the layout survives a JSON round trip."""
    model, layout = case.build()
    names = dict(model.named_modules())
    assert set(layout.bottom) | set(layout.dropouts) | set(layout.norms) <= set(names)
    assert len(layout.layers) == 2
    for layer in layout.layers:
        assert {layer.path, *layer.attention, *layer.dropouts, *layer.norms} <= set(names)
        assert len(layer.blocks) == case.blocks
        assert all(isinstance(names[path], nn.Linear) for path in layer.attention)
        for block in layer.blocks:
            up, down = names[block.up], names[block.down]
            assert up.weight.shape == (64 * (1 if block.gated is None else 2), down.weight.shape[0])
            assert down.weight.shape[1] == 64
            assert get_module(model, block.activation) is not None
    inside = [
        name
        for name, _ in model.named_parameters()
        if name.startswith(tuple(f"{layer.path}." for layer in layout.layers))
    ]
    both = [name for name in inside if name.startswith(tuple(f"{path}." for path in layout.bottom))]
    assert inside
    assert both == []
    assert ModelLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def longest_text_goes_through(case: FamilyCase, _: Path) -> None:
    """A row of the family's maximum length gives finite logits."""
    model, _layout = case.build()
    length = max_length_of(model.config)
    assert length >= 64
    ids = torch.full((1, length), 7)
    with torch.no_grad():
        assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()


def selection_finds_what_moved(case: FamilyCase, _: Path) -> None:
    """Scores are sums over rows, bias entry and column; the only neuron that moved is the top one."""
    model, layout = case.build()
    before, moved = _state(model), random.Random(2)
    for i, block in enumerate(layout.blocks):
        after = {name: value.clone() for name, value in before.items()}
        neuron = moved.randrange(64)
        row = neuron if block.gated is None else neuron + 64 * (i % 2)
        after[f"{block.up}.weight"][row] += 0.25
        after[f"{block.down}.weight"][:, neuron] -= 0.5
        expected = 0.25 * before[f"{block.up}.weight"].shape[1] + 0.5 * before[f"{block.down}.weight"].shape[0]
        if f"{block.up}.bias" in before:
            after[f"{block.up}.bias"][row] += 2.0
            expected += 2.0
        scores = neuron_scores(layout, before, after)
        assert [len(each) for each in scores] == [64] * len(layout.blocks)
        assert top_learners(scores[i], 1) == [neuron]
        assert math.isclose(float(scores[i][neuron]), expected, rel_tol=1e-5)
        assert all(float(each.sum()) == 0 for j, each in enumerate(scores) if j != i)


def selection_finds_the_head_that_moved(case: FamilyCase, _: Path) -> None:
    """Scores are sums over rows of queries, keys and values, and columns of the output, whose bias does not count."""
    model, layout = case.build()
    before = _state(model)
    for i, layer in enumerate(layout.layers if layout.heads else ()):
        after, expected, output = {name: value.clone() for name, value in before.items()}, 0.0, layer.head_maps[-1]
        for each in layer.head_maps:
            weight = after[f"{each.path}.weight"].transpose(0, each.dim)
            rows = weight.view(each.times, layer.heads, -1, weight.shape[1]) if not each.dim else weight.unflatten(
                0, (1, layer.heads, -1)
            )  # fmt: skip
            rows[:, 1] += 0.25
            expected += 0.25 * rows[:, 1].numel()
            output = each if each.dim else output
        if f"{output.path}.bias" in after:
            after[f"{output.path}.bias"] += 9.0
        scores = head_scores(layout, before, after)
        assert [len(each) for each in scores] == [layer.heads] * len(layout.layers)
        assert top_learners(scores[i], 1) == [1]
        assert math.isclose(float(scores[i][1]), expected, rel_tol=1e-5)
        assert sum(float(each.sum()) for each in scores) == float(scores[i][1])


def merge_undoes_reconfigure(case: FamilyCase, _: Path) -> None:
    """The split model computes the same; merged, it has the same state dict bit by bit."""
    model, layout = case.build(layers=4)
    before, names, logits = _state(model), [name for name, _ in model.named_modules()], _logits(model)
    learners = _some_learners(layout, 64)
    with torch.no_grad():
        apply_far(model, layout, learners, True, 1, 1, heads=_some_heads(layout))
    torch.testing.assert_close(_logits(model), logits, atol=2e-5, rtol=1e-4)
    merge(model, layout)
    after = model.state_dict()
    assert list(after) == list(before)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name, _ in model.named_modules()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(_logits(model), logits)


def learners_have_plain_gradients(case: FamilyCase, _: Path) -> None:
    """In float64 a learner's gradients equal those of the unsplit model, and frozen parameters have none."""
    model, layout = case.build(layers=4, double=True)
    model(**_batch()).loss.backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    learners, heads = _some_learners(layout, 64), _some_heads(layout)
    frozen = _frozen_entries(layout, heads or [None] * 4, _state(model))
    apply_far(model, layout, learners, heads=heads)(**_batch()).loss.backward()
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for block, chosen in zip(layout.blocks, learners, strict=True):
        if chosen is None:
            continue
        rows = sorted(chosen) if block.gated is None else [*sorted(chosen), *(j + 64 for j in sorted(chosen))]
        for name, part, index, dim in (
            (f"{block.up}.weight", "learner_up", rows, 0),
            (f"{block.up}.bias", "learner_bias", rows, 0),
            (f"{block.down}.weight", "learner_down", sorted(chosen), 1),
        ):
            whole = plain.pop(name, None)
            if whole is not None and chosen:
                plain[f"{block.split}.{part}"] = whole.index_select(dim, torch.tensor(index))
        plain.pop(f"{block.down}.bias", None)
    for each in (each for layer in layout.layers for each in layer.head_maps):
        for name in ("weight", "bias"):
            whole, of_frozen = plain.get(f"{each.path}.{name}"), frozen.get(f"{each.path}.{name}")
            if whole is not None and of_frozen is not None and of_frozen.any():
                del plain[f"{each.path}.{name}"]
            # an attention of learner heads alone has a frozen output's bias
            if whole is not None and of_frozen is not None and f"{each.path}.learner_{name}" in got:
                plain.pop(f"{each.path}.{name}", None)
                shape = (-1,) if name == "bias" else (-1, whole.shape[1]) if not each.dim else (whole.shape[0], -1)
                plain[f"{each.path}.learner_{name}"] = whole[~of_frozen].view(shape)
    assert set(got) == set(plain)
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-10, rtol=1e-7, msg=name)


def frozen_heads_train_like_a_masked_model(case: FamilyCase, _: Path) -> None:
    """Learner heads and all else that is trained get the weights of an unsplit model whose frozen heads are put back.

    With dropout, by ordinary modules and by the device's last exact plan: the masks are those of the unsplit model.
    """
    layout = case.build(layers=4)[1]
    heads = _some_heads(layout)
    if heads is None:
        return
    for plan in (MODULES, exact_plans(make_profile(), layout)[-1]):
        models = [case.build(layers=4, dropout=0.1)[0] for _ in range(2)]
        before = _state(models[0])
        frozen = _frozen_entries(layout, heads, before)
        split, unsplit = (
            apply_far(each, layout, [None] * len(layout.blocks), execution=execution_of(plan), heads=some)
            for each, some in zip(models, (heads, None), strict=True)
        )

        def put_back(model: nn.Module, before: dict[str, Tensor], frozen: dict[str, Tensor]) -> None:
            state = {name: torch.where(frozen[name], before[name], value) for name, value in model.state_dict().items()}
            model.load_state_dict(state)

        losses = _train(split, plan)
        expected = _train(unsplit, plan, partial(put_back, unsplit, before, frozen))
        assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(losses, expected, strict=True))
        after, reference = merge(split, layout).state_dict(), merge(unsplit, layout).state_dict()
        assert [name for name in before if not torch.equal(after[name][frozen[name]], before[name][frozen[name]])] == []
        for name, value in after.items():
            torch.testing.assert_close(value, reference[name], atol=2e-5, rtol=1e-4, msg=name)


def _frozen_entries(
    layout: ModelLayout, heads: Sequence[list[int] | None], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Which entries of each tensor belong to frozen heads, or to the bias of a split output."""
    frozen = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in state.items()}
    for layer, chosen in zip(layout.layers, heads, strict=True):
        for each in layer.head_maps if chosen is not None else ():
            rows = torch.ones(each.times, layer.heads, dtype=torch.bool)
            rows[:, chosen] = False
            for name in (f"{each.path}.weight", f"{each.path}.bias"):
                if name in state:
                    size = state[f"{each.path}.weight"].shape[each.dim] // rows.numel()
                    entries = rows.flatten().repeat_interleave(size)
                    whole = each.dim and name.endswith("bias")
                    shape = (-1, 1) if state[name].dim() == 2 and not each.dim else (-1,)
                    frozen[name] |= torch.tensor(True) if whole else entries.view(shape)
    return frozen


def frozen_bottom_ends_the_backward_pass(case: FamilyCase, _: Path) -> None:
    """Below a frozen bottom nothing has a gradient or a grad_fn, shared tables included; everything above has."""
    model, layout = case.build()
    freeze(model, layout, bottom_layers=1)
    outputs: list[Any] = []
    get_module(model, layout.layers[0].path).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    model(**_batch()).loss.backward()
    output = outputs[0] if isinstance(outputs[0], Tensor) else outputs[0][0]
    assert output.grad_fn is None
    frozen = tuple(f"{path}." for path in (*layout.bottom, layout.layers[0].path))
    assert {name for name, p in model.named_parameters() if p.grad is None} == {
        name for name, _ in model.named_parameters() if name.startswith(frozen)
    }


def _train(model: nn.Module, plan: StepPlan = MODULES, after_step: Callable[[], object] = lambda: None) -> list[float]:
    """Return the losses of three steps, alternating between the two halves of the rows."""
    optimizer, batches = optimizer_of(plan, model), [range(4), range(4, 8), range(4)]
    losses: list[float] = []

    def on_step(_step: int, loss: float) -> None:
        losses.append(loss)
        after_step()

    try:
        train(model, _features(), batches, optimizer, linear_rate(1e-3, 3), PAD, 11, None, on_step)
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
    return losses


def fraction_0_is_full_fine_tuning(case: FamilyCase, _: Path) -> None:
    """FAR with nothing frozen trains to the same weights, bit by bit; every exact plan agrees up to rounding."""
    model, layout = case.build(dropout=0.1)
    twin = copy.deepcopy(model)
    width = width_of(model, layout.layers[0])
    learners: list[None] = [None] * len(layout.blocks)
    assert layout.by_block(learner_counts(width, [0.0, 0.0])) == learners
    assert _train(apply_far(model, layout, learners)) == _train(twin)
    after, expected = merge(model, layout).state_dict(), twin.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], after[name])] == []
    plain, _layout = case.build()
    losses = _train(plain)
    for plan in exact_plans(make_profile(), layout):
        model, _layout = case.build()
        apply_far(model, layout, learners, execution=execution_of(plan))
        for loss, reference in zip(_train(model, plan), losses, strict=True):
            assert math.isclose(loss, reference, rel_tol=1e-5), plan


def parameters_are_those_published(case: FamilyCase, _: Path) -> None:
    """The known configuration has the published number of parameters, and r = 10 % trains the golden number."""
    if case.golden is None:
        return
    config = load_config(ModelSource(case.golden.name, case.golden.name), with_known=True)
    with torch.device("meta"):
        model, layout = build_model(config, Head())
        assert trainable_count(model) == case.golden.parameters
        counts = learner_counts(width_of(model, layout.layers[0]), [0.9] * len(layout.layers))
        apply_far(model, layout, [None if k is None else range(k) for k in layout.by_block(counts)])
    assert trainable_count(model) == case.golden.trained


_ALL = FarConfig((0.5, 0.0, 0.9), 1e-4, 1.0, frozen_heads=(0.5, 0.0, 1.0))
_TOP = FarConfig((1.0, 0.25, 0.9), 1e-4, 1.0, frozen_attention_layers=2, frozen_bottom_layers=1)
_ROWS, _LENGTH = 8, 40


def cost_is_predicted(case: FamilyCase, _: Path) -> None:
    """The peak from the look-up tables equals that of a trace of the whole model, and that of a real step.

    The trace agrees to a byte, with static bytes and trained tensors; the profiler's peak of a real step to 0.2 %.
    Covers ordinary modules above a frozen bottom, and all layers under the device's last exact plan, which checkpoints;
    with dropout, and without, where attention runs in a kernel of its own.
    """
    for dropout in (0.1, 0.0):
        _check_prediction(case.make(3, 32, 264, dropout))


def _check_prediction(config: Any) -> None:
    splits = layout_of(config).heads > 0
    profile = make_profile(basis="calibrated")
    pricer = Pricer(config, Head(), _ROWS, _LENGTH, profile)
    chunk = min(_ROWS, rows_at_once((_ROWS, _LENGTH, 0)))
    every = _ALL if splits else dataclasses.replace(_ALL, frozen_heads=())
    for far, plan in ((_TOP, MODULES), (every, [plan for plan in pricer.plans if plan.optimizer_step == "end"][-1])):
        composed = pricer.table(plan).compose([far])
        direct = traced(config, far, _ROWS, _LENGTH, plan, chunk, software_of(profile, _LENGTH))
        assert composed.static_bytes[0] == direct.static
        assert sorted(_trained(composed)) == sorted(direct.trained)
        assert round(_highest(_composed_sizes(composed))) == _highest(
            [event.size for segment in direct.segments for event in segment.events if event.kind != "added"]
        )
        model, layout = build_model(config, Head())
        measured = step_peak_mib(apply_config(model, layout, far, plan, chunk), _ROWS, _LENGTH, plan)
        # redrawing a dropout mask requires the generator's state to be saved
        states = 40 * 5056 / 2**20 if plan.dropout == "seed" else 0.0
        predicted = pricer.price(far, plan).tensor_peak_mib
        assert abs(predicted - measured) <= 2e-3 * measured + states, (far, plan, predicted, measured)


def _composed_sizes(composed: Composed) -> list[float]:
    """Bytes of all events of the one configuration, in their order."""
    sizes: list[float] = []
    for at, learners in zip(composed.part_of[:, 0], composed.learners[:, 0], strict=True):
        part = composed.parts[at]
        events = zip(part.sizes(_LENGTH, int(learners)).tolist(), part.event_kinds.tolist(), strict=True)
        sizes += [size for size, kind in events if EVENT_KINDS[kind] != "added"]
    return sizes


def _trained(composed: Composed) -> list[int]:
    groups = zip(composed.tensors_of[:, 0], composed.tensor_learners[:, 0], strict=True)
    return [round(size) for at, learners in groups for size in composed.tensors[at].sizes(learners)]


def _highest(sizes: Sequence[float]) -> float:
    return max(accumulate(sizes))


def saved_model_is_the_trained_one(case: FamilyCase, folder: Path) -> None:
    """After training, merging, saving and loading by transformers alone, only learners have moved and logits agree."""
    model, _ = case.build()
    pretrained = _state(model)
    layout = ModelLayout.from_dict(json.loads(json.dumps(case.build()[1].to_dict())))
    primed = {n: v + 0.01 if v.is_floating_point() else v for n, v in pretrained.items()}
    config = FarConfig((0.9, 0.9), 1e-3, 1.0, frozen_embeddings=True)
    chosen: list[list[int] | None] = [[3, 40, 63] for _ in layout.blocks]
    start = start_state(layout, pretrained, primed, chosen, config, "pretrained")
    model.load_state_dict(start)
    apply_far(model, layout, chosen, frozen_embeddings=True)
    _train(model)
    merge(model, layout)
    after = model.state_dict()
    for block in layout.blocks:
        for name, dim in ((f"{block.up}.weight", 0), (f"{block.up}.bias", 0), (f"{block.down}.weight", 1)):
            if name in after:
                moved = (after[name] != pretrained[name]).transpose(0, dim).reshape(after[name].shape[dim], -1).any(1)
                assert sorted({j % 64 for j in moved.nonzero().flatten().tolist()}) == [3, 40, 63]
    frozen = tuple(f"{path}." for path in layout.bottom)
    assert all(torch.equal(after[name], pretrained[name]) for name in after if name.startswith(frozen))
    logits = predict(model, _features(), PAD)
    model.save_pretrained(folder)  # type: ignore[operator]
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    assert torch.equal(predict(loaded, _features(), PAD), logits)


def reconfigured_model_is_saved_as_an_ordinary_one(case: FamilyCase, folder: Path) -> None:
    """In the middle of training, under every head, a model is saved, copied and read in its merged form."""
    for kind in case.kinds:
        torch.manual_seed(3)
        model, layout = build_model(case.make(2, 32, 64, 0.0), Head(kind))
        apply_far(model, layout, _some_learners(layout, 64), frozen_embeddings=True, heads=_some_heads(layout))
        plain = _state(merge(copy.deepcopy(model), layout))
        assert list(model.state_dict()) == list(plain)
        model.save_pretrained(folder / kind)  # type: ignore[operator]
        loaded, info = model_class(kind).from_pretrained(folder / kind, output_loading_info=True)
        assert not any(info.values()), info
        for twin in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert [name for name, value in twin.state_dict().items() if not torch.equal(value, plain[name])] == []
        moved = {name: value + 0.5 if value.is_floating_point() else value for name, value in plain.items()}
        model.load_state_dict(moved)
        learned = {name for name, p in model.named_parameters() if p.requires_grad}
        assert any("learner_up" in name for name in learned)
        assert all(torch.equal(value, moved[name]) for name, value in merge(model, layout).state_dict().items())


CONTRACT: Sequence[Promise] = (
    layout_names_the_parts,
    longest_text_goes_through,
    selection_finds_what_moved,
    selection_finds_the_head_that_moved,
    merge_undoes_reconfigure,
    learners_have_plain_gradients,
    frozen_heads_train_like_a_masked_model,
    frozen_bottom_ends_the_backward_pass,
    fraction_0_is_full_fine_tuning,
    parameters_are_those_published,
    cost_is_predicted,
    saved_model_is_the_trained_one,
    reconfigured_model_is_saved_as_an_ordinary_one,
)
