"""``run``: the search."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.options import (
    command_name,
    heartbeat_option,
    open_workspace,
    spec_options,
    storage_option,
    tracking_option,
    typed_command,
)
from farsearch.cli.reprice import print_copy
from farsearch.cli.terminal import print_front, print_verdicts
from farsearch.signals import when_interrupted

if TYPE_CHECKING:
    from farsearch.api.study import Study

__all__ = ["COMMANDS"]


@click.command()
@spec_options
@click.option("--dry-run", is_flag=True, help="Describe the search and how long it takes, and train nothing.")
@storage_option
@tracking_option
@heartbeat_option
def run(
    spec: dict[str, Any], more_devices: list[str], dry_run: bool, storage: str | None, tracking_uri: str,
    heartbeat: int | None,
) -> None:  # fmt: skip
    """Search for the best trade-offs between accuracy, memory and time on a device.

    The same command again resumes the study, up to the given number of trials. Baselines are trained first, stored in
    the study NAME/baselines, and do not count as trials; those that are configurations of FAR are the first trials.

    With --device given again, the search is for the first device, and its trials are priced for the others too, in a
    study of each, as farsearch reprice does.

    Several processes search at once with --workers N, and those of other hosts join with farsearch worker.

    \b
    Examples:
      farsearch run --device jetson-nano --task reviews
      farsearch run --device jetson-nano --task sst2
      farsearch run --device jetson-nano --device raspberry-pi-4 --task sst2
      farsearch run --device jetson-nano --task sst2 --baselines none --space paper
      farsearch run --device jetson-nano --task sst2 --workers 4 --storage postgresql://me@server/studies
      farsearch run --device jetson-nano --train mails.csv --text-column body --label-column folder
      farsearch run --device jetson-nano --train pairs.tsv --dev more.tsv --text-column a --text-column b --metric f1
      farsearch run --device jetson-nano --task mails.toml
      farsearch run --device raspberry-pi-4 --task cola --data-dir glue/CoLA --model minilm
      farsearch run --device jetson-tx2 --task sst2 --set priming_epochs=0.1 --max-memory 2000 --dry-run
    """
    workspace = open_workspace(storage, tracking_uri, heartbeat, typed_command())
    if dry_run:
        for line in workspace.preview(**spec):
            click.echo(line, err=True)
        click.echo("dry run: nothing was trained", err=True)
        return
    for device in (spec["device"], *more_devices):
        workspace.check_device(device)
    # takes seconds, in which there is nothing to resume yet
    import_module("farsearch.api.training")
    with when_interrupted(f"interrupted; finished trials are stored. To resume:\n  {typed_command()}"):
        study = workspace.search(**spec)
        name = spec["study"]
        copies = [study.reprice(device, name=name and f"{name}-{device}") for device in more_devices]
    for copy in copies:
        print_copy(copy, study)
    _print_result(study)


COMMANDS = (run,)


def _print_result(study: Study) -> None:
    """Print the front as a table, the path of its picture, and the next commands."""
    from farsearch.formatting import constant_text
    from farsearch.select import won

    snapshot, console = study.snapshot, study.workspace.console()
    print_front(snapshot)
    if constant_text(snapshot):
        console.print(constant_text(snapshot))
    rejected = ", ".join(f"{reason} {count}" for reason, count in snapshot.rejected.items())
    if rejected:
        console.print(f"proposals that were not trained: {rejected}")
    if snapshot.verified:
        print_verdicts(snapshot)
    if not snapshot.front:
        return
    picture = study.save_front(study.workspace.home / "studies" / study.name / "front.png")
    program = command_name()
    console.print(f"picture: {picture}")
    if not snapshot.baselines:
        console.print("to compare with full fine-tuning, FAR r=10 % and LoRA: the same run with --baselines rivals")
    console.print(
        f"next:\n  {program} pareto {snapshot.name}\n  {program} ui {snapshot.name}\n"
        f"  {program} export {snapshot.name} --within noise --out bundle/"
    )
    for sentence in won(snapshot):
        console.print(sentence)
