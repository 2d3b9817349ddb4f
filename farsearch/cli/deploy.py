"""``export`` and ``finetune``: a chosen trial as a bundle, and a bundle's training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farsearch.addresses import shown_address
from farsearch.cli.options import (
    AboveZero,
    choice_options,
    command_name,
    open_workspace,
    storage_option,
    study_argument,
    tracking_option,
)
from farsearch.far.display import shown_text

if TYPE_CHECKING:
    from farsearch.bundle.write import Written
    from farsearch.records import Engine

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@choice_options
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder to write, new or empty, or a file.zip.")  # fmt: skip
@click.option("--delta", is_flag=True, help="Ship only what differs from the public checkpoint.")
@click.option("--onnx", is_flag=True, help="Also ship the fine-tuned model as ONNX, checked against torch.")
@click.option("--engine", type=click.Choice(["torch", "onnx"]),
              help="What trains on the board; onnx needs no torch there.  [default: the trial's]")  # fmt: skip
@click.option(
    "--refit",
    is_flag=True,
    help="First train the trial again, on the rows too that the search held out for validation.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with the study's data on this host, for --refit.  [default: where the run had it]",
)
@click.option("--register", is_flag=False, flag_value="", metavar="[NAME]",
              help="Also put the model into MLflow's registry, under the study's name or another.")  # fmt: skip
@click.option("--alias", default="deployed", show_default=True, metavar="ALIAS", help="Of the registered version.")
@storage_option
@tracking_option
def export(
    study: str | None, intent: dict[str, Any], out: Path, delta: bool, onnx: bool, engine: Engine | None,
    refit: bool, data_dir: Path | None, register: str | None, alias: str, storage: str | None, tracking_uri: str,
) -> None:  # fmt: skip
    """Write the chosen trial as a bundle: start weights, learners, and the fine-tuned model.

    The model in bundle/model loads with transformers alone. Nothing is trained again, but with --refit.

    \b
    Examples:
      farsearch export --prefer knee --out bundle/
      farsearch export --within 0.5 --max-memory 1200 --out bundle/
      farsearch export demo --trial 7 --plan memory --out bundle-7/
      farsearch export demo --out bundle/ --engine onnx
      farsearch export demo --out bundle/ --onnx --register
      farsearch export --within noise --out bundle/ --refit
    """
    from farsearch.bundle.folder import check_new_folder

    check_new_folder(out)
    from farsearch.formatting import human_memory, human_metric, human_time

    opened = open_workspace(storage, tracking_uri).open_study(study)
    choice = opened.choose(**intent)
    trial, snapshot = choice.trial, opened.snapshot
    exported = opened.export(
        choice,
        out,
        delta=delta,
        onnx=onnx,
        engine=engine,
        register=opened.name if register == "" else register,
        alias=alias,
        refit=refit,
        data_dir=data_dir,
    )
    click.echo(choice.reason)
    predicted = exported.bundle.predicted
    cost = (
        f"{human_memory(trial.cost.peak_memory_mib)} and {human_time(trial.cost.wall_time_s)} on "
        f"{snapshot.settings.device}"
        if (engine or trial.plan.engine) == "torch"
        else f"{human_memory(predicted['peaks'][0][1])} on {predicted['device']} without torch"
    )
    final, result = exported.bundle.refit, trial.outcome
    metric = (
        human_metric(snapshot.metric_name, result.metric, result.metric_error)
        if final is None
        else f"trained again on all {final.rows:,} rows, "
        f"{human_metric(snapshot.metric_name, final.metric, final.metric_error)} on the development set"
    )
    click.echo(f"{out}: trial {trial.number}, {metric}, {cost} (estimates)")
    _print_size(exported.bundle, out)
    if exported.bundle.onnx is not None:
        check = exported.bundle.onnx
        click.echo(
            f"{out / 'model' / 'model.onnx'}: {check.size / 2**20:,.1f} MiB, logits within {check.difference:.1e} of "
            f"torch's on {check.batches} batches"
        )
    if exported.registered is not None:
        version = exported.registered
        click.echo(
            f"registered in {shown_address(tracking_uri)}: {version.name}, version {version.version}, as {version.uri}"
        )
    again = f"{command_name()} finetune {shlex.quote(str(out))} --train mine.tsv --dev mine_dev.tsv --out tuned/"
    click.echo(f"next, here:\n  {again}")
    click.echo(
        "or on the board, in the bundle's folder:\n  python3 train.py --train mine.tsv --dev mine_dev.tsv --out tuned/"
    )


def _print_size(written: Written, out: Path) -> None:
    """Print the size of a bundle, and the largest part of a delta."""
    if not written.bulk:
        click.echo(
            f"{written.mib:,.0f} MiB; the fine-tuned model is in {out / 'model'} and loads with transformers alone"
        )
        return
    share = 1 - written.mib / written.whole_mib
    name, size = next(iter(written.bulk.items()))
    click.echo(
        f"{written.mib:,.0f} MiB instead of {written.whole_mib:,.0f} ({share:.0%} less); of the start weights' "
        f"{sum(written.bulk.values()) / 2**20:,.0f} MiB, {size / 2**20:,.0f} are {name}"
    )


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--train",
    type=click.Path(path_type=Path),
    required=True,
    help="Rows with the columns that the bundle's README names.",
)
@click.option("--dev", type=click.Path(path_type=Path), help="Rows of the same columns, to measure on.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new or empty.")
@click.option("--epochs", type=AboveZero(), help="Passes over the training rows.  [default: the bundle's]")
@click.option("--base", type=click.Path(path_type=Path), metavar="FOLDER", help="The public checkpoint, for a --delta.")
@click.option("--engine", type=click.Choice(["torch", "onnx"]), help="What trains.  [default: the bundle's]")
def finetune(
    bundle: Path, train: Path, dev: Path | None, out: Path, epochs: float | None, base: Path | None,
    engine: Engine | None,
) -> None:  # fmt: skip
    """Run a bundle's FAR phase on your own rows.

    The files are tables (.tsv, .csv, .jsonl) whose header names the columns of the bundle's task, as sentence and
    label, with its labels by name or number; for question answering also SQuAD's .json. The result in --out is an
    ordinary model of transformers.

    \b
    Example:
      farsearch finetune bundle/ --train mine.tsv --dev mine_dev.tsv --out tuned/
    """
    from rich.progress import Progress

    from farsearch.api.console import make_console
    from farsearch.bundle.folder import check_new_folder, opened_folder

    check_new_folder(out)
    # takes seconds
    from farsearch.bundle.read import finetune as run_phase
    from farsearch.bundle.read import read_bundle
    from farsearch.formatting import human_metric

    console = make_console(stderr=True)
    with (
        opened_folder(bundle) as folder,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        read = read_bundle(folder)
        task = progress.add_task("FAR phase", total=None)
        tuned = run_phase(
            read, train, dev, out, epochs,
            lambda step, steps, _loss: progress.update(task, completed=step, total=steps),
            lambda text: click.echo(text, err=True), base, engine,
        )  # fmt: skip
    click.echo("\n".join(tuned.summary))
    if tuned.metric is not None and tuned.constant is not None:
        metric, constant = read.task.metric, tuned.constant
        click.echo(f"  {metric} on {dev}: {human_metric(metric, tuned.metric.value, tuned.metric.error)}")
        click.echo(f"  a constant answer ({shown_text(constant.answer)}) scores {human_metric(metric, constant.value)}")


COMMANDS = (export, finetune)
