"""Compare predictions with real compiled steps, of the engine without torch, on this machine."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from farsearch.calibration.check import BATCHES, StepCase, StepCheck
from farsearch.calibration.measure.onnx_timing import compiled_step
from farsearch.calibration.measure.rounds import time_call
from farsearch.calibration.payload import step_entry
from farsearch.cost.plans import for_engine
from farsearch.cost.pricer import Pricer
from farsearch.cost.traced_model import shared_tables
from farsearch.devices.profile import Profile
from farsearch.graph.configured import compile_config
from farsearch.graph.memory import EngineMemory
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan
from farsearch.runtime.memory import MIB, host_peak_mib, reset_host_peak, resident_mib

__all__ = ["check_compiled_steps"]

_STEPS = 5


def check_compiled_steps(model_config: Any, profile: Profile, note: Callable[[str], None]) -> Iterator[StepCheck]:
    """Compile a model, and compare its steps at r = 10 % with their predictions: few and many tokens, both plans.

    Peaks are those of what no file backs: trained weights, the optimizer's state, and what lives during a step.

    Args:
        model_config: transformers configuration of the model; its weights and tokens are random.
        profile: with the figures of the engine.
        note: called with messages.
    """
    layout, head = layout_of(model_config), Head()
    config = FarConfig((0.9,) * len(layout.layers), 1e-4, 1.0)
    policies = (StepPlan(feed_forward="store"), StepPlan(feed_forward="recompute"))
    for plan in dict.fromkeys(for_engine(policy, "onnx", layout) for policy in policies):
        note(f"compiling {plan.summary}")
        made = compile_config(model_config, head, config, plan)
        memory = EngineMemory.of(made)
        for batch_size, length in BATCHES:
            case = StepCase(f"FAR 10 %, {plan.summary}", batch_size, length, config, plan)
            note(f"{batch_size} x {length}, {case.title}")
            step = memory.step(batch_size, length, optimizer=plan.optimizer)
            entry = step_entry(made, batch_size, length, int(model_config.vocab_size))
            trained = sum(tensor.numel() * 4 for tensor in made.tensors.values() if tensor.requires_grad)
            seconds, grown = _measured(entry)
            pricer = Pricer(
                model_config, head, batch_size, length, profile, engines={"onnx": profile},
                tables=shared_tables(model_config, head),
            )  # fmt: skip
            cost = pricer.price(config, plan)
            low, high = (end / cost.wall_time_s * cost.step_time_s for end in cost.wall_time_range_s)
            predicted = (step.held + step.allocated) / MIB
            yield StepCheck(case, predicted, trained / MIB + grown, cost.step_time_s, (low, high), seconds)


def _measured(entry: dict[str, Any]) -> tuple[float, float]:
    """Median seconds of a step, and the MiB by which the process grows in the first ones."""
    with tempfile.TemporaryDirectory(prefix="farsearch-") as folder:
        step = compiled_step(entry, folder, None)
        reset_host_peak()
        before = resident_mib() or 0.0
        step()
        seconds = statistics.median(time_call(step, 1) for _ in range(_STEPS))
        return seconds, host_peak_mib() - before
