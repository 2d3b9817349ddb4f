"""Composed compiled steps take the memory that the compiled step of the whole model takes."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
from onnx import shape_inference

from farsearch.cost.compiled import CompiledCosts
from farsearch.cost.plans import compiled_plans, exact_plans
from farsearch.cost.pricer import Pricer
from farsearch.cost.step_table import StepTable
from farsearch.cost.telling_count import TellingCount
from farsearch.cost.traced_model import traced_plan
from farsearch.devices.engines import EngineFigures
from farsearch.devices.profile import Profile
from farsearch.far.ffn import padding
from farsearch.graph.compiler import Compiled
from farsearch.graph.configured import compile_config
from farsearch.graph.memory import EngineMemory, StepMemory
from farsearch.graph.sizes import with_sizes
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.records import Engine, FarConfig, StepPlan
from tests.cost.reference import figure, make_profile
from tests.models.test_models_families import CASES

LAYERS = 4
BY_NAME = {case.name: case for case in CASES}
FAST = ("bert",)
"""Families of the test that always runs; a compiled step takes seconds."""
NEAR = {"modernbert": 0.01, "deberta-v2": 0.02}
"""Families whose layers share values that are not composed exactly, and how near these small models are."""


def draw_config(draw: random.Random, layers: int = LAYERS) -> FarConfig:
    """Return a random configuration; most freeze something besides the neurons."""
    return FarConfig(
        frozen_fractions=tuple(draw.choice([0.0, 0.05, 0.5, 0.9, 1.0]) for _ in range(layers)),
        learning_rate=1e-4,
        epochs=1.0,
        frozen_embeddings=draw.random() < 0.5,
        frozen_attention_layers=draw.choice([0, 0, 1, 2, layers]),
        frozen_bottom_layers=draw.choice([0, 0, 0, 1, 2]),
    )


@pytest.mark.parametrize(
    ("family", "count"),
    [(name, 1) for name in FAST] + [pytest.param(name, 3, marks=pytest.mark.slow) for name in BY_NAME],
)
def test_composed_memory_equals_that_of_the_compiled_step(family: str, count: int) -> None:
    """Weights, trained state and the peak of the activations are equal, whatever else is composed with them."""
    draw = random.Random(f"{family} 8")
    model_config = BY_NAME[family].make(LAYERS, 32, 272, 0.1)  # the frozen ones of 272 neurons can be padded
    plans = compiled_plans(layout_of(model_config))
    rows, length = draw.choice([(3, 10), (1, 24), (4, 16)])
    tables = [StepTable(model_config, Head(), rows, traced_plan(plan), length=length) for plan in plans]
    for _ in range(count):
        config, which = draw_config(draw), draw.randrange(len(plans))
        optimizer, parts = draw.choice(["adamw", "sgd"]), draw.random() < 0.5
        whole = EngineMemory.of(compile_config(model_config, Head(), config, plans[which]))
        expected = whole.step(rows, length, optimizer=optimizer, parts=parts)
        found = CompiledCosts(optimizer, parts).memory(tables[which].compose([config, draw_config(draw)]))
        first = StepMemory(*(int(values[0]) for values in vars(found).values()))
        if family in NEAR:
            assert first.resident == pytest.approx(expected.resident, rel=NEAR[family])
        else:
            assert first == expected, (config, plans[which].feed_forward, rows, length)


@pytest.mark.parametrize("width", [64, 272, 1536, 3072])
def test_telling_count_has_primes_of_its_own(width: int) -> None:
    others = {32, 384, 768, 30522, 512, 2, 16, 127, 128, 129}
    found = TellingCount.choose(width, others)
    assert found.learners % found.of_learners == found.frozen % found.of_frozen == 0
    assert found.frozen == width - found.learners + padding(width, found.learners)
    assert all(size % prime for size in {*others, width} for prime in (found.of_learners, found.of_frozen))


def counted_flops(whole: Compiled, rows: int, length: int) -> int:
    """Count the work of the products in the graphs of a compiled training step."""
    flops = 0
    for call in whole.program["step"]:
        sized = shape_inference.infer_shapes(with_sizes(whole.graphs[call["graph"]], rows, length), data_prop=True)
        graph = sized.graph
        shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for info in (*graph.input, *graph.value_info, *graph.output):
            shapes[info.name] = tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
        for node in graph.node:
            if node.op_type in ("Gemm", "MatMul", "Einsum"):  # an Einsum stands for onnxruntime's own product
                *batch, m, k = shapes[node.input[0]]
                transposed = any(each.name == "transA" and each.i for each in node.attribute)
                transposed |= any(b"...ki" in each.s for each in node.attribute)
                flops += 2 * math.prod((*batch, m, k, shapes[node.output[0]][-1]))
    return flops


def predicted_flops(model_config: Any, head: Head, config: FarConfig, plan: StepPlan, rows: int, length: int) -> float:
    """Return the work of the products of the operations by which a compiled step is timed."""
    # one FLOP a nanosecond, and nothing else takes time
    rate = make_profile(gemm_gflops=figure(1), bmm_gflops=figure(1), bandwidth_gbs=figure(1e12), launch_us=figure(0))
    price = Pricer(model_config, head, rows, length, rate, engines={"onnx": rate}).price(config, plan)
    return 1e9 * (price.time["gemm"] + price.time["bmm"])


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "classification"),
        *(
            pytest.param(name, kind, marks=pytest.mark.slow)
            for name in BY_NAME
            for kind in ("classification", "token-classification")
            if (name, kind) != ("bert", "classification")
        ),
    ],
)
def test_products_are_those_of_the_compiled_graphs(family: str, kind: str) -> None:
    """A head of the first token alone leaves out the top layer's behind its attention."""
    draw, head = random.Random(family), Head(kind)
    model_config = BY_NAME[family].make(2, 32, 272, 0.1)
    config = dataclasses.replace(draw_config(draw, 2), frozen_embeddings=True)
    for plan in compiled_plans(layout_of(model_config)):
        whole = compile_config(model_config, head, config, plan)
        predicted = predicted_flops(model_config, head, config, plan, 3, 40)
        # MobileBERT's bottleneck is in front of the attention, and a part of it only for what follows; of MPNet's
        # top attention the graph computes one map for all tokens
        near = 0.04 if family in ("mobilebert", "mpnet") else 1e-9
        assert predicted == pytest.approx(counted_flops(whole, 3, 40), rel=near)


