"""Predicted costs of a job: naive memory and time, monotonicity, and constraints."""

from __future__ import annotations

import dataclasses
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.cost.pricer import Price, Pricer, full_fine_tuning, priming_plan
from farsearch.cost.step_table import StepTable
from farsearch.cost.traced_model import TableKey
from farsearch.devices.registry import load_profile
from farsearch.far.batches import phase_batches
from farsearch.far.selection import learner_counts
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import Traced, figure, make_profile, naive_peak_mib, naive_step_seconds, traced
from tests.tiny import make_config

LAYERS, BATCH = 3, 8
MODEL = make_config("bert", layers=LAYERS, hidden=32, neurons=128, vocabulary=400)
SHUFFLER = random.Random(5)
LENGTHS = [SHUFFLER.randint(4, 60) for _ in range(50)]

FULL = full_fine_tuning(LAYERS)
UNEVEN = FarConfig((0.9, 0.5, 0.3), 1e-4, 1.0)
NARROW = FarConfig((1.0, 0.9, 0.5), 1e-4, 1.0, frozen_embeddings=True, frozen_attention_layers=1)
plans = st.sampled_from([StepPlan(), StepPlan(micro_batch_size=2), StepPlan("sgd")])


TABLES: dict[TableKey, StepTable] = {}
"""Shared by all tests: tracing takes seconds, and depends only on the model."""
SIX: dict[TableKey, StepTable] = {}
"""Of the same model with six layers."""


def pricer(max_length: int = 48, **settings: Any) -> Pricer:
    """Return a pricer of batches of 8."""
    defaults = {"profile": make_profile(), "lengths": LENGTHS, "seed": 3, "tables": TABLES}
    return Pricer(MODEL, Head(), BATCH, max_length, **{**defaults, **settings})


def board(**figures: Any) -> Pricer:
    """Return a pricer on a board with these figures."""
    return pricer(profile=make_profile(**figures))


@cache
def directly(config: FarConfig, rows: int, length: int, optimizer: str = "adamw") -> Traced:
    """Trace the step of the model itself."""
    return traced(MODEL, config, rows, length, StepPlan(optimizer))  # type: ignore[arg-type]


# Memory.

BOARDS: list[dict[str, Any]] = [
    {},
    {"dropout_mask_bytes": figure(1)},
    {"allocator_block_bytes": figure(512)},
    {"workspace_mib": figure(8.125)},
    {"dropout_mask_bytes": figure(1), "allocator_block_bytes": figure(512), "workspace_mib": figure(8)},
]


@pytest.mark.parametrize("figures", BOARDS, ids=lambda figures: "-".join(figures) or "plain")
@pytest.mark.parametrize("config", [FULL, NARROW], ids=["full", "narrow"])
@pytest.mark.parametrize(
    "plan", [StepPlan(), StepPlan(micro_batch_size=2), StepPlan("sgd")], ids=["whole", "micro", "sgd"]
)
def test_peak_is_the_highest_level_of_a_naive_sum(figures: dict[str, Any], config: FarConfig, plan: StepPlan) -> None:
    """Sum event by event with the device's masks, blocks, workspace, micro-batches and optimizer."""
    rows = plan.micro_batch_size or BATCH
    direct = directly(config, rows, 48, plan.optimizer)
    expected = naive_peak_mib(direct, make_profile(**figures), plan.micro_batch_size is not None)
    cost = board(**figures).price(config, plan)
    assert cost.tensor_peak_mib == pytest.approx(expected, rel=1e-12)
    assert sum(cost.memory.values()) == pytest.approx(cost.tensor_peak_mib)
    assert all(value >= 0 for value in cost.memory.values()), cost.memory
    assert cost.trainable == sum(direct.trained)


