"""``estimate``: predicted memory and time of a configuration, or of a whole space, on a device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from farsearch.cli.estimate_json import cost_json, median, sweep_json
from farsearch.cli.options import AboveZero, ParamType, json_option
from farsearch.cli.task_options import own_options
from farsearch.cli.terminal import print_rows
from farsearch.far.display import shown

if TYPE_CHECKING:
    from farsearch.api.own_rows import OwnRows
    from farsearch.cost.breakdown import CostBreakdown
    from farsearch.cost.fixes import Fix
    from farsearch.cost.pricer import Price
    from farsearch.cost.sweep import Sweep
    from farsearch.records import Engines, FarConfig, Precision, StepPlan

__all__ = ["COMMANDS"]

_ROWS = 15
"""Maximum of printed rows of a front."""
_ONE_ONLY = (
    "frozen_fraction", "frozen_heads", "frozen_embeddings", "frozen_attention_layers", "frozen_bottom_layers",
    "priming_epochs", "plan",
)  # fmt: skip
"""Options of one configuration, which a sweep varies."""


class Fractions(ParamType):
    """One fraction for all layers, or one a layer, separated by commas."""

    name = "f[,f...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of floats."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{shown(value)} is not a fraction, or fractions with commas, each from 0 to 1", param, ctx)


@click.command()
@click.option("--device", required=True, metavar="NAME", help="Profile of the device (see: farsearch devices list).")
@click.option("--model", required=True, metavar="NAME", help="A well-known checkpoint, a folder, or a hub name.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub model.  [default: main]")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N",
              help="Rows of a training step.  [default: 16; with --train as a search of it]")  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=4), metavar="N",
              help="Tokens of a text.  [default: 128; with --train as a search of it]")  # fmt: skip
@click.option("--frozen-fraction", type=Fractions(), default="0", show_default=True,
              help="Share of frozen neurons, one for all layers or one each from the bottom.")  # fmt: skip
@click.option("--frozen-heads", type=Fractions(), help="Share of frozen attention heads, likewise.  [default: 0]")
@click.option("--frozen-embeddings", is_flag=True, help="The embeddings are not trained.")
@click.option("--frozen-attention-layers", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Number of lowest layers whose attention is not trained.")  # fmt: skip
@click.option("--frozen-bottom-layers", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Number of lowest layers that are not trained at all.")  # fmt: skip
@click.option("--classes", type=click.IntRange(min=2), metavar="N", default=2, show_default=True,
              help="Size of the head.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), metavar="N",
              help="Time one epoch of so many rows instead of one step; each at full length, or with --train as its "
              "rows.")  # fmt: skip
@click.option("--train", type=click.Path(path_type=Path), metavar="FILE",
              help="Your own rows, or a .toml file that describes them: time one epoch of them.")  # fmt: skip
@own_options
@click.option("--plan", type=click.Choice(["modules", "memory", "time", "balanced"]), default="modules",
              show_default=True, help="Ordinary modules, or farsearch's own step plan for a goal.")  # fmt: skip
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True,
              help="Two tensors of state for each trained one, or none.")  # fmt: skip
@click.option("--micro-batch-size", type=click.IntRange(min=1), metavar="N",
              help="Rows of one forward pass.  [default: the whole batch]")  # fmt: skip
@click.option("--engine", type=click.Choice(["any", "torch", "onnx"]),
              help="onnx trains on the board's CPU without torch; any is the better one.  [default: torch; with "
              "--sweep any]")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32",
              show_default=True, help="Of the layers; 16 bits take less, and are not exact.")  # fmt: skip
@click.option("--priming-epochs", type=AboveZero(), metavar="E", help="Length of the priming, with --prime-on device.")
@click.option("--prime-on", type=click.Choice(["host", "device"]), default="host", show_default=True,
              help="On the device, priming takes memory and time there.")  # fmt: skip
@click.option("--sweep", "whole_space", is_flag=True, help="Price a whole space under all step plans.")
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
    model: str,
    samples: int | None,
    train: Path | None,
    given: dict[str, Any],
    plan: Literal["modules", "memory", "time", "balanced"],
    optimizer: Literal["adamw", "sgd"],
    micro_batch_size: int | None,
    engine: Engines | None,
    precision: Precision,
    prime_on: Literal["host", "device"],
    whole_space: bool,
    space: str,
    png: Path | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Predict the memory and time of fine-tuning on a device. Needs no weights and no network.

    Memory is the peak of a training step; time is one step, or an epoch with --samples or --train, which needs the
    model's tokenizer. With --sweep, of 10,000 configurations of a space under every plan: the least that can be had,
    and how many fit.

    \b
    Examples:
      farsearch estimate --device raspberry-pi-4 --model distilbert-base-uncased --frozen-fraction 0.9
      farsearch estimate --device jetson-orin-nano --model bert-base-uncased --frozen-fraction 0.9 --plan memory
      farsearch estimate --device raspberry-pi-5 --model distilbert-base-uncased --train rows.csv --plan time
      farsearch estimate --device jetson-nano-2gb --model minilm --frozen-fraction 0.9 --engine onnx
      farsearch estimate --device jetson-nano-2gb --model distilbert-base-uncased --sweep --png sweep.png
    """
    _check_options(context, whole_space, prime_on, train, given)
    job = {name: values[name] for name in ("batch_size", "max_length", "classes", "revision")}
    rows = None if train is None else _own_rows(train, model, given, job)
    job |= {"samples": samples, "prime_on_device": prime_on == "device", "rows": rows}
    if whole_space:
        _sweep(
            device, model, space, png, as_json,
            {
                **job, "optimizer": optimizer, "micro_batch_size": micro_batch_size, "engine": engine,
                "precision": precision,
            },
        )  # fmt: skip
        return
    from farsearch.api.estimate import breakdown_of, features_of, frozen_config, pricer_for
    from farsearch.cost.fixes import suggest_fixes

    frozen = {name: value for name, value in values.items() if name not in job and value is not None}
    config, goal = frozen_config(model, frozen, values["revision"]), None if plan == "modules" else plan
    with _waiting(f"tracing training steps of {model}") as note:
        pricer = pricer_for(device, model, **job, progress=note, engine=engine or "torch", precision=precision)
        priced = breakdown_of(pricer, config, goal, optimizer, micro_batch_size, features_of(samples, rows))
        changes = [] if priced.cost.fits else suggest_fixes(pricer, config, priced)
        if not priced.cost.fits and engine is None and prime_on == "host":
            changes += _other_engine(device, model, job, note, config, priced)
    # the engine's figures may be those of the board's CPU
    name = device if priced.plan.engine == "torch" else pricer.profile_of(priced.plan).name
    if as_json:
        click.echo(json.dumps(cost_json(priced, changes, name, model), indent=1))
    else:
        _print(priced, changes, name, model, pricer.batch_size, _epoch_of(samples, rows))


