"""Suggestions for a configuration that does not fit: another execution of the same training, or less training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from farsearch.cost.breakdown import CostBreakdown, device_plans, with_micro_batch
from farsearch.cost.pricer import Price, Pricer, best_of
from farsearch.records import FarConfig, StepPlan

__all__ = ["Fix", "freeze_more", "suggest_fixes"]


@dataclass(frozen=True)
class Fix:
    """A change that makes a configuration fit.

    Attributes:
        options: command-line options that make the change.
        learns_the_same: the change affects the execution only, not which parameters are trained.
    """

    options: str
    learns_the_same: bool
    cost: Price


def freeze_more(config: FarConfig, *, attention: bool = True) -> list[FarConfig]:
    """Return configurations that train less and less than ``config``, the smallest change first.

    The embeddings and 0.9, then all, of the feed-forward neurons are frozen; then the attention of all layers, unless
    ``attention`` is false; then whole layers from the bottom up, until only the top layer is left.
    """
    layers = len(config.frozen_fractions)
    attention_layers = layers if attention else 0
    ladder = [(0.9, 0, 0), *((1.0, count, 0) for count in (0, attention_layers))]
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

    Better plans come before smaller micro-batches, and little freezing before much. Empty if neither helps.
    """
    host = " --prime-on host" * ("priming" in priced.phases and not priced.phases["priming"].fits)
    config = dataclasses.replace(config, priming_epochs=0.0)
    if priced.phases["training"].fits:
        return [Fix(host.strip(), True, priced.phases["training"])]
    fixes = [
        next(_other_execution(pricer, config, priced.plan), None),
        next(_less_training(pricer, config, priced.plan), None),
    ]
    return [dataclasses.replace(fix, options=fix.options + host) for fix in fixes if fix is not None]


def _other_execution(pricer: Pricer, config: FarConfig, plan: StepPlan) -> Iterator[Fix]:
    rows = plan.micro_batch_size
    plans = device_plans(pricer, "time", plan.optimizer, rows)
    priced = pricer.priced(config, plans)
    _, cost = best_of(priced, "time")
    if cost.fits:
        micro = "" if rows is None else f" --micro-batch-size {rows}"
        yield Fix(f"--plan time{micro}", True, cost)
    least, _ = best_of(priced, "memory")
    rows = (rows or pricer.batch_size) // 2
    while rows:
        if pricer.price(config, with_micro_batch(least, plan.optimizer, rows)).fits:
            plans = device_plans(pricer, "time", plan.optimizer, rows)
            _, cost = best_of(pricer.priced(config, plans), "time")
            yield Fix(f"--plan time --micro-batch-size {rows}", True, cost)
        rows //= 2


def _less_training(pricer: Pricer, config: FarConfig, plan: StepPlan) -> Iterator[Fix]:
    ladder = freeze_more(config)
    for i in pricer.price_many(ladder, plan).fits.nonzero()[0]:
        yield Fix(_frozen_options(ladder[i]), False, pricer.price(ladder[i], plan))


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