def test_adamw_state_is_two_tensors_per_parameter() -> None:
    """Each trained parameter has two moments, each tensor a step count; SGD has no state."""
    for config in (FULL, UNEVEN, NARROW):
        direct = directly(config, 1, 8)
        cost = board().price(config)
        assert cost.memory["optimizer"] * 2**20 == pytest.approx(8 * cost.trainable + 4 * len(direct.trained))
        assert board().price(config, StepPlan("sgd")).memory["optimizer"] == 0


def test_masks_of_one_byte_save_three_quarters_of_the_mask_memory() -> None:
    """Only the saved dropout masks change.

    The hidden state has one after the embeddings and two per layer, attention probabilities one per layer, 2 heads of
    48 × 48.
    """
    masks = 4 * BATCH * 48 * (32 * (1 + 2 * LAYERS) + 2 * 48 * LAYERS)
    wide, narrow = board().price(FULL), board(dropout_mask_bytes=figure(1)).price(FULL)
    saved = (wide.memory["saved"] - narrow.memory["saved"]) * 2**20
    assert wide.memory["temporaries"] == narrow.memory["temporaries"]
    # the peak is in the backward pass of the top layer, when its output mask is already freed
    assert 0.75 * (masks - 2 * 4 * BATCH * 48 * 32) <= saved <= 0.75 * masks


def test_memory_of_full_fine_tuning_by_category() -> None:
    """Parameters are those of the model, and saved tensors grow with the batch while parameters do not."""
    cost = board().price(FULL)
    direct = directly(FULL, 1, 8)
    assert cost.memory["parameters"] == direct.static / 2**20
    parts = board().price(FULL, StepPlan(micro_batch_size=2))
    assert parts.memory["parameters"] == cost.memory["parameters"]
    assert parts.memory["saved"] == pytest.approx(cost.memory["saved"] / 4, rel=0.2)
    assert parts.memory["gradients"] * 2**20 == pytest.approx(4 * cost.trainable)


fractions = st.floats(0.02, 1)
FROZEN = ((False, 0, 0), (True, 0, 0), (True, 2, 0), (True, 2, 2), (True, 3, 3))
"""Embeddings, layers of attention, bottom layers: each includes the ones before."""


def make_far(frozen: int, shares: tuple[float, ...]) -> FarConfig:
    """Return a configuration with ``FROZEN[frozen]`` and these fractions of frozen neurons."""
    embeddings, attention, bottom = FROZEN[frozen]
    return FarConfig(shares, 1e-4, 1.0, 0.0, embeddings, attention, bottom)


settings = st.tuples(st.integers(0, len(FROZEN) - 1), st.tuples(fractions, fractions, fractions))
far_configs = settings.map(lambda drawn: make_far(*drawn))


def no_slower(small: Price, large: Price) -> None:
    """Assert that total time, step time and trained tensors do not increase."""
    assert small.step_time_s <= large.step_time_s * (1 + 1e-12)
    assert small.wall_time_s <= large.wall_time_s * (1 + 1e-12)
    assert small.trainable <= large.trainable
    assert small.memory["optimizer"] <= large.memory["optimizer"]


def learners(config: FarConfig) -> list[int]:
    """Return the number of learners per layer."""
    canonical = config.canonical()
    counts = learner_counts(128, canonical.frozen_fractions, canonical.frozen_bottom_layers)
    return [count or 0 for count in counts]


@given(one=settings, other=settings, plan=st.sampled_from([StepPlan(), StepPlan("sgd")]))
def test_more_freezing_never_costs_more(one: Any, other: Any, plan: StepPlan) -> None:
    """Freeze more in all five settings at once, between layers that are split.

    Time and retained memory decrease without exception. The temporaries in the backward pass of one block may not: a
    frozen neuron has three numbers per token there (pre-activation and two gradients), and the learner's tensors are
    gone. So the peak may increase by the size of the newly frozen neurons of one layer.

    Between a split layer and an untouched one time need not decrease: a split one runs more and smaller operations, as
    the paper's own times show (560 s at r = 90 %, 544 s for full fine-tuning).
    """
    more, less = (make_far(pick(one[0], other[0]), tuple(map(pick, one[1], other[1]))) for pick in (max, min))
    small, large = board().price(more, plan), board().price(less, plan)
    no_slower(small, large)
    newly = max(a - b for a, b in zip(learners(less), learners(more), strict=True))
    assert small.tensor_peak_mib <= large.tensor_peak_mib + 3 * newly * BATCH * 48 * 4 / 2**20


