"""``estimate``: what a configuration costs on a device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import click

from farsearch.cli.options import ParamType, json_option

if TYPE_CHECKING:
    from farsearch.cost.price import Cost

__all__ = ["COMMANDS"]


class Fractions(ParamType):
    """One fraction for all layers, or one a layer, with commas."""

    name = "f[,f...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A tuple of floats."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a fraction, or fractions with commas, each from 0 to 1", param, ctx)


@click.command()
@click.option("--device", required=True, metavar="NAME", help="Profile of the device (see: farsearch devices list).")
@click.option("--model", required=True, metavar="NAME", help="A well-known checkpoint, a folder, or a hub name.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", default=16, show_default=True,
              help="Rows of a training step.")  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=4), metavar="N", default=128, show_default=True,
              help="Tokens of a text.")  # fmt: skip
@click.option("--frozen-fraction", type=Fractions(), default="0", show_default=True,
              help="Share of frozen neurons, one for all layers or one each from the bottom.")  # fmt: skip
@click.option("--frozen-embeddings", is_flag=True, help="The embeddings are not trained.")
@click.option("--frozen-attention-layers", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="So many of the lowest layers do not train their attention.")  # fmt: skip
@click.option("--frozen-bottom-layers", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="So many of the lowest layers are not trained at all.")  # fmt: skip
@click.option("--classes", type=click.IntRange(min=2), metavar="N", default=2, show_default=True,
              help="Size of the head.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), metavar="N",
              help="Time one epoch of so many rows, each at full length, instead of one step.")  # fmt: skip
@click.option("--plan", type=click.Choice(["modules", "memory", "time", "balanced"]), default="modules",
              show_default=True, help="Ordinary modules, or farsearch's own step, arranged for a goal.")  # fmt: skip
@json_option
def estimate(
    device: str,
    model: str,
    batch_size: int,
    max_length: int,
    frozen_fraction: tuple[float, ...],
    frozen_embeddings: bool,
    frozen_attention_layers: int,
    frozen_bottom_layers: int,
    classes: int,
    samples: int | None,
    plan: Literal["modules", "memory", "time", "balanced"],
    as_json: bool,
) -> None:
    """Predict the memory and time of fine-tuning on a device. Needs no weights and no network.

    Memory is the worst moment of a training step with AdamW; time is one step, or an epoch with --samples.

    \b
    Examples:
      farsearch estimate --device raspberry-pi-4 --model distilbert-base-uncased --frozen-fraction 0.9
      farsearch estimate --device jetson-nano --model bert-base-uncased --batch-size 4 --frozen-embeddings
      farsearch estimate --device jetson-orin-nano --model bert-base-uncased --frozen-fraction 0.9 --plan memory
    """
    from farsearch.api import estimate as predict

    cost = predict(
        device,
        model,
        batch_size=batch_size,
        max_length=max_length,
        classes=classes,
        samples=samples,
        plan=None if plan == "modules" else plan,
        progress=lambda text: click.echo(text, err=True),
        frozen_fraction=frozen_fraction,
        frozen_embeddings=frozen_embeddings,
        frozen_attention_layers=frozen_attention_layers,
        frozen_bottom_layers=frozen_bottom_layers,
    )
    if as_json:
        click.echo(json.dumps(_as_json(cost, device, model), indent=1))
    else:
        _print(cost, device, model, samples)


def _as_json(cost: Cost, device: str, model: str) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "device": device,
        "model": model,
        "tensor_peak_mib": cost.tensor_peak_mib,
        "peak_memory_mib": cost.peak_memory_mib,
        "peak_memory_mib_range": cost.peak_memory_range_mib,
        "available_mib_range": cost.available_range_mib,
        "step_time_s": cost.step_time_s,
        "wall_time_s": cost.wall_time_s,
        "wall_time_s_range": cost.wall_time_range_s,
        "energy_j": cost.energy_j,
        "trainable": cost.trainable,
        "fits": cost.fits,
        "breakdown": {"memory_mib": dict(cost.memory), "time_s": dict(cost.time)},
    }


def _print(cost: Cost, device: str, model: str, samples: int | None) -> None:
    from farsearch.tables import human_time

    low, high = cost.peak_memory_range_mib
    have = cost.available_range_mib
    span = "one step" if samples is None else f"one epoch of {samples} rows"
    parts = ", ".join(f"{name} {mib:.0f}" for name, mib in cost.memory.items() if mib >= 0.5)
    early, late = (human_time(seconds) for seconds in cost.wall_time_range_s)
    click.echo(f"{model} on {device}: {'fits' if cost.fits else 'DOES NOT FIT'}")
    click.echo(f"  tensors      {cost.tensor_peak_mib:.0f} MiB at the worst moment of a step ({parts})")
    click.echo(
        f"  with process {cost.peak_memory_mib:.0f} MiB ({low:.0f} to {high:.0f}); "
        f"the device has {have[0]:.0f} to {have[1]:.0f}"
    )
    click.echo(f"  time         {human_time(cost.wall_time_s)} for {span} ({early} to {late}), an estimate")
    if cost.energy_j is not None:
        click.echo(f"  energy       {cost.energy_j:.0f} J, an estimate")
    click.echo(f"  trained      {cost.trainable:,} parameters")
    for problem in cost.problems:
        click.echo(f"  {problem}")


COMMANDS = (estimate,)
