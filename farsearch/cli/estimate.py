"""``estimate``: predicted memory and time of a training, or of a whole space, on a device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from farsearch.cli.cost_options import CONFIGURATION, cost_options, query_from, title_of
from farsearch.cli.estimate_json import cost_json, median, sweep_json
from farsearch.cli.estimate_text import print_cost
from farsearch.cli.options import AboveZero, json_option
from farsearch.cli.task_options import own_options
from farsearch.cli.terminal import print_rows, waiting

if TYPE_CHECKING:
    from farsearch.api.cost_query import CostQuery
    from farsearch.api.own_rows import OwnRows
    from farsearch.cost.sweep import Sweep

__all__ = ["COMMANDS"]

_ROWS = 15
"""Maximum of printed rows of a front."""


@click.command()
@click.option("--device", required=True, metavar="NAME", help="Profile of the device (see: farsearch devices list).")
@cost_options
@click.option("--train", type=click.Path(path_type=Path), metavar="FILE",
              help="Your own rows, or a .toml file that describes them: time one epoch of them. Batch size and length "
              "are those of a search of them, unless given.")  # fmt: skip
@own_options
@click.option("--priming-epochs", type=AboveZero(), metavar="E", help="Length of the priming, with --prime-on device.")
@click.option("--prime-on", type=click.Choice(["host", "device"]), default="host", show_default=True,
              help="On the device, priming takes memory and time there.")  # fmt: skip
@click.option("--largest-batch", is_flag=True, help="Find the largest batch that fits.")
@click.option("--sweep", "whole_space", is_flag=True,
              help="Price a whole space under all step plans, of any engine unless --engine names one.")  # fmt: skip
@click.option("--space", default="default", show_default=True, metavar="NAME",
              help="Space to --sweep (see: farsearch spaces list), or your own .yaml file.")  # fmt: skip
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also write the picture of the --sweep.")  # fmt: skip
@json_option
@click.pass_context
def estimate(
    context: click.Context,
    /,
    device: str,
    train: Path | None,
    given: dict[str, Any],
    prime_on: Literal["host", "device"],
    largest_batch: bool,
    whole_space: bool,
    space: str,
    png: Path | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Predict the memory and time of fine-tuning on a device. Needs no weights and no network.

    Memory is the peak of a training step; time is one step, or an epoch with --samples or --train, which needs the
    model's tokenizer. With --sweep, of 10,000 configurations of a space under every plan: the least that can be had,
    and how many fit. What does not fit comes with the least changes that would.

    \b
    Examples:
      farsearch estimate --device raspberry-pi-4 --model distilbert-base-uncased --frozen-fraction 0.9
      farsearch estimate --device jetson-orin-nano --model bert-base-uncased --frozen-fraction 0.9 --plan memory
      farsearch estimate --device jetson-orin-nano --model bert-base-uncased --method lora8 --samples 20000
      farsearch estimate --device jetson-orin-nano --model bert-base-uncased --largest-batch
      farsearch estimate --device raspberry-pi-5 --model distilbert-base-uncased --train rows.csv --plan time
      farsearch estimate --device jetson-nano-2gb --model minilm --frozen-fraction 0.9 --engine onnx
      farsearch estimate --device jetson-nano-2gb --model distilbert-base-uncased --sweep --png sweep.png
    """
    _check_options(context, prime_on, train, given)
    rows = None if train is None else _own_rows(train, values["model"], given, values)
    more = {"prime_on_device": prime_on == "device", "rows": rows}
    if whole_space:
        named = ("batch_size", "max_length", "classes", "samples", "revision", "optimizer", "micro_batch_size")
        job = {name: values[name] for name in named} | more | {"engine": values["engine"] or "any"}
        _sweep(device, values["model"], space, png, as_json, job)
    else:
        _estimate(device, query_from(values, **more), values["method"], largest_batch, as_json)


def _estimate(device: str, query: CostQuery, method: str | None, largest: bool, as_json: bool) -> None:
    """Price one training, and print its cost and what would fit instead."""
    from farsearch.api.estimate import largest_of
    from farsearch.api.suggestions import suggestions_for

    with waiting(f"tracing training steps of {query.model}") as note:
        if largest:
            query = query.with_batch(largest_of(query, device, note) or 1)
        pricer = query.pricer(device, note)
        priced = query.breakdown(pricer)
        instead = suggestions_for(query, device, pricer, priced, note)
    # the engine's figures may be those of the board's CPU
    name = device if priced.plan.engine == "torch" else pricer.profile_of(priced.plan).name
    if as_json:
        found = cost_json(priced, instead, name, query.model, method, pricer.batch_size)
        click.echo(json.dumps(found, indent=1))
    else:
        title, samples = title_of(query.model, method), _epoch_of(query.samples, query.rows)
        print_cost(priced, instead, name, title, pricer.batch_size, samples, largest)


def _own_rows(train: Path, model: str, given: Mapping[str, Any], job: Mapping[str, Any]) -> OwnRows:
    """Read the user's rows, and print what was understood."""
    from farsearch.api.own_rows import read_own_rows

    sizes = {name: job[name] for name in ("batch_size", "max_length", "revision")}
    with waiting(f"reading {train.name}") as note:
        rows = read_own_rows(str(train), model, given, **sizes, progress=note)
    click.echo(rows.understood, err=True)
    return rows