def make_pricer(*engines: Engine, max_memory_mib: float | None = None, max_time_s: float | None = None) -> Pricer:
    """Return the pricer of a small model on a board that torch's process nearly fills."""
    figures = EngineFigures(figure(60, 50, 70), figure(1, 0.25, 4))
    profile = make_profile(visible_mib=figure(850), onnx=figures)
    profiles: dict[Engine, Profile] = {engine: profile.for_engine(engine) for engine in engines}
    return Pricer(
        BY_NAME["bert"].make(2, 32, 64, 0.1), Head(), 4, 16, profile, engines=profiles, max_memory_mib=max_memory_mib,
        max_time_s=max_time_s,
    )  # fmt: skip


CONFIG = FarConfig((0.5, 0.9), 1e-4, 1.0)


def test_plans_of_both_engines_compete() -> None:
    """Plans of torch cost what they cost alone; least memory is that of the engine with the smaller process."""
    both, torch = make_pricer("torch", "onnx"), make_pricer("torch")
    assert [plan for plan in both.plans if plan.engine == "torch"] == torch.plans == exact_plans(torch.profile)
    assert both.all_plans(CONFIG)[: len(torch.plans)] == torch.all_plans(CONFIG)
    plan, cost = both.best(CONFIG, "memory")
    assert plan.engine == "onnx"
    assert cost.peak_memory_mib == pytest.approx(60 + sum(cost.memory.values()))
    assert cost.peak_memory_mib < torch.best(CONFIG, "memory")[1].peak_memory_mib
    assert cost.wall_time_range_s == pytest.approx((0.25 * cost.wall_time_s, 4 * cost.wall_time_s))


def test_a_board_that_only_the_engine_without_torch_fits_is_searched() -> None:
    pricer = make_pricer("torch", "onnx")
    assert {plan.engine for plan, cost in pricer.all_plans(CONFIG) if cost.fits} == {"onnx"}
    assert pricer.best(CONFIG, "time")[0].engine == "onnx"
    assert not make_pricer("torch").best(CONFIG, "time")[1].fits


def test_limits_of_the_user_hold_for_every_engine() -> None:
    peak = make_pricer("onnx").best(CONFIG, "memory")[1].peak_memory_mib
    assert not make_pricer("torch", "onnx", max_memory_mib=peak - 1).best(CONFIG, "memory")[1].fits
