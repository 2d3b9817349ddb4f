"""Costs of models prepared by other methods equal real training steps and step tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from farsearch.baselines import METHODS
from farsearch.calibration.steps import apply_config
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.far.layout import ModelLayout
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import make_profile, step_peak_mib
from tests.tiny import FAMILIES, make_config

Prepare = Callable[[nn.Module, ModelLayout], Any]

LENGTHS = [9, 64, 40, 33, 17, 64, 12, 25, 31, 50]
"""Of ten rows: two batches of eight."""


def pricer_of(family: str, **options: Any) -> tuple[Pricer, Any]:
    """Return a pricer of a model of four layers, and the model's configuration."""
    config = make_config(family, layers=4, hidden=64, neurons=256, vocabulary=1000)
    return Pricer(config, Head(), 8, 64, make_profile(), **options), config


def first_query(model: nn.Module, layout: ModelLayout) -> None:
    """Train a single matrix at the bottom, which no baseline does."""
    path = layout.layers[0].attention[0]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == f"{path}.weight")


PATTERNS = {"bitfit": METHODS["bitfit"].prepare, "lora8": METHODS["lora8"].prepare, "one matrix": first_query}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_predicted_peak_equals_the_measured_one(family: str, pattern: str) -> None:
    """Compare the peak of all tensors in a real step within 0.01 %, by the profiler."""
    prepare = PATTERNS[pattern]
    assert prepare is not None
    pricer, config = pricer_of(family)
    cost = pricer.price_prepared(prepare, 1.0)
    model, layout = build_model(config, Head())
    prepare(model, layout)
    assert cost.tensor_peak_mib == pytest.approx(step_peak_mib(model, 8, 64, StepPlan()), rel=1e-4)
    assert cost.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(cost.memory.values()) == pytest.approx(cost.tensor_peak_mib)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "config", [full_fine_tuning(4), FarConfig((0.75, 0.0, 1.0, 0.5), 1e-4, 1.0), FarConfig((1.0,) * 4, 1e-4, 1.0)]
)
def test_whole_trace_and_composition_agree(family: str, config: FarConfig) -> None:
    """Memory by category and time are equal."""
    pricer, _ = pricer_of(family, lengths=LENGTHS, device_samples=500)
    composed = pricer.price(config)

    def prepare(model: nn.Module, layout: ModelLayout) -> None:
        apply_config(model, layout, config)

    direct = pricer.price_prepared(prepare, config.epochs)
    assert direct.memory == pytest.approx(composed.memory, rel=1e-9, abs=1e-9)
    assert direct.time == pytest.approx(composed.time, rel=1e-9)
    assert direct.step_time_s == pytest.approx(composed.step_time_s, rel=1e-9)
    assert (direct.trainable, direct.problems) == (composed.trainable, composed.problems)


def test_methods_with_fewer_trained_parameters_cost_less() -> None:
    """BitFit and LoRA take less memory and time than frozen FFNs, and those less than full fine-tuning."""
    pricer, _ = pricer_of("bert", lengths=LENGTHS)
    frozen, full = pricer.price(FarConfig((1.0,) * 4, 1e-4, 1.0)), pricer.price(full_fine_tuning(4))
    for name in ("bitfit", "lora8"):
        prepare = METHODS[name].prepare
        assert prepare is not None
        cost = pricer.price_prepared(prepare, 1.0)
        assert cost.tensor_peak_mib < frozen.tensor_peak_mib < full.tensor_peak_mib
        assert cost.wall_time_s < frozen.wall_time_s < full.wall_time_s