@given(shares=st.tuples(fractions, fractions), plan=st.sampled_from([StepPlan(), StepPlan("sgd")]))
def test_evenly_frozen_layers_need_less(shares: tuple[float, float], plan: StepPlan) -> None:
    """In six layers the savings of all outweigh the temporaries of one."""
    model = make_config("bert", layers=6, hidden=32, neurons=128, vocabulary=400)
    deep = Pricer(model, Head(), BATCH, 48, make_profile(), lengths=LENGTHS, tables=SIX)
    low, high = (deep.price(FarConfig((share,) * 6, 1e-4, 1.0), plan) for share in sorted(shares))
    assert high.tensor_peak_mib <= low.tensor_peak_mib
    no_slower(high, low)


@given(config=far_configs, plan=plans)
def test_far_costs_less_than_full_fine_tuning(config: FarConfig, plan: StepPlan) -> None:
    """With two fifths of the neurons frozen every plan saves memory."""
    frozen = dataclasses.replace(config, frozen_fractions=tuple(max(0.4, f) for f in config.frozen_fractions))
    assert board().price(frozen, plan).tensor_peak_mib < board().price(FULL, plan).tensor_peak_mib


@given(config=far_configs, plan=plans, one=st.integers(4, 128), other=st.integers(4, 128))
def test_longer_rows_are_never_cheaper(config: FarConfig, plan: StepPlan, one: int, other: int) -> None:
    """More tokens need at least as much memory and time."""
    short, long = (pricer(length).price(config, plan) for length in sorted((one, other)))
    no_slower(short, long)
    assert short.tensor_peak_mib <= long.tensor_peak_mib


@given(config=far_configs, length=st.integers(4, 128))
def test_smaller_micro_batches_never_need_more_memory(config: FarConfig, length: int) -> None:
    """They need at least as much time."""
    small, large = (pricer(length).price(config, StepPlan(micro_batch_size=size)) for size in (2, 4))
    assert small.tensor_peak_mib <= large.tensor_peak_mib
    assert small.step_time_s >= large.step_time_s


def test_micro_batches_save_memory_if_activations_dominate() -> None:
    """Micro-batches of two rows need less memory than the batch of eight.

    If gradients are larger than activations, as with four tokens, it may be more: with micro-batches all gradients are
    held while activations grow. The real step confirms this (``few-tokens`` in test_cost_real.py).
    """
    plan = StepPlan(micro_batch_size=2)
    for config in (FULL, UNEVEN, NARROW):
        assert board().price(config, plan).tensor_peak_mib < 0.7 * board().price(config).tensor_peak_mib
    few = [pricer(4).price(FULL, StepPlan(micro_batch_size=size)).tensor_peak_mib for size in (4, None)]
    assert few[0] > few[1]


@pytest.mark.parametrize("size", [8, 9, 100])
def test_micro_batch_of_the_whole_batch_changes_nothing(size: int) -> None:
    assert board().price(UNEVEN, StepPlan(micro_batch_size=size)) == board().price(UNEVEN)


# Time.


def test_smaller_last_micro_batch_takes_less_time() -> None:
    """Of 8 rows in micro-batches of 3 the last has 2: the products of both sizes are counted."""
    eight, three, two = (
        Pricer(MODEL, Head(), rows, 48, make_profile(), tables=TABLES).price(UNEVEN, StepPlan(micro_batch_size=part))
        for rows, part in ((8, 3), (3, None), (2, None))
    )
    for kind in ("gemm", "bmm"):
        assert eight.time[kind] == pytest.approx(2 * three.time[kind] + two.time[kind])


