"""Reproduce FAR's paper: its methods on its tasks, compared with the published figures.

Vucetic et al., "Efficient Fine-Tuning of BERT Models on the Edge", ISCAS 2022, compare full fine-tuning, FAR, random
neurons and BitFit with DistilBERT on GLUE and SQuAD 2. Here every method is trained on all given rows of a task,
with nothing held out, and evaluated on the official development set, as there. The seed of a training determines the
new head, the drawn rows and their order, dropout, and the random neurons.

A method has one learning rate on all tasks, selected without any development row (paper_methods.py). Cells are recorded
one by one (paper_cells.py), and the same command resumes an interrupted run. paper_statistics.py defines the intervals.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.paper_cells import (
    TABLES,
    Recipe,
    Table,
    open_table,
    read_table,
    resolve,
    table_path,
    time_steps,
    train_cell,
)
from benchmarks.paper_methods import CONTENDERS, WAVES
from benchmarks.paper_report import Report, make_report
from farsearch.cli.terminal import print_rows
from farsearch.errors import FarsearchError
from farsearch.formatting import markdown_table

__all__ = ["main", "record"]

_LEAST_SEEDS = 3


def _note(text: str) -> None:
    click.echo(text, err=True)


def record(recipes: Sequence[Recipe], seeds: int, folder: Path) -> list[Table]:
    """Train the missing cells: full fine-tuning and FAR r=10 % first, seed by seed, task by task.

    Then the steps of all methods are timed in turn.

    Args:
        seeds: their number, from 1 on.
        folder: of the tables.

    Raises:
        click.UsageError: if a table was recorded with other settings.
        BadInput, MissingResource: as ``resolve_job``.
    """
    jobs = [resolve(recipe, _note) for recipe in recipes]
    tables = [
        open_table(table_path(folder, recipe.task, recipe.model), job, recipe.epochs)
        for recipe, job in zip(recipes, jobs, strict=True)
    ]
    cells = [
        (seed, recipe, job, table, CONTENDERS[name])
        for wave in WAVES
        for seed in range(1, seeds + 1)
        for recipe, job, table in zip(recipes, jobs, tables, strict=True)
        for name in wave
    ]
    for number, (seed, recipe, job, table, contender) in enumerate(cells, 1):
        if (seed, contender.method.name) in table.cells:
            continue
        cell = train_cell(job, seed, contender, recipe.epochs)
        table.add(cell)
        _note(f"{number}/{len(cells)} {recipe.task}, seed {seed}, {contender.method.title}: {_found(cell)}")
    for recipe, job, table in zip(recipes, jobs, tables, strict=True):
        if table.times is None:
            table.add_times(time_steps(job, recipe.epochs, _note))
    return tables


def _found(cell: dict[str, Any]) -> str:
    if cell["metric"] is None:
        return str(cell["reason"])
    return f"{100 * cell['metric']:.1f} in {cell['training']['wall_s']:.0f} s"


def _recorded(recipes: Sequence[Recipe], folder: Path) -> list[Table]:
    """Read the existing tables."""
    tables = []
    for recipe in recipes:
        path = table_path(folder, recipe.task, recipe.model)
        if not path.is_file():
            raise click.UsageError(f"there is no {path}; leave --recorded out to train {recipe.task}")
        tables.append(read_table(path))
    return tables


def _print(report: Report, as_json: bool, as_markdown: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
        return
    for title, rows in report.tables():
        if as_markdown:
            click.echo(f"### {title}\n\n{markdown_table(rows)}\n")
        else:
            print_rows(rows, title, f"{title}: nothing is recorded yet")


def _samples(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
    if text is None or text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number of at least 1 nor 'all'")
    return int(text)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), envvar="FARSEARCH_GLUE_DIR",
              help="Folder of the official GLUE download, with SST-2 and CoLA in it; without it, the hub.")  # fmt: skip
@click.option("--task", "tasks", metavar="NAME", multiple=True, default=("sst2", "cola"), show_default=True,
              help="Any of `farsearch tasks list`, several times.")  # fmt: skip
@click.option("--model", metavar="NAME", default="minilm", show_default=True,
              help="A short name, a folder, or a hub name.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=_LEAST_SEEDS), default=_LEAST_SEEDS, show_default=True,
              help="Trainings of a method on a task.")  # fmt: skip
@click.option("--train-samples", metavar="N|all", callback=_samples,
              help="Training rows of every task.  [default: 4096 of sst2, all of others]")  # fmt: skip
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True,
              help="Over those rows.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", default=8, show_default=True,
              help="Rows of a step.")  # fmt: skip
@click.option("--tables", type=click.Path(file_okay=False, path_type=Path), default=TABLES,
              help="Folder of the recorded cells.  [default: benchmarks/paper]")  # fmt: skip
@click.option("--recorded", is_flag=True, help="Train nothing: show the recorded cells.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with a schema_version.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the tables for a document.")
def main(
    data_dir: Path | None,
    tasks: tuple[str, ...],
    model: str,
    seeds: int,
    train_samples: Any,
    epochs: float,
    batch_size: int,
    tables: Path,
    recorded: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Train the methods of FAR's paper, and compare with its figures.

    On a CPU it uses one thread. A cell is one training, recorded at its end: the same command resumes the run.

    \b
    Examples:
      python -m benchmarks.paper --data-dir glue
      python -m benchmarks.paper --recorded --json
      python -m benchmarks.paper --model distilbert-base-uncased --task mnli --task squad_v2 --batch-size 16
    """
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    recipes = [Recipe(task, model, data_dir, train_samples, epochs, batch_size) for task in dict.fromkeys(tasks)]
    try:
        tables_of_cells = _recorded(recipes, tables) if recorded else record(recipes, seeds, tables)
    except FarsearchError as error:
        failure = click.ClickException(str(error))
        failure.exit_code = error.exit_code  # type: ignore[misc]
        raise failure from error
    _print(make_report(tables_of_cells), as_json, as_markdown)


if __name__ == "__main__":
    main()
