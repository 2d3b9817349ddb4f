"""The predicted cost of a configuration with the onnx engine: memory from the compiled step, time from operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from farsearch.cost.constraints import Peaks
from farsearch.cost.pricer import Price, Pricer
from farsearch.graph.configured import compile_config
from farsearch.graph.memory import EngineMemory
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan

__all__ = ["price_compiled"]


def price_compiled(pricer: Pricer, model_config: Any, head: Head, config: FarConfig, plan: StepPlan) -> Price:
    """Return the cost of a configuration under a plan of the engine. The model is built, with random weights.

    Its memory is that of the process with all weights in it; the low end of the range is without the mapped weights,
    which the system may drop, and without what the allocator holds beside the values that live.

    Args:
        pricer: of a profile with the engine's figures; its memory is replaced, its time is kept.

    Raises:
        BadInput: for a model that can't be compiled.
    """
    priced = pricer.price(config, plan)
    rows = plan.micro_batch_size or pricer.batch_size
    parts = rows < pricer.batch_size
    memory = EngineMemory.of(compile_config(model_config, head, config, plan))
    step = memory.step(rows, pricer.workload.max_length, optimizer=plan.optimizer, parts=parts)
    held, allocated, mapped = (size / 2**20 for size in (step.held, step.allocated, step.mapped))
    process = pricer.profile.process_mib
    sizes = {"trained weights, optimizer": held, "activations": allocated, "mapped weights": mapped}
    total = sum(sizes.values())
    low, peak, high = process.low + held + step.passing / 2**20, process.value + total, process.high + total
    limits = Peaks(np.array([high]), np.array([peak]), np.array([priced.wall_time_s]))
    problems = pricer.constraints.problems(limits)
    return replace(
        priced, memory=sizes, tensor_peak_mib=total, peak_memory_mib=peak, peak_memory_range_mib=(low, high),
        feasible=not problems, problems=problems,
    )  # fmt: skip
