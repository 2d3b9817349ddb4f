"""Memory follows the device's software: torch version, attention of ordinary modules, optimizer kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farsearch.calibration.steps import allocated_peak, apply_config
from farsearch.cost.plans import exact_plans, ordinary_plan
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.segments import EVENT_KINDS
from farsearch.cost.software import Software, build_ordinary, emulated, software_of, step_count_bytes
from farsearch.cost.step_table import StepTable
from farsearch.cost.trace import meta_tensors, trace_call
from farsearch.devices.profile import Attention
from farsearch.errors import BadInput, ProfileError
from farsearch.far.dropout import SeededDropout, dropped
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.source import ModelSource
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import figure, make_profile, step_peak_mib, traced
from tests.tiny import FAMILIES, make_config

ROWS, HEADS, LENGTH, SIZE = 3, 2, 40, 16
OLD = Software("eager", old=True)

FULL = full_fine_tuning(4)
UNEVEN = FarConfig((0.9, 0.5, 0.0, 1.0), 1e-4, 1.0)
VECTORS = FarConfig((1.0,) * 4, 1e-4, 1.0, frozen_embeddings=True, frozen_attention_layers=4)
FOREACH = StepPlan(optimizer_kernel="foreach")
CASES: dict[str, tuple[Attention, FarConfig, int, int, StepPlan]] = {
    "eager": ("eager", FULL, 8, 64, StepPlan()),
    "eager-uneven": ("eager", UNEVEN, 8, 40, StepPlan(micro_batch_size=4)),
    "math": ("math", FULL, 8, 64, StepPlan()),
    "foreach": ("math", FULL, 1, 8, FOREACH),
    "foreach-uneven": ("math", UNEVEN, 1, 8, FOREACH),
    "foreach-frozen": ("math", VECTORS, 1, 8, FOREACH),
    "foreach-sgd": ("math", FULL, 1, 8, replace(FOREACH, optimizer="sgd")),
    "foreach-micro": ("eager", FULL, 4, 8, replace(FOREACH, micro_batch_size=2)),
    "fused": ("math", FULL, 1, 8, StepPlan(optimizer_kernel="fused")),
    "sgd": ("eager", FULL, 1, 8, StepPlan("sgd")),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_predicted_peak_equals_the_measured_one(family: str, case: str) -> None:
    """Compare the peak of all tensors in a real step within 0.1 %, by the profiler.

    The optimizers' cases have few tokens, so that their peak falls in the optimizer's step.
    """
    attention, config, rows, length, plan = CASES[case]
    settings = make_config(family, layers=4, hidden=64, neurons=256, vocabulary=1000)
    cost = Pricer(settings, Head(), rows, length, make_profile(attention=attention)).price(config, plan)
    model, layout = build_ordinary(settings, Head(), Software(attention))
    measured = step_peak_mib(apply_config(model, layout, config, plan), rows, length, plan)
    assert cost.tensor_peak_mib == pytest.approx(measured, rel=1e-3)


def test_eager_attention_has_more_temporaries_than_fused() -> None:
    """It scales the scores, while torch's function scales queries and keys."""
    settings = make_config("bert", layers=4, hidden=64, neurons=256, vocabulary=1000)
    eager, math = (
        sum(event.size == 4 * ROWS * HEADS * 64 * 64 for event in segments[1].events)
        for segments in (
            traced(settings, FULL, ROWS, 64, software=Software(kind)).segments for kind in ("eager", "math")
        )
    )
    assert eager > math > 0


# The optimizer.


def test_foreach_copies_all_matrices() -> None:
    """AdamW's temporaries are one number per element of every trained matrix; the loop has three of the largest.

    Only memory at the optimizer's moment differs.
    """
    config = make_config("bert", layers=4, hidden=64, neurons=256, vocabulary=1000)
    pricer = Pricer(config, Head(), 1, 8, make_profile())
    loop, foreach = (pricer.price(FULL, plan) for plan in (StepPlan(), FOREACH))
    step = pricer.table(FOREACH).compose([FULL])
    groups = [step.tensors[i] for i in step.tensors_of[:, 0]]
    matrices = sum(group.sizes(0)[group.matrices].sum() for group in groups)
    assert foreach.memory["temporaries"] == pytest.approx(4 * matrices / 2**20)
    assert foreach.memory["optimizer"] == loop.memory["optimizer"]
    assert foreach.time["optimizer"] < loop.time["optimizer"], "fewer launches of as much work"