def _epoch_of(samples: int | None, rows: OwnRows | None) -> int | None:
    return rows.count if samples is None and rows is not None else samples


def _check_options(context: click.Context, prime_on: str, train: Path | None, own: Mapping[str, Any]) -> None:
    """Raise an error for contradictory options."""
    given = {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if train is None and any(own.values()):
        from farsearch.tasks.description import option_words

        raise click.UsageError(f"{option_words(own)[0]} is for --train; add it")
    if train is not None and "classes" in given:
        raise click.UsageError("--classes is the number of labels in --train; leave out one of them")
    whole_space = "whole_space" in given
    one_only = (*CONFIGURATION, "method", "plan", "largest_batch")
    for name in one_only if whole_space else ("space", "png"):
        if name in given:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} is one configuration's, and --sweep varies it; leave out one of them"
                if whole_space
                else f"{option} is for --sweep; add it"
            )
    if "largest_batch" in given and "batch_size" in given:
        raise click.UsageError("--batch-size is what --largest-batch finds; leave out one of them")
    if prime_on == "device" and not given & {"whole_space", "priming_epochs", "method"}:
        raise click.UsageError(
            "--prime-on device needs the length of the priming; add --priming-epochs, for example 0.1"
        )
    if "priming_epochs" in given and prime_on == "host":
        raise click.UsageError("--priming-epochs on the host costs the device nothing; add --prime-on device")


def _sweep(device: str, model: str, space: str, png: Path | None, as_json: bool, job: Mapping[str, Any]) -> None:
    """Price a space and print its fronts."""
    from farsearch.api.estimate import sweep
    from farsearch.files import check_new_file

    if png is not None:
        check_new_file(png, ".png")
    with waiting(f"drawing configurations of the space {space}") as note:
        swept = sweep(device, model, space, **job, progress=note)
    samples, batch_size = _epoch_of(job["samples"], job["rows"]), job["batch_size"] or 16
    span = f"one step of {batch_size} rows" if samples is None else f"one epoch of {samples:,} rows"
    if png is not None:
        from farsearch.report.sweep import save_sweep_png

        save_sweep_png(swept, f"{model} on {device}, space {space}", span, png)
    if as_json:
        click.echo(json.dumps(sweep_json(swept, device, model, space, samples), indent=1))
        return
    _print_sweep(swept, model, device, space, span)
    if png is not None:
        click.echo(f"picture: {png}")


def _print_sweep(swept: Sweep, model: str, device: str, space: str, span: str) -> None:
    from farsearch.cost.sweep import thin
    from farsearch.formatting import human_memory, human_time

    low, high = swept.available_range_mib
    least = human_memory(float(swept.peak_memory_mib.min())), human_time(float(swept.wall_time_s.min()))
    fitting = f"{swept.fitting:,} of {len(swept.configs):,} configurations fit under a plan"
    click.echo(
        f"{model} on {device}, space {space}: {fitting}; least memory {least[0]}, least time {least[1]} for {span}; "
        f"the device has {low:,.0f} to {human_memory(high)}"
    )
    rows = [
        {
            "plan": plan.title,
            "least": human_memory(float(prices.peak_memory_mib.min())),
            "median": human_memory(median(prices.peak_memory_mib)),
            "most": human_memory(float(prices.peak_memory_mib.max())),
            "quickest": human_time(float(prices.wall_time_s.min())),
            "median time": human_time(median(prices.wall_time_s)),
            "slowest": human_time(float(prices.wall_time_s.max())),
            "fit": f"{prices.fits.mean():.1%}",
        }
        for plan, prices in zip(swept.plans, swept.prices, strict=True)
    ]
    print_rows(rows, "by plan: estimated peak memory, time, share that fits", "")
    for title, points in (
        ("nothing takes less of both memory and time", swept.front()),
        ("the most that can be trained within a memory, of what fits", swept.most_trained()),
    ):
        rows = [_front_row(swept, *point) for point in thin(points, _ROWS)]
        print_rows(rows, title, f"{title}: nothing")


def _front_row(swept: Sweep, plan: int, index: int) -> dict[str, str]:
    from farsearch.formatting import human_memory, human_time, mean_frozen

    config, prices = swept.configs[index], swept.prices[plan]
    layers = len(config.frozen_fractions)
    return {
        "memory": human_memory(float(prices.peak_memory_mib[index])),
        "time": human_time(float(prices.wall_time_s[index])),
        "trained": f"{prices.trainable[index] / 1e6:.2f} M",
        "neurons frozen": f"{mean_frozen(config):.0%}",
        "embeddings": "frozen" if config.frozen_embeddings else "trained",
        "attention frozen": f"{config.frozen_head_share:.0%} of heads"
        if config.frozen_heads
        else f"{config.frozen_attention_layers} of {layers}",
        "bottom frozen": f"{config.frozen_bottom_layers} of {layers}",
        "plan": swept.plans[plan].title,
        "fits": "yes" if prices.fits[index] else "no",
    }


COMMANDS = (estimate,)
