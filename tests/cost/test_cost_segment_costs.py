"""Vectorised costs of many configurations equal single prices and naive loops over traces."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from farsearch.cost.pricer import Pricer, Prices
from farsearch.cost.traced_model import shared_tables
from farsearch.devices.rates import PRODUCTS, ProductRate, Rates, StreamRate
from farsearch.far.batches import phase_batches
from farsearch.far.execution import rows_at_once
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import figure, make_profile, naive_peak_mib, naive_step_seconds, traced
from tests.tiny import make_config

LAYERS, BATCH, LENGTH = 3, 4, 24
LENGTHS = [random.Random(2).choice([6, 10, 24, 30]) for _ in range(10)]

LEAN = StepPlan(attention="recompute", dropout="seed", layer_norm="output", feed_forward="store")
PLANS = {
    "modules": StepPlan(),
    "foreach": StepPlan(optimizer_kernel="foreach"),
    "fused": StepPlan(optimizer_kernel="fused"),
    "loop, backward": dataclasses.replace(LEAN, optimizer_step="backward"),
    "micro": StepPlan(optimizer="sgd", micro_batch_size=2),
    "backward": dataclasses.replace(LEAN, optimizer_step="backward", optimizer_kernel="fused"),
    "half": dataclasses.replace(LEAN, feed_forward="recompute", frozen_dtype="bfloat16", micro_batch_size=2),
    "checkpointing": dataclasses.replace(LEAN, checkpointing=True),
}

RATES = Rates(
    conditions={},
    bare_us=3.0,
    products={
        kind: ProductRate(20.0 + i, 0.3, 0.2 + 0.1 * i, 0.4, 0.5 * i, 2.0) for i, kind in enumerate(PRODUCTS[:4])
    },
    streams={
        "arithmetic": StreamRate((0.001, 0.01, 0.1), (1.0, 4.0, 60.0)),
        "norm": StreamRate((0.01,), (9.0,)),
        "in_place": StreamRate((0.004, 0.02), (2.0, 3.0)),
    },
)
BOARDS = {
    "plain": make_profile(),
    "blocks": make_profile(allocator_block_bytes=figure(512), dropout_mask_bytes=figure(1), workspace_mib=figure(8)),
    "rates": dataclasses.replace(make_profile(time_factor=figure(1.25)), rates=RATES),
}


def random_config(shuffler: random.Random) -> FarConfig:
    """Draw the settings of each layer independently."""
    return FarConfig(
        frozen_fractions=tuple(shuffler.choice([0.0, 1.0, *(shuffler.random() for _ in range(4))]) for _ in range(3)),
        learning_rate=1e-4,
        epochs=shuffler.choice([1.0, 1.5, 2.0]),
        priming_epochs=shuffler.choice([0.0, 0.4, 1.0]),
        frozen_embeddings=shuffler.random() < 0.5,
        frozen_attention_layers=shuffler.choice([0, 0, 1, 3]),
        frozen_bottom_layers=shuffler.choice([0, 0, 0, 1, 2, 3]),
        frozen_heads=shuffler.choice([(), tuple(shuffler.choice([0.0, 0.25, 0.5, 0.75, 1.0]) for _ in range(3))]),
    )


def numbers_of(prices: Prices) -> dict[str, Any]:
    """Return all numbers of many prices as a flat list."""
    flat = {name: value for name, value in vars(prices).items() if isinstance(value, np.ndarray)}
    for name in ("memory", "time"):
        flat.update({f"{name} {key}": values for key, values in getattr(prices, name).items()})
    for name in ("peak_memory_range_mib", "wall_time_range_s"):
        flat.update({f"{name} {i}": values for i, values in enumerate(getattr(prices, name))})
    return flat


@pytest.mark.parametrize(
    ("name", "board", "family"),
    [("modules", "blocks", "bert"), ("foreach", "rates", "distilbert"), ("micro", "blocks", "bert"),
     ("backward", "blocks", "distilbert"), ("half", "rates", "bert"), ("half", "rates", "distilbert"),
     ("checkpointing", "plain", "bert"), ("checkpointing", "plain", "distilbert"), ("fused", "plain", "bert"),
     ("loop, backward", "blocks", "distilbert")],
)  # fmt: skip
def test_many_configurations_are_priced_as_by_naive_loops(family: str, name: str, board: str) -> None:
    """Compare memory to the byte, the time of every batch, and trained parameters.

    The loops run over a direct trace of the whole model at each length, event by event and operation by operation.
    """
    shuffler, plan, profile = random.Random(f"{family} {name}"), PLANS[name], BOARDS[board]
    # with 264 neurons the frozen ones can be padded
    model = make_config(family, layers=LAYERS, hidden=16, neurons=264, heads=4, vocabulary=120)
    configs = [random_config(shuffler) for _ in range(5)]
    tables = shared_tables(model, Head())
    prices = Pricer(model, Head(), BATCH, LENGTH, profile, lengths=LENGTHS, seed=5, tables=tables).price_many(
        configs, plan
    )
    rows = plan.micro_batch_size or BATCH
    chunk = None if plan.feed_forward == "modules" else min(rows, rows_at_once((rows, LENGTH, 0)))
    # with one kernel the step counts are among its bytes; the cost model scales all of them by elements
    error = 1e-6 if plan.optimizer_kernel == "loop" else 1e-4
    for i in shuffler.sample(range(len(configs)), 2 if family == "bert" else 1):
        config = configs[i]
        batches = phase_batches([min(length, LENGTH) for length in LENGTHS], BATCH, config.epochs, 5)
        padded = Counter(max(min(LENGTHS[row], LENGTH) for row in batch) for batch in batches)
        steps = {length: traced(model, config, rows, length, plan, chunk) for length in {*padded, LENGTH}}
        whole = steps[LENGTH]
        calls = len(whole.trained) if plan.optimizer_step == "backward" else 1
        seconds = {
            length: naive_step_seconds(step, profile, BATCH * length, BATCH // rows, calls) * profile.time_factor.value
            for length, step in steps.items()
        }
        peak = naive_peak_mib(whole, profile, plan.micro_batch_size is not None)
        assert prices.tensor_peak_mib[i] == pytest.approx(peak, rel=1e-12), config
        assert prices.trainable[i] == sum(whole.trained), config
        assert prices.step_time_s[i] == pytest.approx(seconds[LENGTH], rel=error), config
        wall = sum(count * seconds[length] for length, count in padded.items())
        assert prices.wall_time_s[i] == pytest.approx(wall, rel=error), config


@pytest.mark.parametrize("prime_on_device", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_many_configurations_are_priced_as_single_ones(name: str, prime_on_device: bool) -> None:
    """Costs do not depend on the other configurations or on the order in which the tables were filled.

    The limits are in the middle of the prices, so that some configurations fit and some do not.
    """
    shuffler, plan = random.Random(name), PLANS[name]
    model = make_config("bert", layers=LAYERS, hidden=16, neurons=264, vocabulary=120)
    configs = [random_config(shuffler) for _ in range(20)]
    tables = shared_tables(model, Head())

    def pricer(**bounds: Any) -> Pricer:
        return Pricer(
            model, Head(), BATCH, LENGTH, BOARDS["blocks"], lengths=LENGTHS, tables=tables,
            prime_on_device=prime_on_device,
            **bounds,
        )  # fmt: skip

    free = pricer().price_many(configs, plan)
    bounds = {
        "max_memory_mib": float(np.quantile(free.peak_memory_mib, 0.7)),
        "max_time_s": float(np.quantile(free.wall_time_s, 0.7)),
    }
    prices, alone = pricer(**bounds).price_many(configs, plan), pricer(**bounds)
    assert 0 < prices.fits.sum() < len(configs)
    for i in reversed(range(len(configs))):
        cost, numbers = alone.price(configs[i], plan), {name: values[i] for name, values in numbers_of(prices).items()}
        for key, value in (*cost.memory.items(), ("tensor_peak_mib", cost.tensor_peak_mib)):
            assert numbers.get(f"memory {key}", numbers.get(key)) == pytest.approx(value, rel=1e-12), (key, i)
        for key, value in cost.time.items():
            assert numbers[f"time {key}"] == pytest.approx(value, rel=1e-12), (key, i)
        for key in ("peak_memory_mib", "step_time_s", "wall_time_s", "energy_j", "trainable", "fits"):
            assert numbers[key] == pytest.approx(getattr(cost, key), rel=1e-12), (key, i)
        for key in ("peak_memory_range_mib", "wall_time_range_s"):
            assert [numbers[f"{key} {end}"] for end in (0, 1)] == pytest.approx(getattr(cost, key), rel=1e-12), (key, i)


def test_phases_of_many_lengths_are_computed_again_after_eviction() -> None:
    """More phases than the cache holds are each computed for their own batches."""
    model = make_config("bert", layers=LAYERS, hidden=16, neurons=264, vocabulary=120)
    configs = [FarConfig((0.5, 0.0, 1.0), 1e-4, 0.5 + 0.4 * i) for i in range(30)]
    pricer = Pricer(model, Head(), BATCH, LENGTH, make_profile(), lengths=LENGTHS, tables=shared_tables(model, Head()))
    many = pricer.price_many(configs).wall_time_s
    assert (np.diff(many) >= 0).all()
    assert many.tolist() == pytest.approx([pricer.price(config).wall_time_s for config in configs], rel=1e-12)
    assert pricer.price_many(configs[::-1]).wall_time_s[::-1].tolist() == pytest.approx(many.tolist(), rel=1e-12)
