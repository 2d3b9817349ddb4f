"""``export`` and ``finetune``: the chosen configuration, and its use."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from farsearch.cli.look import chosen, read_snapshot
from farsearch.cli.options import (
    AboveZero,
    choice_options,
    command_name,
    open_store,
    storage_option,
    study_argument,
)
from farsearch.cli.terminal import make_console

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@choice_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new or empty.")
@storage_option
def export(study: str | None, prefer: str | None, trial: int | None, out: Path, storage: str | None) -> None:
    """Write the chosen trial as a bundle: start weights, learners, and the fine-tuned model.

    The model in bundle/model loads with transformers alone. Nothing is trained again.

    \b
    Examples:
      farsearch export --prefer knee --out bundle/
      farsearch export demo --trial 7 --out bundle-7/
    """
    from farsearch.bundle.write import write_bundle
    from farsearch.tables import human_memory, human_metric, human_time

    snapshot = read_snapshot(study, storage)
    choice = chosen(snapshot, trial, prefer)
    folder = write_bundle(snapshot, choice.trial, open_store(storage).folder(snapshot.name), out, choice.reason)
    record = choice.trial
    click.echo(choice.reason)
    click.echo(
        f"{folder}: trial {record.number}, {human_metric(snapshot.metric_name, record.metric, record.metric_error)}, "
        f"{human_memory(record.peak_memory_mib)} and {human_time(record.wall_time_s)} on {snapshot.settings.device} "
        "(estimates)"
    )
    click.echo(f"the fine-tuned model is in {folder / 'model'} and loads with transformers alone")
    again = f"{command_name()} finetune {shlex.quote(str(folder))} --train mine.tsv --dev mine_dev.tsv --out tuned/"
    click.echo(f"next:\n  {again}")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--train", type=click.Path(path_type=Path), required=True, help="TSV: sentence, label; with that header.")
@click.option("--dev", type=click.Path(path_type=Path), help="TSV of the same form, to measure on.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new or empty.")
@click.option("--epochs", type=AboveZero(), help="Passes over the training rows.  [default: the bundle's]")
def finetune(bundle: Path, train: Path, dev: Path | None, out: Path, epochs: float | None) -> None:
    """Run a bundle's FAR phase on your own labelled sentences.

    The files have a line 'sentence<TAB>label' and then one sentence a line, with the labels of the bundle's task by
    name or number. The result in --out is an ordinary model of transformers.

    \b
    Example:
      farsearch finetune bundle/ --train mine.tsv --dev mine_dev.tsv --out tuned/
    """
    from rich.progress import Progress

    from farsearch.bundle.read import finetune as run_phase
    from farsearch.bundle.read import read_bundle
    from farsearch.tables import human_metric

    opened = read_bundle(bundle)
    console = make_console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("FAR phase", total=None)
        tuned = run_phase(
            opened, train, dev, out, epochs,
            lambda step, steps, _loss: progress.update(task, completed=step, total=steps),
        )  # fmt: skip
    click.echo(f"{out}: the fine-tuned model after {tuned.steps} steps")
    if tuned.metric is not None:
        metric = opened.spec.metric
        click.echo(f"  {metric} on {dev}: {human_metric(metric, tuned.metric.value, tuned.metric.error)}")


COMMANDS = (export, finetune)