@pytest.mark.parametrize("config", [FULL, NARROW], ids=["full", "narrow"])
@pytest.mark.parametrize("micro", [None, 2], ids=["whole", "micro"])
def test_wall_time_is_the_sum_over_batches(config: FarConfig, micro: int | None) -> None:
    """Each batch of each epoch is priced at its padded length, operation by operation."""
    plan = StepPlan(micro_batch_size=micro)
    config = dataclasses.replace(config, epochs=1.7)
    rows, parts = (BATCH, 1) if micro is None else (micro, 4)
    batches = phase_batches([min(length, 48) for length in LENGTHS], BATCH, 1.7, 3)
    assert len(batches) == 12

    @cache
    def step(length: int) -> float:
        return naive_step_seconds(directly(config, rows, length), make_profile(), BATCH * length, parts)

    expected = sum(step(max(min(LENGTHS[row], 48) for row in batch)) for batch in batches)
    cost = board().price(config, plan)
    assert cost.wall_time_s == pytest.approx(expected, rel=1e-5)
    assert sum(cost.time.values()) == pytest.approx(cost.wall_time_s, rel=1e-12)
    assert cost.step_time_s == pytest.approx(step(48), rel=1e-5)


def test_time_scales_with_the_rates_of_the_profile() -> None:
    """Twice the rates and half the overheads give half the time; the range is the profile's factor."""
    slow = board().price(UNEVEN)
    fast = pricer(
        profile=make_profile(
            gemm_gflops=figure(80), bmm_gflops=figure(18), bandwidth_gbs=figure(10), launch_us=figure(3.5),
            step_us=figure(45), token_us=figure(0.25),
        )
    ).price(UNEVEN)  # fmt: skip
    assert fast.wall_time_s == pytest.approx(slow.wall_time_s / 2)
    assert slow.wall_time_range_s == (0.5 * slow.wall_time_s, 2.5 * slow.wall_time_s)
    assert slow.energy_j == pytest.approx(10 * slow.wall_time_s)
    assert pricer(profile=make_profile(power_w=None)).price(UNEVEN).energy_j is None


def test_epochs_scale_time_but_not_memory() -> None:
    """Three epochs take as long as the sum of their batches."""
    one, three = board().price(FULL), board().price(dataclasses.replace(FULL, epochs=3.0))
    assert three.wall_time_s == pytest.approx(3 * one.wall_time_s, rel=0.1)
    assert three.tensor_peak_mib == one.tensor_peak_mib


def test_device_samples_scale_time() -> None:
    """``device_samples`` prices as many rows of the same lengths."""
    cost = pricer(device_samples=5000).price(FULL)
    assert cost.wall_time_s == pytest.approx(100 * board().price(FULL).wall_time_s)
    assert cost.tensor_peak_mib == board().price(FULL).tensor_peak_mib
    assert cost.step_time_s == board().price(FULL).step_time_s


def test_one_step_at_full_length_is_priced_without_rows() -> None:
    cost = pricer(lengths=None).price(FULL)
    assert cost.wall_time_s == pytest.approx(cost.step_time_s)
    assert cost.step_time_s == board().price(FULL).step_time_s


def test_texts_are_truncated_before_pricing() -> None:
    """A row beyond ``max_length`` costs as much as one of that length, in the same batches."""
    cut = pricer(lengths=[min(length, 48) for length in LENGTHS])
    assert cut.price(UNEVEN) == pricer(lengths=LENGTHS).price(UNEVEN)


# Priming.

