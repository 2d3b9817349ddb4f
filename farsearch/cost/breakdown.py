"""One configuration priced in full: by phase, with its plan and number of steps, and what would make it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from farsearch.cost.plans import ordinary_plan
from farsearch.cost.pricer import Cost, Pricer, best_of, full_fine_tuning, priming_plan
from farsearch.errors import BadInput
from farsearch.far.batches import steps_in
from farsearch.goals import Goal
from farsearch.records import FarConfig, StepPlan

__all__ = ["Account", "Mend", "account", "device_plans", "mends"]


@dataclass(frozen=True)
class Account:
    """What a configuration costs.

    Attributes:
        cost: of everything that the device does.
        plan: how a step is executed.
        steps: optimizer steps by phase: ``training``, the FAR phase, and ``priming`` where the device does it.
        phases: the cost of each of these phases alone.
    """

    cost: Cost
    plan: StepPlan
    steps: Mapping[str, int]
    phases: Mapping[str, Cost]


@dataclass(frozen=True)
class Mend:
    """A change with which a configuration fits.

    Attributes:
        options: of the command line.
        learns_the_same: only the execution changes, not what is trained.
    """

    options: str
    learns_the_same: bool
    cost: Cost


def device_plans(
    pricer: Pricer,
    goal: Goal | None,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    micro_batch_size: int | None = None,
) -> list[StepPlan]:
    """The exact plans of the device, among which a goal chooses, or that of ordinary modules where there is no goal.

    Raises:
        BadInput: for a micro-batch that is no part of the batch.
    """
    if micro_batch_size is not None and not 1 <= micro_batch_size < pricer.batch_size:
        raise BadInput(
            f"the micro-batch has {micro_batch_size} rows and the batch {pricer.batch_size}; "
            "give fewer rows than the batch's, at least 1, or leave it out"
        )
    plans = [ordinary_plan(pricer.profile)] if goal is None else pricer.plans
    return list(dict.fromkeys(_with(plan, optimizer, micro_batch_size) for plan in plans))


def _with(plan: StepPlan, optimizer: Literal["adamw", "sgd"], micro_batch_size: int | None) -> StepPlan:
    """Gradients that add up over micro-batches are stepped at the end."""
    step = plan.optimizer_step if micro_batch_size is None else "end"
    return dataclasses.replace(plan, optimizer=optimizer, micro_batch_size=micro_batch_size, optimizer_step=step)


def account(
    pricer: Pricer, config: FarConfig, plans: Sequence[StepPlan], goal: Goal | None, samples: int | None
) -> Account:
    """The cost of ``config`` under the one of ``plans`` that serves ``goal`` best.

    Args:
        samples: rows of the pricer's epoch; None where it prices a single step.

    Raises:
        BadInput: for a priming on the device of a number of rows that is not known.
    """
    primed = pricer.prime_on_device and config.priming_epochs > 0
    if primed and samples is None:
        raise BadInput(
            f"priming takes {config.priming_epochs:g} epochs on the device, of a number of rows that is not known; "
            "give --samples"
        )
    plan, cost = best_of(pricer.priced(config, plans), goal or "time")
    if not primed:
        return Account(cost, plan, {"training": _steps(pricer, config.epochs, samples)}, {"training": cost})
    # full fine-tuning in the plan of priming is what priming is
    primer = full_fine_tuning(len(config.frozen_fractions), epochs=config.priming_epochs)
    phases = {
        "priming": pricer.price(primer, priming_plan(pricer.priming_optimizer, pricer.batch_size)),
        "training": pricer.price(dataclasses.replace(config, priming_epochs=0.0), plan),
    }
    lengths = {"priming": config.priming_epochs, "training": config.epochs}
    return Account(cost, plan, {name: _steps(pricer, lengths[name], samples) for name in phases}, phases)


def _steps(pricer: Pricer, epochs: float, samples: int | None) -> int:
    return 1 if samples is None else steps_in(samples, pricer.batch_size, epochs)


def mends(pricer: Pricer, config: FarConfig, priced: Account) -> list[Mend]:
    """What would make a configuration fit that does not: a change of the execution, and one of what is trained.

    The least change of each kind: better plans before smaller micro-batches, and little freezing before much. Empty
    where none helps.
    """
    host = " --prime-on host" * ("priming" in priced.phases and not priced.phases["priming"].fits)
    config = dataclasses.replace(config, priming_epochs=0.0)
    if priced.phases["training"].fits:
        return [Mend(host.strip(), True, priced.phases["training"])]
    found = [
        next(_other_execution(pricer, config, priced.plan), None),
        next(_less_training(pricer, config, priced.plan), None),
    ]
    return [dataclasses.replace(mend, options=mend.options + host) for mend in found if mend is not None]


def _other_execution(pricer: Pricer, config: FarConfig, plan: StepPlan) -> Iterator[Mend]:
    rows = plan.micro_batch_size
    plans = device_plans(pricer, "time", plan.optimizer, rows)
    priced = pricer.priced(config, plans)
    _, cost = best_of(priced, "time")
    if cost.fits:
        micro = "" if rows is None else f" --micro-batch-size {rows}"
        yield Mend(f"--plan time{micro}", True, cost)
    least, _ = best_of(priced, "memory")
    rows = (rows or pricer.batch_size) // 2
    while rows:
        if pricer.price(config, _with(least, plan.optimizer, rows)).fits:
            plans = device_plans(pricer, "time", plan.optimizer, rows)
            _, cost = best_of(pricer.priced(config, plans), "time")
            yield Mend(f"--plan time --micro-batch-size {rows}", True, cost)
        rows //= 2


def _less_training(pricer: Pricer, config: FarConfig, plan: StepPlan) -> Iterator[Mend]:
    layers = len(config.frozen_fractions)
    ladder = [
        dataclasses.replace(
            config,
            frozen_fractions=tuple(max(fraction, own) for own in config.frozen_fractions),
            frozen_embeddings=True,
            frozen_attention_layers=max(attention, config.frozen_attention_layers),
            frozen_bottom_layers=max(bottom, config.frozen_bottom_layers),
        )
        for fraction, attention, bottom in (
            (0.9, 0, 0),
            (1.0, 0, 0),
            (1.0, layers, 0),
            *((1.0, layers, bottom) for bottom in range(1, layers)),
        )
    ]
    for i in pricer.price_many(ladder, plan).fits.nonzero()[0]:
        yield Mend(_frozen_options(ladder[i]), False, pricer.price(ladder[i], plan))


def _frozen_options(config: FarConfig) -> str:
    fractions = [f"{fraction:g}" for fraction in config.frozen_fractions]
    words = ["--frozen-fraction " + (fractions[0] if len(set(fractions)) == 1 else ",".join(fractions))]
    words += ["--frozen-embeddings"] * config.frozen_embeddings
    for name in ("frozen_attention_layers", "frozen_bottom_layers"):
        count = getattr(config, name)
        words += [f"--{name.replace('_', '-')} {count}"] * (count > 0)
    return " ".join(words)
