"""The text of ``estimate``: the cost of one training, and what would fit where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from farsearch.api.suggestions import Suggestions
    from farsearch.cost.breakdown import CostBreakdown
    from farsearch.cost.pricer import Price
    from farsearch.records import StepPlan

__all__ = ["print_cost"]


def print_cost(
    priced: CostBreakdown,
    instead: Suggestions,
    device: str,
    title: str,
    batch_size: int,
    samples: int | None,
    largest: bool,
) -> None:
    """Print a training's cost.

    Args:
        title: of model and method.
        samples: rows of an epoch; None for a single step.
        largest: the batch is the largest that fits.
    """
    from farsearch.formatting import human_memory, human_time, operation_title

    cost, steps = priced.cost, sum(priced.steps.values())
    have = cost.available_range_mib
    process = cost.peak_memory_mib - cost.tensor_peak_mib
    span = "one step" if samples is None else f"{steps:,} step{'s' * (steps != 1)}, one epoch of {samples:,} rows"
    lines = [
        ("plan", _plan_text(priced.plan, batch_size)),
        ("memory", f"{_peak(cost)}; the device has {have[0]:,.0f} to {human_memory(have[1])}"),
        ("", _parts({"process": process, **cost.memory}, human_memory)),
        ("time", f"{_duration(cost)} for {span}"),
        ("", _parts({operation_title(name): value for name, value in cost.time.items()}, human_time)),
    ]
    if largest:
        rows = f"{batch_size:,} row{'s' * (batch_size != 1)} at most" if cost.fits else "not even one row fits"
        lines.insert(0, ("batch", f"{rows}; {human_time(cost.step_time_s / batch_size)} a row of a step"))
    if len(priced.phases) > 1:
        lines += [
            (name, f"{_peak(one)}, {_duration(one)} for {priced.steps[name]:,} step{'s' * (priced.steps[name] != 1)}")
            for name, one in priced.phases.items()
        ]
    if cost.energy_j is not None:
        lines.append(("energy", f"{cost.energy_j:,.0f} J"))
    lines.append(("trained", f"{cost.trainable:,} parameters"))
    lines += [("", problem) for problem in cost.problems]
    if not cost.fits:
        lines += [("would fit", text) for text in _would_fit(instead)]
    click.echo(f"{title} on {device}: {'fits' if cost.fits else 'DOES NOT FIT'} (all figures are estimates)")
    for head, text in lines:
        click.echo(f"  {head:9} {text}")


def _would_fit(instead: Suggestions) -> Iterator[str]:
    from farsearch.formatting import human_memory, human_time

    for fix in instead.fixes:
        takes = f"{human_memory(fix.cost.peak_memory_mib)}, {human_time(fix.cost.wall_time_s)}"
        yield f"{fix.options} ({takes}; {fix.effect})"
    if instead.space is not None:
        name, share = instead.space
        yield f"a search: run --space {name}, {share:.0%} of which fits under some plan"
    if not instead.fixes and instead.space is None:
        yield "a smaller --model or --max-length, or another --device; freezing is not enough"


def _plan_text(plan: StepPlan, batch_size: int) -> str:
    modules = "ordinary modules" if plan.summary == "modules" else plan.summary
    name = {"adamw": "AdamW", "sgd": "gradient descent"}[plan.optimizer]
    when = "in the backward pass" if plan.optimizer_step == "backward" else "at the end"
    return f"{modules}; {plan.micro_batch_size or batch_size} rows at once; {name} ({plan.optimizer_kernel}) {when}"


def _peak(cost: Price) -> str:
    low, high = cost.peak_memory_range_mib
    return f"{cost.peak_memory_mib:,.0f} MiB ({low:,.0f} to {high:,.0f})"


def _duration(cost: Price) -> str:
    from farsearch.formatting import human_time

    low, high = cost.wall_time_range_s
    return f"{human_time(cost.wall_time_s)} ({human_time(low)} to {human_time(high)})"


def _parts(parts: Mapping[str, float], human: Callable[[float], str]) -> str:
    """Format a breakdown, without parts below 0.2 %."""
    return ", ".join(f"{name} {human(value)}" for name, value in parts.items() if value > 0.002 * sum(parts.values()))