def _other_engine(
    device: str,
    model: str,
    job: Mapping[str, Any],
    note: Callable[[str], None],
    config: FarConfig,
    priced: CostBreakdown,
) -> list[Fix]:
    """Return the engine without torch as a change, where that fits; nothing where the device has no figures of it."""
    from farsearch.api.estimate import pricer_for
    from farsearch.cost.fixes import engine_fix
    from farsearch.errors import ProfileError

    with suppress(ProfileError):
        change = engine_fix(pricer_for(device, model, **job, progress=note, engine="onnx"), config, priced.plan)
        return [] if change is None else [change]
    return []


def _own_rows(train: Path, model: str, given: Mapping[str, Any], job: Mapping[str, Any]) -> OwnRows:
    """Read the user's rows, and print what was understood."""
    from farsearch.api.own_rows import read_own_rows

    sizes = {name: job[name] for name in ("batch_size", "max_length", "revision")}
    with _waiting(f"reading {train.name}") as note:
        rows = read_own_rows(str(train), model, given, **sizes, progress=note)
    click.echo(rows.understood, err=True)
    return rows


def _epoch_of(samples: int | None, rows: OwnRows | None) -> int | None:
    return rows.count if samples is None and rows is not None else samples


def _check_options(
    context: click.Context, whole_space: bool, prime_on: str, train: Path | None, own: Mapping[str, Any]
) -> None:
    """Raise an error for contradictory options."""
    given = {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if train is None and any(own.values()):
        from farsearch.tasks.description import option_words

        raise click.UsageError(f"{option_words(own)[0]} is for --train; add it")
    if train is not None and "classes" in given:
        raise click.UsageError("--classes is the number of labels in --train; leave out one of them")
    for name in ("space", "png") if not whole_space else _ONE_ONLY:
        if name in given:
            option = f"--{name.replace('_', '-')}"
            rule = "is one configuration's, and --sweep varies it" if whole_space else "is for --sweep"
            raise click.UsageError(
                f"{option} {rule}; leave out one of them" if whole_space else f"{option} {rule}; add it"
            )
    if prime_on == "device" and not whole_space and "priming_epochs" not in given:
        raise click.UsageError(
            "--prime-on device needs the length of the priming; add --priming-epochs, for example 0.1"
        )
    if "priming_epochs" in given and prime_on == "host":
        raise click.UsageError("--priming-epochs on the host costs the device nothing; add --prime-on device")


@contextmanager
def _waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Show the current activity on a terminal; print each note as a line in a pipe."""
    from farsearch.api.console import make_console

    console = make_console(stderr=True)
    with console.status(what) as status:
        yield status.update if console.is_terminal else console.print


def _print(
    priced: CostBreakdown, changes: Sequence[Fix], device: str, model: str, batch_size: int, samples: int | None
) -> None:
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
    if len(priced.phases) > 1:
        lines += [
            (
                name,
                f"{_peak(phase)}, {_duration(phase)} for {priced.steps[name]:,} step{'s' * (priced.steps[name] != 1)}",
            )
            for name, phase in priced.phases.items()
        ]
    if cost.energy_j is not None:
        lines.append(("energy", f"{cost.energy_j:,.0f} J"))
    lines.append(("trained", f"{cost.trainable:,} parameters"))
    lines += [("", problem) for problem in cost.problems]
    for change in changes:
        kind = "learns the same" if change.learns_the_same else "trains less"
        takes = f"{human_memory(change.cost.peak_memory_mib)}, {human_time(change.cost.wall_time_s)}"
        lines.append(("would fit", f"{change.options} ({takes}; {kind})"))
    if not cost.fits and not changes:
        less = "a smaller --model or --max-length, or another --device; freezing is not enough"
        lines.append(("would fit", less))
    click.echo(f"{model} on {device}: {'fits' if cost.fits else 'DOES NOT FIT'} (all figures are estimates)")
    for head, text in lines:
        click.echo(f"  {head:9} {text}")


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


def _sweep(device: str, model: str, space: str, png: Path | None, as_json: bool, job: Mapping[str, Any]) -> None:
    """Price a space and print its fronts."""
    from farsearch.api.estimate import sweep
    from farsearch.files import check_new_file

    if png is not None:
        check_new_file(png, ".png")
    with _waiting(f"drawing configurations of the space {space}") as note:
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
