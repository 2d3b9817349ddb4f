"""The command line of a benchmark whose trainings are recorded one by one, so that the same command resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.grid_record import read_lines
from farsearch.cli.terminal import print_rows
from farsearch.formatting import markdown_table

__all__ = ["recorded_command"]


def recorded_command(
    table: Path,
    epochs: float,
    title: str,
    record: Callable[[Path, Path | None, int, float], None],
    rows_of: Callable[[list[dict[str, Any]]], Iterable[dict[str, str]]],
    text: str,
) -> click.Command:
    """Return a command that trains what a table lacks, on one thread of a CPU, and prints what it has.

    Args:
        table: file of the recorded trainings, one JSON object a line.
        epochs: of a training by default.
        title: of the printed table.
        record: trains what is missing; takes table, folder of GLUE, seeds and epochs.
        rows_of: returns the rows to print from the recorded trainings.
        text: of ``--help``.
    """

    @click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=text)
    @click.option(
        "--data-dir",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        envvar="FARSEARCH_GLUE_DIR",
        help="Folder of the official GLUE download; without it, the hub.",
    )
    @click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
    @click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=epochs, show_default=True)
    @click.option(
        "--table",
        type=click.Path(dir_okay=False, path_type=Path),
        default=table,
        help=f"File of the recorded trainings.  [default: benchmarks/{table.parent.name}/{table.name}]",
    )
    @click.option("--recorded", is_flag=True, help="Train nothing: show the recorded trainings.")
    @click.option("--markdown", is_flag=True, help="Print the table for a document.")
    def main(data_dir: Path | None, seeds: int, epochs: float, table: Path, recorded: bool, markdown: bool) -> None:
        torch.set_num_threads(1)
        if not recorded:
            record(table, data_dir, seeds, epochs)
        rows = list(rows_of([*read_lines(table)]))
        if markdown:
            click.echo(markdown_table(rows))
        else:
            print_rows(rows, title, "nothing is recorded yet")

    return main  # fmt: skip