PRIMED = dataclasses.replace(NARROW, priming_epochs=0.5)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_priming_on_the_device_adds_its_phase(optimizer: str) -> None:
    """The peak is the larger one of both phases, time is their sum, and the step is that of the FAR phase."""
    device = pricer(prime_on_device=True, priming_optimizer=optimizer)
    host, cost = board().price(PRIMED), device.price(PRIMED)
    plan = priming_plan(optimizer, BATCH)
    assert plan == StepPlan(optimizer, 2)  # type: ignore[arg-type]
    priming = board().price(dataclasses.replace(FULL, epochs=0.5), plan)
    assert cost.tensor_peak_mib == max(host.tensor_peak_mib, priming.tensor_peak_mib)
    assert cost.wall_time_s == pytest.approx(host.wall_time_s + priming.wall_time_s)
    assert cost.time["priming"] == pytest.approx(priming.wall_time_s)
    assert cost.step_time_s == host.step_time_s
    assert cost.trainable == host.trainable
    assert sum(cost.memory.values()) == pytest.approx(cost.tensor_peak_mib)


def test_priming_determines_the_peak_only_at_few_tokens() -> None:
    """There AdamW's state of all parameters exceeds a narrow FAR phase; at many tokens it does not."""
    for length, is_peak in ((4, True), (48, False)):
        far = pricer(length).price(PRIMED).tensor_peak_mib
        both = pricer(length, prime_on_device=True).price(PRIMED).tensor_peak_mib
        assert (both > far) == is_peak


def test_priming_elsewhere_costs_the_device_nothing() -> None:
    """The device has no cost with priming on the host or with 0 epochs."""
    assert "priming" not in board().price(PRIMED).time
    assert pricer(prime_on_device=True).price(NARROW) == board().price(NARROW)


# Feasibility.


def with_room(low: float) -> Pricer:
    """Return a board with at least ``low`` MiB for a process, and up to 300 more."""
    return pricer(profile=make_profile(visible_mib=figure(low + 500, low + 500, low + 600)))


def test_process_memory_is_part_of_the_peak() -> None:
    """The central figure includes the central process memory, the range its range."""
    cost = board().price(UNEVEN)
    assert cost.peak_memory_mib == cost.tensor_peak_mib + 300
    assert cost.peak_memory_range_mib == (cost.tensor_peak_mib + 250, cost.tensor_peak_mib + 420)
    assert cost.available_range_mib == (4096.0 - 500.0, 4096.0 - 300.0)
    assert cost.fits


def test_high_end_of_the_peak_must_fit_the_low_end_of_the_memory() -> None:
    """An equal amount fits, a byte less does not, and the message has both figures."""
    high = board().price(UNEVEN).peak_memory_range_mib[1]
    cost = with_room(high).price(UNEVEN)
    assert cost.available_range_mib[0] == pytest.approx(high)
    assert with_room(high + 1e-6).price(UNEVEN).fits
    tight = with_room(high - 1e-6).price(UNEVEN)
    assert not tight.fits
    assert len(tight.problems) == 1
    assert tight.problems[0].startswith(f"memory: up to {high:.0f} MiB, test-board surely has {high:.0f} MiB")


def test_user_limits_apply_to_the_central_figures() -> None:
    """Each violated limit is a separate problem."""
    cost = board().price(UNEVEN)
    memory, time = cost.peak_memory_mib, cost.wall_time_s
    assert pricer(max_memory_mib=memory, max_time_s=time).price(UNEVEN).fits
    both = pricer(max_memory_mib=0.99 * memory, max_time_s=0.99 * time).price(UNEVEN)
    assert [problem.split(":")[0] for problem in both.problems] == ["max-memory", "max-time"]
    assert not pricer(max_time_s=0.99 * time).price(UNEVEN).fits


def test_shipped_board_can_be_priced() -> None:
    """With its blocks, workspace and masks the Jetson Nano needs slightly more than bare tensors without masks."""
    nano = pricer(profile=load_profile("jetson-nano"))
    cost = nano.price(UNEVEN)
    assert cost.fits
    assert 8 < cost.tensor_peak_mib < board().price(UNEVEN).tensor_peak_mib + 8.5
    assert cost.wall_time_range_s[0] < cost.wall_time_s < cost.wall_time_range_s[1]