def test_cost_without_a_plan_uses_the_default_optimizer_kernel() -> None:
    settings = make_config("bert", layers=4, hidden=64, neurons=256, vocabulary=1000)
    profile = make_profile(foreach=True)
    assert ordinary_plan(profile) == FOREACH
    assert ordinary_plan(make_profile()) == StepPlan()
    pricer = Pricer(settings, Head(), 1, 8, profile)
    assert pricer.price(FULL) == pricer.price(FULL, FOREACH) != pricer.price(FULL, StepPlan())
    prepared = pricer.price_prepared(lambda _model, _layout: None, 1.0)
    assert prepared.tensor_peak_mib == pytest.approx(pricer.price(FULL).tensor_peak_mib)


def test_foreach_steps_at_the_end() -> None:
    """It steps all parameters at once, so it can't step in the backward pass."""
    with pytest.raises(BadInput, match="optimizer_kernel is 'foreach' and optimizer_step 'backward'"):
        StepPlan(optimizer_kernel="foreach", optimizer_step="backward")


@pytest.mark.parametrize(
    ("kind", "version", "kernel", "size"),
    [
        ("cpu", "1.10", "loop", 0),
        ("cpu", "1.11", "loop", 0),
        ("cpu", "1.12", "loop", 4),
        ("cuda", "2.13", "loop", 0),
        ("cuda", "2.13", "foreach", 0),
        ("cuda", "2.13", "fused", 4),
    ],
)
def test_location_of_adamw_step_counts(kind: Any, version: str, kernel: str, size: int) -> None:
    """They are in Python, on the CPU, or beside the parameters."""
    assert step_count_bytes(make_profile(kind=kind, torch=version, attention="eager"), kernel) == size


# The attention.


def saved_storages(call: Callable[[], Tensor]) -> dict[int, int]:
    """Return the bytes of each storage that autograd saves for a call on meta tensors."""
    saved = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return saved


