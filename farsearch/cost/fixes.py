"""Suggestions for a configuration that does not fit: another execution of the same training, or less training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from farsearch.cost.breakdown import CostBreakdown, device_plans, with_micro_batch
from farsearch.cost.pricer import Price, Pricer, best_of
from farsearch.records import FarConfig, StepPlan

__all__ = ["Fix", "engine_fix", "freeze_more", "suggest_fixes"]


@dataclass(frozen=True)
class Fix:
    """A change that makes a configuration fit.

    Attributes:
        options: command-line options that make the change.
        effect: on the result. A change of the execution alone learns the same.
    """

    options: str
    effect: Effect
    cost: Price


Effect = Literal["learns the same", "trains less", "smaller steps"]


def freeze_more(config: FarConfig, *, attention: bool = True) -> list[FarConfig]:
    """Return configurations that train less and less than ``config``, the smallest change first.

    The embeddings are frozen, then 0.5, 0.9 and all of the feed-forward neurons; then the attention of all layers,
    unless ``attention`` is false; then whole layers from the bottom up, until only the top layer is left.
    """
    layers = len(config.frozen_fractions)
    attention_layers = layers if attention else 0
    ladder = [(0.0, 0, 0), (0.5, 0, 0), (0.9, 0, 0), *((1.0, count, 0) for count in (0, attention_layers))]
    ladder += [(1.0, attention_layers, bottom) for bottom in range(1, layers)]
    configs = (
        dataclasses.replace(
            config,
            frozen_fractions=tuple(max(fraction, own) for own in config.frozen_fractions),
            frozen_embeddings=True,
            frozen_attention_layers=max(count, config.frozen_attention_layers),
            frozen_bottom_layers=max(bottom, config.frozen_bottom_layers),
        )
        for fraction, count, bottom in ladder
    )
    return list(dict.fromkeys(configs))


def suggest_fixes(pricer: Pricer, config: FarConfig, priced: CostBreakdown) -> list[Fix]:
    """Return the smallest change of the execution, and the smallest reduction of training, with which ``config`` fits.

    Better plans come before smaller micro-batches, and little freezing before much. Where no execution is enough, the
    reduction may be one under another plan, because less has to be frozen there. Empty if nothing helps.
    """
    host = " --prime-on host" * ("priming" in priced.phases and not priced.phases["priming"].fits)
    config = dataclasses.replace(config, priming_epochs=0.0)
    if priced.phases["training"].fits:
        return [Fix(host.strip(), "learns the same", priced.phases["training"])]
    same = next(_other_execution(pricer, config, priced.plan), None)
    plans = [] if same else device_plans(pricer, "time", priced.plan.optimizer, priced.plan.micro_batch_size)
    fixes = [same, next(_less_training(pricer, config, priced.plan, plans), None)]
    return [dataclasses.replace(fix, options=fix.options + host) for fix in fixes if fix is not None]


def engine_fix(pricer: Pricer, config: FarConfig, plan: StepPlan) -> Fix | None:
    """Return the change to the engines of ``pricer`` with which ``config`` fits; None where it does not.

    Args:
        pricer: of other engines than that of ``plan``, the plan that does not fit.
    """
    plans = device_plans(pricer, "time", plan.optimizer, plan.micro_batch_size)
    best, cost = best_of(pricer.priced(dataclasses.replace(config, priming_epochs=0.0), plans), "time")
    return Fix(f"--engine {best.engine} --plan time", "learns the same", cost) if cost.fits else None


def _other_execution(pricer: Pricer, config: FarConfig, plan: StepPlan) -> Iterator[Fix]:
    rows = plan.micro_batch_size
    plans = device_plans(pricer, "time", plan.optimizer, rows)
    priced = pricer.priced(config, plans)
    _, cost = best_of(priced, "time")
    if cost.fits:
        yield Fix(f"--plan time{_micro_option(plan)}", "learns the same", cost)
    least, _ = best_of(priced, "memory")
    rows = (rows or pricer.batch_size) // 2
    while rows:
        if pricer.price(config, with_micro_batch(least, plan.optimizer, rows)).fits:
            plans = device_plans(pricer, "time", plan.optimizer, rows)
            _, cost = best_of(pricer.priced(config, plans), "time")
            yield Fix(f"--plan time --micro-batch-size {rows}", "learns the same", cost)
        rows //= 2


def _less_training(pricer: Pricer, config: FarConfig, plan: StepPlan, others: Sequence[StepPlan]) -> Iterator[Fix]:
    """Configurations that fit under the plan, or else under one of others."""
    ladder = freeze_more(config)
    for less, fits in zip(ladder, pricer.price_many(ladder, plan).fits, strict=True):
        if fits:
            yield Fix(_frozen_options(less), "trains less", pricer.price(less, plan))
        elif others:
            _, cost = best_of(pricer.priced(less, others), "time")
            if cost.fits:
                yield Fix(f"{_frozen_options(less)} --plan time{_micro_option(plan)}", "trains less", cost)


def _micro_option(plan: StepPlan) -> str:
    return "" if plan.micro_batch_size is None else f" --micro-batch-size {plan.micro_batch_size}"


def _frozen_options(config: FarConfig) -> str:
    fractions = [f"{fraction:g}" for fraction in config.frozen_fractions]
    options = ["--frozen-fraction " + (fractions[0] if len(set(fractions)) == 1 else ",".join(fractions))]
    heads = [f"{share:g}" for share in config.canonical().frozen_heads]
    options += ["--frozen-heads " + (heads[0] if len(set(heads)) == 1 else ",".join(heads))] if heads else []
    options += ["--frozen-embeddings"] * config.frozen_embeddings
    for name in ("frozen_attention_layers", "frozen_bottom_layers"):
        count = getattr(config, name)
        options += [f"--{name.replace('_', '-')} {count}"] * (count > 0)
    return " ".join(options)
