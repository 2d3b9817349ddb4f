"""Competing plans: no other plan of a device has a better prediction than the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from farsearch.cost.plans import exact_plans, ordinary_plan, quickest
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.software import torch_version
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import Profile, list_profiles, load_profile
from farsearch.errors import BadInput, ProfileError
from farsearch.goals import GOALS, Goal, best_plan
from farsearch.models.config import load_config
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.records import FarConfig, Precision, StepPlan
from tests.models.test_models_families import CASES as MODEL_CASES
from tests.tiny import make_config

_MOST = 0.01
"""Margin of a plan that does not compete: each of the 40 other executions is close to one of the eight."""


def every_plan(profile: Profile) -> Iterator[StepPlan]:
    """Yield the exact plans, without micro-batches, that the device's torch can execute."""
    version = torch_version(profile)
    steps: list[tuple[Any, Any]] = [("loop", "end")]
    steps += [("foreach", "end")] * (version >= (1, 12)) + [("loop", "backward")] * (version >= (2, 1))
    steps += [("fused", "end"), ("fused", "backward")] * (version >= (2, 4))
    pieces = itertools.product(
        ("modules", "store", "recompute"), ("modules", "recompute"), ("modules", "seed"), ("modules", "output"),
        (False, True), steps,
    )  # fmt: skip
    for forward, attention, dropout, norm, checkpointing, (kernel, step) in pieces:
        yield StepPlan("adamw", None, forward, attention, dropout, norm, "float32", checkpointing, kernel, step)


def configurations(layers: int) -> list[FarConfig]:
    """Return full fine-tuning, r = 10 %, and r = 10 % with frozen embeddings and attention."""
    far = FarConfig((0.9,) * layers, 1e-4, 1.0)
    frozen = FarConfig((0.9,) * layers, 1e-4, 1.0, 0.0, True, layers // 2)
    return [full_fine_tuning(layers), far, frozen]


@cache
def shapes(name: str) -> Any:
    """Return the configuration of a known model."""
    return load_config(resolve_model(name), with_known=True)


def beaten_by(pricer: Pricer, others: Sequence[StepPlan], goal: Goal) -> list[float]:
    """Return the margin of the best of ``others`` over the selected plan for a goal, as a share, by configuration."""
    configs = configurations(pricer.layers)
    prices = pricer.price_plans(configs, others)
    memory, time = (np.stack([getattr(p, name) for p in prices]) for name in ("peak_memory_mib", "wall_time_s"))
    fits = np.stack([p.fits for p in prices])
    found = []
    for i, config in enumerate(configs):
        best = int(best_plan(memory[:, i], time[:, i], fits[:, i], goal))
        _, cost = pricer.best(config, goal)
        mine = {"memory": cost.peak_memory_mib, "time": cost.wall_time_s}
        mine["balanced"] = mine["memory"] * mine["time"]
        theirs = {"memory": memory[best, i], "time": time[best, i], "balanced": memory[best, i] * time[best, i]}
        goal = goal if cost.fits else "memory"
        found.append(float(mine[goal] / theirs[goal]) - 1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", list_profiles())
def test_no_plan_of_the_device_beats_the_selected_one(name: str) -> None:
    """Compare the whole value space for each goal; passes are traced once for all profiles with the same software."""
    config, profile = make_config("bert", hidden=64, neurons=256), load_profile(name)
    pricer = Pricer(config, Head(), 8, 72, profile, tables=shared_tables(config, Head()))
    for goal in GOALS:
        assert max(beaten_by(pricer, list(every_plan(profile)), goal)) < _MOST, goal


@pytest.mark.slow
def test_no_plan_beats_the_selected_one_at_full_size() -> None:
    """DistilBERT 16 x 128 on an AGX Orin, where the plan of the least memory was once selected for the least time."""
    config, profile = shapes("distilbert-base-uncased"), load_profile("jetson-agx-orin-64gb")
    pricer = Pricer(config, Head(), 16, 128, profile, tables=shared_tables(config, Head()))
    for goal in GOALS:
        assert max(beaten_by(pricer, list(every_plan(profile)), goal)) < _MOST, goal


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "jetson-nano" else pytest.mark.slow) for name in list_profiles()]
)
def test_ordinary_modules_never_beat_the_selected_plan(name: str) -> None:
    """Compare torch's default optimizer and every kernel, at few tokens and many."""
    config, profile = make_config("bert", hidden=64, neurons=256), load_profile(name)
    plain = [plan for plan in every_plan(profile) if plan.feed_forward == plan.attention == plan.dropout == "modules"]
    plain = [plan for plan in plain if plan.layer_norm == "modules" and not plan.checkpointing]
    assert ordinary_plan(profile) in plain
    for length in (16, 128):
        pricer = Pricer(config, Head(), 8, length, profile, tables=shared_tables(config, Head()))
        for goal in GOALS:
            assert max(beaten_by(pricer, plain, goal)) < 1e-6, (length, goal)


@pytest.mark.slow
def test_far_on_an_agx_orin_takes_less_time_than_full_fine_tuning() -> None:
    """DistilBERT 16 x 128 at r = 10 %, for the least time: full by ordinary modules 1, FAR by ordinary modules 0.81."""
    config, profile = shapes("distilbert-base-uncased"), load_profile("jetson-agx-orin-64gb")
    pricer = Pricer(config, Head(), 16, 128, profile, tables=shared_tables(config, Head()))
    full, far, _ = configurations(6)
    ordinary = pricer.price(full)
    assert pricer.price(far).wall_time_s / ordinary.wall_time_s == pytest.approx(0.81, abs=0.02)
    assert pricer.best(far, "time")[1].wall_time_s <= pricer.price(far).wall_time_s


