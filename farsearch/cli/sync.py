"""``sync``: makes MLflow show a study as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from farsearch.addresses import shown_address
from farsearch.cli.options import open_workspace, storage_option, study_argument, tracking_option

if TYPE_CHECKING:
    from farsearch.api.workspace import Workspace

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@click.option("--measurement", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="First store what a board measured with a bundle: train.py's measurement.json.")  # fmt: skip
@storage_option
@tracking_option
def sync(study: str | None, measurement: Path | None, storage: str | None, tracking_uri: str) -> None:
    """Make MLflow show a study as it is, also after its database was lost.

    \b
    Examples:
      farsearch sync
      farsearch sync demo --measurement tuned/measurement.json
    """
    workspace = open_workspace(storage, tracking_uri)
    name = study if measurement is None else _add_measurement(workspace, measurement, study)
    for synced in workspace.open_study(name).sync():
        runs, tensors = synced.runs, synced.tensors
        click.echo(
            f"study {synced.study} in {shown_address(tracking_uri)}: {runs.created} runs made, {runs.updated} updated, "
            f"{runs.unchanged} were right, {runs.removed} removed"
        )
        if tensors is not None:
            click.echo(
                f"tensors of its trials: {tensors.uploaded} uploaded, {tensors.held} were there, "
                f"{tensors.removed} removed"
            )


def _add_measurement(workspace: Workspace, file: Path, name: str | None) -> str:
    """Store a board's measurement, and return the name of its study."""
    from farsearch.devices import is_another_machine
    from farsearch.formatting import human_memory, human_time

    study, measured = workspace.add_measurement(file, name)
    click.echo(
        f"trial {measured.trial} on {measured.machine}: {human_memory(measured.peak_memory_mib)}, predicted "
        f"{human_memory(measured.predicted_memory_mib)}; {human_time(measured.wall_time_s)}, predicted "
        f"{human_time(measured.predicted_time_s)}"
    )
    device = study.snapshot.settings.device
    if is_another_machine(device, measured.machine):
        click.echo(f"predictions are for {device}, which that machine is not: the report does not compare them")
    return study.name


COMMANDS = (sync,)
