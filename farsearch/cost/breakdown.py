"""The cost of one configuration by phase, with its plan and numbers of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from farsearch.cost.plans import ordinary_plan
from farsearch.cost.pricer import Price, Pricer, best_of, full_fine_tuning, priming_plan
from farsearch.cost.whole_model import Prepare
from farsearch.errors import BadInput
from farsearch.far.batches import steps_in
from farsearch.goals import Goal
from farsearch.records import FarConfig, StepPlan

__all__ = ["CostBreakdown", "cost_breakdown", "device_plans", "prepared_breakdown", "with_micro_batch"]


@dataclass(frozen=True)
class CostBreakdown:
    """The cost of a configuration on a device.

    Attributes:
        cost: the total over all phases that run on the device.
        plan: the step plan of the FAR phase.
        steps: optimizer steps by phase: ``training``, the FAR phase, and ``priming`` if it runs on the device.
        phases: the cost of each of these phases alone.
    """

    cost: Price
    plan: StepPlan
    steps: Mapping[str, int]
    phases: Mapping[str, Price]


def device_plans(
    pricer: Pricer,
    goal: Goal | None,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    micro_batch_size: int | None = None,
) -> list[StepPlan]:
    """Return the exact plans of the device, from which ``goal`` selects; without a goal, the ordinary ones.

    Raises:
        BadInput: if the micro-batch is not smaller than the batch.
    """
    if micro_batch_size is not None and not 1 <= micro_batch_size < pricer.batch_size:
        raise BadInput(
            f"the micro-batch has {micro_batch_size} rows and the batch {pricer.batch_size}; "
            "give fewer rows than the batch's, at least 1, or leave it out"
        )
    plans = pricer.ordinary_plans if goal is None else pricer.plans
    return list(dict.fromkeys(with_micro_batch(plan, optimizer, micro_batch_size) for plan in plans))


def with_micro_batch(plan: StepPlan, optimizer: Literal["adamw", "sgd"], micro_batch_size: int | None) -> StepPlan:
    """Return the plan with these; accumulated gradients of micro-batches are applied at the end of a step."""
    step = plan.optimizer_step if micro_batch_size is None else "end"
    return dataclasses.replace(plan, optimizer=optimizer, micro_batch_size=micro_batch_size, optimizer_step=step)


def cost_breakdown(
    pricer: Pricer, config: FarConfig, plans: Sequence[StepPlan], goal: Goal | None, samples: int | None
) -> CostBreakdown:
    """Return the cost of ``config`` under the best of ``plans`` for ``goal``.

    Args:
        samples: training rows per epoch; None if the pricer prices a single step.

    Raises:
        BadInput: if priming runs on the device and ``samples`` is None.
    """
    primed = pricer.prime_on_device and config.priming_epochs > 0
    if primed and samples is None:
        raise BadInput(
            f"priming takes {config.priming_epochs:g} epochs on the device, but the number of training rows is "
            "unknown; give `samples`"
        )
    plan, cost = best_of(pricer.priced(config, plans), goal or "time")
    if not primed:
        return CostBreakdown(cost, plan, {"training": _steps(pricer, config.epochs, samples)}, {"training": cost})
    # priming is full fine-tuning under the priming plan
    primer = full_fine_tuning(len(config.frozen_fractions), epochs=config.priming_epochs)
    phases = {
        "priming": pricer.price(primer, priming_plan(pricer.priming_optimizer, pricer.batch_size)),
        "training": pricer.price(dataclasses.replace(config, priming_epochs=0.0), plan),
    }
    lengths = {"priming": config.priming_epochs, "training": config.epochs}
    return CostBreakdown(cost, plan, {name: _steps(pricer, lengths[name], samples) for name in phases}, phases)


def prepared_breakdown(pricer: Pricer, prepare: Prepare, samples: int | None) -> CostBreakdown:
    """Return the cost of one epoch of the model as another method prepares it, executed as ``price_prepared`` does."""
    cost, steps = pricer.price_prepared(prepare, 1.0), _steps(pricer, 1.0, samples)
    return CostBreakdown(cost, ordinary_plan(pricer.profile), {"training": steps}, {"training": cost})


def _steps(pricer: Pricer, epochs: float, samples: int | None) -> int:
    return 1 if samples is None else steps_in(samples, pricer.batch_size, epochs)