@pytest.mark.slow
def test_minilm_balanced_is_not_slower_than_ordinary_modules_of_the_same_peak() -> None:
    """8 x 72 on a Jetson Nano, where the optimizer determines the peak: recomputing activations gains nothing."""
    config, profile = shapes("minilm"), load_profile("jetson-nano")
    pricer = Pricer(config, Head(), 8, 72, profile, tables=shared_tables(config, Head()))
    full = configurations(pricer.layers)[0]
    plan, cost = pricer.best(full, "balanced")
    assert plan == ordinary_plan(profile)
    assert cost == pricer.price(full)


def test_competing_plans_are_exact_and_start_with_ordinary_modules() -> None:
    """On each device all plans are exact and distinct."""
    for name in list_profiles():
        plans = exact_plans(load_profile(name))
        assert plans[0].feed_forward == "modules"
        assert all(plan.exact for plan in plans)
        assert len(set(plans)) == len(plans)
        assert set(plans) <= set(every_plan(load_profile(name)))


def test_host_executes_all_exact_plans_alike() -> None:
    """A trial's metric does not depend on the device's plan; an inexact plan is not replaced."""
    layout = layout_of(make_config("bert"))
    plans = {quickest(plan, layout) for name in list_profiles() for plan in exact_plans(load_profile(name))}
    assert len(plans) == 1
    compact = StepPlan(feed_forward="compact")
    assert quickest(compact, layout) == compact


@pytest.mark.parametrize(
    ("device", "precisions"),
    [
        ("jetson-orin-nano", {"bfloat16", "float16"}), ("jetson-xavier-nx", {"float16"}), ("jetson-nano", set()),
        ("raspberry-pi-5", set()),
    ],
)  # fmt: skip
def test_layers_in_16_bits_are_offered_by_devices_that_have_them(device: str, precisions: set[str]) -> None:
    """Where the profile has a rate, on request alone; elsewhere they are refused by the device's name."""
    profile, config = load_profile(device), make_config("bert")
    for precision in ("bfloat16", "float16"):
        if precision not in precisions:
            with pytest.raises(ProfileError, match=device):
                Pricer(config, Head(), 4, 16, profile, precision=precision)
            continue
        plans = Pricer(config, Head(), 4, 16, profile, precision=precision).plans
        assert {plan.precision for plan in plans} == {precision}
        assert not any(plan.exact for plan in plans)
        assert all(f"{precision} (not exact)" in plan.summary for plan in plans)
        assert {quickest(plan, layout_of(config)).precision for plan in plans} == {precision}


@pytest.mark.parametrize(
    ("model", "engines", "fragment"),
    [("deberta-v2", {}, "family"), ("bert", {"engines": {"onnx": load_profile("raspberry-pi-4")}}, "onnx")],
)
def test_layers_in_16_bits_are_refused_by_what_lacks_them(model: str, engines: Any, fragment: str) -> None:
    config = next(case for case in MODEL_CASES if case.name == model).make(2, 32, 64, 0.1)
    with pytest.raises(BadInput, match=fragment):
        Pricer(config, Head(), 4, 16, load_profile("jetson-orin-nano"), precision="bfloat16", **engines)


def test_layers_in_16_bits_take_less_memory_and_time() -> None:
    """On an Orin: half of what is saved, and products at the rate of its tensor cores."""
    config = shapes("minilm")
    pricer = Pricer(config, Head(), 16, 128, load_profile("jetson-orin-nano"), tables=shared_tables(config, Head()))
    far = FarConfig((0.9,) * 6, 1e-4, 1.0, frozen_embeddings=True, frozen_attention_layers=6)
    exact, half = (
        pricer.price(far, StepPlan("adamw", None, "store", "recompute", "seed", "output", precision=precision))
        for precision in get_args(Precision)[:2]
    )
    assert 0.5 < half.memory["saved"] / exact.memory["saved"] < 0.65
    assert 0.5 < half.memory["parameters"] / exact.memory["parameters"] < 0.65
    assert half.time["gemm"] < exact.time["gemm"] / 2
    assert half.step_time_s < exact.step_time_s


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seconds"), [("jetson-tx2", 1.70), ("raspberry-pi-4", 34.0)])
def test_profile_predicts_the_published_step_time(name: str, seconds: float) -> None:
    """FedAdapter: full fine-tuning of BERT-base, 4 x 256, ordinary modules. The figure has two or three digits."""
    config = shapes("bert-base-uncased")
    pricer = Pricer(config, Head(), 4, 256, load_profile(name), tables=shared_tables(config, Head()))
    assert pricer.price(full_fine_tuning(12)).step_time_s == pytest.approx(seconds, rel=0.02)


@pytest.mark.slow
def test_published_peak_is_in_the_predicted_range() -> None:
    """FedAdapter: 5.3 GB for BERT-base on a Jetson TX2, batch not stated; 8 rows of 256 tokens fit the figure."""
    config = shapes("bert-base-uncased")
    pricer = Pricer(config, Head(), 8, 256, load_profile("jetson-tx2"), tables=shared_tables(config, Head()))
    low, high = pricer.price(full_fine_tuning(12)).peak_memory_range_mib
    assert low < 5.3e9 / 2**20 < high