@pytest.mark.parametrize("length", [32, 40])
def test_fused_attention_saves_no_probabilities(length: int) -> None:
    """It saves queries, keys, values, output, float mask, a logarithm per row (rounded up to 32) and two seeds."""
    with meta_tensors():
        mask = torch.ones(ROWS, 1, length, length, dtype=torch.bool)
        q, k, v = (torch.zeros(ROWS, HEADS, length, SIZE, requires_grad=True) for _ in range(3))
    with emulated(Software("fused")):
        saved = saved_storages(lambda: F.scaled_dot_product_attention(q, k, v, mask, 0.1))
    hidden, rows = ROWS * HEADS * length * SIZE, ROWS * HEADS * -(-length // 32) * 32
    expected = [4 * hidden] * 4 + [4 * rows, 4 * ROWS * length * length, 8, 8]
    assert sorted(saved.values()) == sorted(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_attention_changes_the_saved_memory_of_a_step(family: str) -> None:
    """Each layer saves a logarithm, a mask and seeds instead of probabilities, their mask and the dropped ones.

    The output is saved by the next map anyway.
    """
    settings = make_config(family, layers=4, hidden=64, neurons=256, vocabulary=1000)
    math, fused = (
        sum(
            event.size
            for segment in traced(settings, FULL, ROWS, 64, software=Software(kind)).segments[:6]
            for event in segment.events
            if event.kind in ("saved", "mask")
        )
        for kind in ("math", "fused")
    )
    scores = ROWS * HEADS * 64 * 64
    assert math - fused == 4 * (4 * (3 * scores - ROWS * HEADS * 64 - ROWS * 64 * 64) - 16)


# The torch version.


def saved_mib(software: Software) -> float:
    """Return the MiB that DistilBERT saves for the backward pass, batch 16, length 128."""
    config = load_config(ModelSource("distilbert-base-uncased", "distilbert-base-uncased"), with_known=True)
    step = StepTable(config, Head(), 16, software=software).compose([full_fine_tuning(6)])
    saved_kinds = [EVENT_KINDS.index(kind) for kind in ("saved", "mask")]
    forward = [step.parts[i] for i in step.part_of[:8, 0]]
    events = ((part.sizes(128, 0), part.event_kinds) for part in forward)
    return float(
        sum(size for sizes, kinds in events for size, kind in zip(sizes, kinds, strict=True) if kind in saved_kinds)
        / 2**20
    )


def test_distilbert_saves_more_with_an_old_torch() -> None:
    """Within 1 % of the saved tensors measured with torch 1.10 (918 MiB) and 2.x (846 MiB)."""
    assert saved_mib(OLD) == pytest.approx(918, rel=0.01)
    assert saved_mib(Software()) == pytest.approx(846, rel=0.01)
    assert saved_mib(OLD) - saved_mib(Software("eager")) == pytest.approx(6 * 4 * 16 * 12 * 128 * 128 / 2**20)


def test_softmax_of_an_old_torch_computes_the_same() -> None:
    """Values and gradients are torch's; its input is saved only if a gradient is needed."""
    x = torch.randn(3, 5, requires_grad=True)
    results: list[tuple[Tensor, ...]] = []
    for software in (Software("eager"), OLD):
        with emulated(software):
            y = F.softmax(x, dim=-1)
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    for own, expected in zip(*results, strict=True):
        assert torch.equal(own, expected)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), emulated(OLD):
            assert len(saved_storages(lambda: torch.softmax(x * 2, -1))) == (2 if grad else 0)


def test_dropout_of_an_old_torch_is_traced_as_executed() -> None:
    """Words are drawn and shifted to give the same bits, and the traced peak is the profiler's."""
    x = torch.zeros(64, 33)
    with emulated(OLD):
        torch.manual_seed(1)
        old = dropped(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(old, dropped(x, 0.5))
    module = SeededDropout(nn.Dropout(0.5))
    with meta_tensors():
        like = torch.zeros(64, 33)
    peaks = {}
    for software in (OLD, Software("eager")):
        with emulated(software):
            measured = allocated_peak(lambda: module(x))
            events = trace_call(lambda: module(like), [like]).events
        level = torch.tensor([event.size for event in events]).cumsum(0)
        peaks[software.old] = int(level.max())
        assert peaks[software.old] == pytest.approx(measured, abs=2 * 5056)  # generator state
    assert peaks[True] > peaks[False]


def test_software_key_has_only_what_changes_a_trace() -> None:
    """It has the attention, and torch's version if the memory of a step changes; nothing else of a profile."""
    one = software_of(make_profile(torch="1.10", attention="eager"), 128)
    assert one == OLD
    assert software_of(make_profile(torch="1.10.2", attention="eager", foreach=True), 128) == one
    assert software_of(make_profile(torch="1.11", attention="eager"), 128) == Software("eager")
    assert software_of(make_profile(torch="2.1", attention="fused"), 128) == Software("fused")
    assert len({one, software_of(make_profile(torch="1.10", attention="eager", workspace_mib=figure(8)), 128)}) == 1


@pytest.mark.parametrize(
    ("length", "blocks"), [(20, (0, 0)), (128, (32, 0)), (192, (64, 0)), (600, (64, 512)), (800, (256, 512))]
)
def test_blocks_of_the_cpu_kernel_depend_on_the_length(length: int, blocks: tuple[int, int]) -> None:
    """The numbers are torch's own; a board has four threads, a calibrated profile those of this host."""
    assert software_of(make_profile(), length).flash == (4, *blocks)
    here = software_of(make_profile(basis="calibrated"), length).flash
    assert here == (torch.get_num_threads(), *blocks)


@pytest.mark.parametrize("change", [{"torch": "2.2"}, {"attention": "eager"}, {"kind": "cuda", "attention": "fused"}])
def test_devices_without_the_cpu_attention_kernel(change: dict[str, str]) -> None:
    """It supports a mask since torch 2.3, and only torch's own function calls it."""
    assert software_of(make_profile(**change), 128).flash is None


@pytest.mark.parametrize("length", [12, 64, 200, 600])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_without_dropout_is_traced_as_executed(length: int, masked: bool) -> None:
    """The peak of torch's function, forward and backward, is the profiler's, including buffers of its threads."""

    def step() -> None:
        q, k, v = (torch.zeros(ROWS, length, HEADS, SIZE, requires_grad=True).transpose(1, 2) for _ in range(3))
        mask = torch.ones(ROWS, 1, length, length, dtype=torch.bool) if masked else None
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask).square().sum().backward()

    measured = allocated_peak(step)
    with emulated(software_of(make_profile(basis="calibrated"), length)), meta_tensors():
        events = trace_call(step, []).events
    assert int(torch.tensor([event.size for event in events]).cumsum(0).max()) == measured


def test_devices_share_tables_only_with_equal_software() -> None:
    """A board costs the same as alone after boards with other software were priced."""
    settings = make_config("distilbert", layers=4, hidden=64, neurons=256, vocabulary=1000)
    profiles = [make_profile(torch="1.10", attention="eager"), make_profile(attention="fused")]
    plan = exact_plans(profiles[0])[-1]
    tables: dict[Any, StepTable] = {}
    for profile in profiles:
        for each in (None, plan):
            shared = Pricer(settings, Head(), 8, 64, profile, tables=tables).price(FULL, each)
            assert shared == Pricer(settings, Head(), 8, 64, profile).price(FULL, each)
    assert len(tables) == 4


@pytest.mark.parametrize("attention", ["math", "fused"])
def test_old_torch_has_no_attention_function(attention: Any) -> None:
    """Such a profile is refused, with both values and the rule."""
    with pytest.raises(ProfileError, match=f"attention is '{attention}'; it must be 'eager' with torch 1.13"):
        make_profile(torch="1.13.1", attention=attention)
