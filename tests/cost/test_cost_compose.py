"""Composed steps have the same events and operations as traces of the whole model, to the byte."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from farsearch.cost.operations import CATEGORIES, FEATURES, OPERATION_KINDS
from farsearch.cost.segments import EVENT_KINDS, Composed
from farsearch.cost.step_table import StepTable
from farsearch.errors import BadInput
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import order_of, traced
from tests.tiny import FAMILIES, make_config

LAYERS = 3


LEAN = StepPlan(attention="recompute", dropout="seed", layer_norm="output", feed_forward="store")
PLANS = {
    "modules": StepPlan(),
    "store": LEAN,
    "compact": dataclasses.replace(LEAN, feed_forward="compact"),
    "recompute": dataclasses.replace(LEAN, feed_forward="recompute", frozen_dtype="bfloat16", optimizer="sgd"),
    "checkpointing": dataclasses.replace(LEAN, checkpointing=True),
    "bfloat16": dataclasses.replace(LEAN, precision="bfloat16", checkpointing=True),
    "float16": dataclasses.replace(LEAN, precision="float16"),
}


OTHER = FarConfig((0.5, 0.0, 1.0), 1e-4, 1.0)
"""Composed together with the tested one: configurations must be independent."""


def trained_tensors(composed: Composed, i: int) -> list[int]:
    """Return the elements of each trained tensor of a configuration, in the model's order."""
    groups = zip(composed.tensors_of[:, i], composed.tensor_learners[:, i], strict=True)
    return [round(size) for at, learners in groups for size in composed.tensors[at].sizes(learners)]


def composed_steps(
    family: str, seed: int, count: int, batch_size: int, plan: StepPlan, chunk_rows: int | None
) -> Iterator[tuple[Any, ...]]:
    """Return a strategy for random configurations and lengths, with their step table.

    Lengths are even: dropout draws elements in groups of four, and a remainder of one to three takes another operation.
    """
    shuffler = random.Random(seed)
    # with 264 neurons the frozen ones can be padded
    neurons = 264 if plan.feed_forward == "store" else 40
    model = make_config(family, layers=LAYERS, hidden=16, neurons=neurons, heads=4)
    table = StepTable(model, Head(), batch_size, plan, chunk_rows)
    for _ in range(count):
        config = FarConfig(
            frozen_fractions=tuple(shuffler.choice([0.0, 0.05, 0.5, 0.9, 1.0]) for _ in range(LAYERS)),
            learning_rate=1e-4,
            epochs=1.0,
            frozen_embeddings=shuffler.random() < 0.5,
            frozen_attention_layers=shuffler.choice([0, 0, 1, 2, 3]),
            frozen_bottom_layers=shuffler.choice([0, 0, 0, 1, 2, 3]),
            frozen_heads=tuple(shuffler.choice([0.0, 0.25, 0.5, 0.75, 1.0]) for _ in range(LAYERS)),
        )
        yield table, model, config, shuffler.choice([6, 10, 24, 34, 90])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "batch_size", "count", "chunk_rows"),
    [
        ("modules", 3, 5, None),
        pytest.param("modules", 1, 40, None, marks=pytest.mark.slow),
        ("store", 3, 1, 2),
        ("compact", 3, 1, 1),
        ("recompute", 3, 1, 2),
        ("checkpointing", 3, 1, 2),
        ("bfloat16", 3, 1, 2),
        ("float16", 3, 1, 1),
        *(pytest.param(name, 2, 20, 1, marks=pytest.mark.slow) for name in PLANS if name != "modules"),
    ],
)
def test_composed_step_equals_the_trace(
    family: str, name: str, batch_size: int, count: int, chunk_rows: int | None
) -> None:
    """Sizes and kinds of allocations, work and bytes of operations, and trained tensors are equal.

    The direct trace runs the model with all its layers; the table has seen only models of three layers at other
    lengths and learner counts. So memory at every moment and operations are exactly equal.
    """
    plan = PLANS[name]
    for table, model, config, length in composed_steps(family, 7 + batch_size, count, batch_size, plan, chunk_rows):
        direct = traced(model, config, batch_size, length, plan, chunk_rows)
        composed = table.compose([OTHER, config])
        assert composed.static_bytes[1] == direct.static, config
        assert trained_tensors(composed, 1) == direct.trained, config
        assert len(composed.part_of) == len(direct.segments)
        for place, at, learners, segment in zip(
            order_of(LAYERS), composed.part_of[:, 1], composed.learners[:, 1], direct.segments, strict=True
        ):
            where, part = (config, length, place), composed.parts[at]
            exact = part.sizes(length, learners)
            sizes = np.rint(exact).tolist()
            assert sizes == [event.size for event in segment.events], where
            assert [EVENT_KINDS[i] for i in part.event_kinds] == [event.kind for event in segment.events], where
            assert [OPERATION_KINDS[i] for i in part.operation_kinds] == [op.kind for op in segment.operations], where
            assert [CATEGORIES[i] for i in part.categories] == [op.category for op in segment.operations], where
            work = [[getattr(op, name) for name in FEATURES] for op in segment.operations]
            assert np.rint(part.work(length, learners)).tolist() == work, where
            assert np.abs(exact - sizes).max(initial=0) < 1e-3, where


def test_equal_trainings_have_equal_prices() -> None:
    """A frozen bottom implies the other settings of its layers, explicit or not."""
    table = StepTable(make_config("bert", hidden=16, neurons=40), Head(), 2)
    short = FarConfig((0.3, 0.5), 1e-4, 1.0, frozen_bottom_layers=1)
    long = FarConfig((1.0, 0.5), 1e-4, 1.0, 0.0, True, 1, 1)
    both = table.compose([short, long])
    for numbers in (both.part_of, both.learners, both.tensors_of, both.tensor_learners, both.static_bytes[None]):
        assert (numbers[:, 0] == numbers[:, 1]).all()


def test_configuration_of_another_model_is_refused() -> None:
    """It has fractions for another number of layers."""
    table = StepTable(make_config("bert", hidden=16, neurons=40), Head(), 2)
    with pytest.raises(BadInput, match="3 frozen fractions; the model has 2 layers"):
        table.compose([FarConfig((0.3, 0.5), 1e-4, 1.0), FarConfig((0.3, 0.5, 0.1), 1e-4, 1.0)])


def test_table_describes_the_whole_model() -> None:
    """Layers, neurons and parameters are those of the configuration, not of the three traced layers."""
    table = StepTable(make_config("distilbert", layers=5, hidden=16, neurons=40), Head(outputs=3), 2)
    assert (table.layers, table.width) == (5, 40)
    full = table.compose([FarConfig((0.0,) * 5, 1e-4, 1.0)])
    assert sum(trained_tensors(full, 0)) == table.parameters
    # DistilBERT's only buffer has its positions, 128 of eight bytes
    assert full.static_bytes == 4 * table.parameters + 8 * 128
