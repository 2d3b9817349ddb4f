"""``devices list`` and ``devices rank``: all profiles with their memory and speed, and with the cost of a training."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import click

from farsearch.api import HOME
from farsearch.cli.cost_options import cost_options, query_from, title_of
from farsearch.cli.options import json_option
from farsearch.cli.terminal import print_rows, waiting

if TYPE_CHECKING:
    from farsearch.api.estimate import RankedDevice
    from farsearch.devices import Profile

__all__ = ["devices_list", "devices_rank"]

_TITLE = 20
"""Columns of a title in the list, which fits a terminal of 100 columns; ``show`` has it whole."""


@click.command("list")
@json_option
def devices_list(as_json: bool) -> None:
    """List the profiles for --device, with the memory available to a process, speed, and engines of the training step.

    GFLOP/s are those of large matrix products in fp32, in a derived profile a share of the data sheet's peak. The JSON
    has their range and source, also of bandwidth and power.

    \b
    Examples:
      farsearch devices list
      farsearch devices list --json | jq -r '.devices[] | select(.gemm_gflops.value > 500).name'
    """
    from farsearch.devices import load_profiles

    profiles = list(load_profiles(HOME / "devices", lambda text: click.echo(text, err=True)))
    if as_json:
        entries = [_profile_json(profile) for profile in profiles]
        click.echo(json.dumps({"schema_version": 1, "devices": entries}, indent=1))
        return
    rows = [("name", "title", "memory, MiB", "GFLOP/s", "basis", "engines"), *map(_profile_row, profiles)]
    rows.append(("local", "this machine", "at first use", "", "calibrated", "torch"))
    width = max(len(name) for name, *_ in rows)
    for name, title, memory, speed, basis, engines in rows:
        click.echo(f"{name:{width}}  {title:{_TITLE}}  {memory:>16}  {speed:>7}  {basis:10}  {engines}")


def _profile_row(profile: Profile) -> tuple[str, ...]:
    low, high = profile.available_mib
    title = textwrap.shorten(profile.title.removeprefix("NVIDIA "), _TITLE, placeholder=" …")
    speed = f"{profile.gemm_gflops.value:,.0f}"
    return profile.name, title, f"{low:,.0f} to {high:,.0f}", speed, profile.basis, ", ".join(profile.engines)


def _profile_json(profile: Profile) -> dict[str, Any]:
    from farsearch.devices.decoding import encode

    figures = {name: encode(getattr(profile, name)) for name in ("gemm_gflops", "bandwidth_gbs", "power_w")}
    return {
        "name": profile.name,
        "title": profile.title,
        "basis": profile.basis,
        "kind": profile.kind,
        "available_mib_range": profile.available_mib,
        **figures,
        "power_mode": profile.power_mode,
        "engines": profile.engines,
    }


@click.command("rank")
@cost_options
@json_option
def devices_rank(as_json: bool, **values: Any) -> None:
    """Price one training on every device: whether it fits, memory, time and energy, the quickest that fits first.

    Those that it does not fit follow, the least missing memory first. Time is one step, or an epoch with --samples.
    Energy is that of devices whose profile has a power.

    \b
    Examples:
      farsearch devices rank --model distilbert-base-uncased --samples 20000
      farsearch devices rank --model minilm --batch-size 8 --frozen-fraction 0.9 --engine any
      farsearch devices rank --model bert-base-uncased --method lora8 --json | jq -r '.devices[] | select(.fits).device'
    """
    from farsearch.api.estimate import ranked

    with waiting(f"tracing training steps of {values['model']}") as note:
        query = query_from(values)
        found = ranked(query, note)
    if as_json:
        from farsearch.cli.estimate_json import price_json

        entries = [
            {
                "device": one.profile.name,
                "title": one.profile.title,
                **price_json(one.cost),
                "available_mib_range": one.cost.available_range_mib,
                "plan": one.plan.to_dict(),
            }
            for one in found
        ]
        job = {name: getattr(query, name) for name in ("model", "batch_size", "max_length", "samples")}
        click.echo(json.dumps({"schema_version": 1, **job, "method": values["method"], "devices": entries}, indent=1))
        return
    span = "one step" if query.samples is None else f"one epoch of {query.samples:,} rows"
    fitting = f"fits {sum(one.cost.fits for one in found)} of {len(found)} devices"
    batches = f"batches of {query.batch_size} × {query.max_length}"
    print_rows(
        [_ranked_row(one) for one in found],
        f"{title_of(query.model, values['method'])}: {fitting}; {span} in {batches} (all figures are estimates)",
        "no device has figures of this engine",
    )


def _ranked_row(one: RankedDevice) -> dict[str, str]:
    from farsearch.formatting import human_memory, human_time

    cost = one.cost
    low, high = cost.wall_time_range_s
    return {
        "device": one.profile.name,
        "fits": "yes" if cost.fits else "no",
        "memory": human_memory(cost.peak_memory_mib),
        "at most": human_memory(cost.peak_memory_range_mib[1]),
        "available": human_memory(cost.available_range_mib[0]),
        "time": human_time(cost.wall_time_s),
        "between": f"{human_time(low)} and {human_time(high)}",
        "energy": "" if cost.energy_j is None else f"{cost.energy_j:,.0f} J",
    }
