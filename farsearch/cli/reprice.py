"""``reprice``: the trials of a study at the costs of another device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from farsearch.cli.options import (
    command_name,
    json_option,
    open_workspace,
    place_options,
    storage_option,
    study_argument,
    tracking_option,
    typed_command,
)
from farsearch.cli.terminal import print_front

if TYPE_CHECKING:
    from farsearch.api.study import Study

__all__ = ["COMMANDS", "print_copy"]


@click.command()
@study_argument
@click.option("--device", required=True, metavar="NAME", help="Profile of the other device.")
@click.option("--name", metavar="NAME", help="Of the copy.  [default: TASK-MODEL-DEVICE-SPACE]")
@place_options
@json_option
@storage_option
@tracking_option
def reprice(
    study: str | None,
    device: str,
    name: str | None,
    data_dir: Path | None,
    model: str | None,
    as_json: bool,
    storage: str | None,
    tracking_uri: str,
) -> None:
    """Copy a study to another device, with the same results at that device's costs. Nothing is trained.

    What a training learns does not depend on the device. The copy is a study like any other: show, export and ui read
    it, and run with the other device continues its search.

    \b
    Examples:
      farsearch reprice --device raspberry-pi-4
      farsearch reprice sst2-minilm-jetson-nano-default --device jetson-orin-nano --name sst2-orin
    """
    from farsearch.trials_json import trials_text

    opened = open_workspace(storage, tracking_uri).open_study(study, wait=True)
    try:
        copy = opened.reprice(device, name=name, data_dir=data_dir, model=model)
    except KeyboardInterrupt:
        click.echo(f"interrupted; to continue:\n  {typed_command()}", err=True)
        raise
    if as_json:
        click.echo(trials_text(copy.snapshot, copy.snapshot.front))
        return
    print_copy(copy, opened)
    program = command_name()
    click.echo(f"next:\n  {program} show {copy.name} --select --within noise\n  {program} ui {copy.name}", err=True)


def print_copy(copy: Study, source: Study) -> None:
    """Print the front of a study's copy for another device, and what was won there."""
    from farsearch.select import won

    snapshot = copy.snapshot
    misfits = sum(not trial.cost.feasible for trial in snapshot.complete)
    trained = f"{copy.name}: {len(snapshot.complete)} trained trials of {source.name}"
    click.echo(
        f"{trained}, priced for {snapshot.settings.device}" + (f"; {misfits} of them do not fit it" if misfits else "")
    )
    print_front(snapshot)
    for sentence in won(snapshot):
        click.echo(sentence)


COMMANDS = (reprice,)
