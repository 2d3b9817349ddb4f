"""``export`` and ``finetune``: the chosen configuration, and its use."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from farsearch.addresses import shown_address
from farsearch.cli.inspect import chosen, read_snapshot
from farsearch.cli.mirror import remote_tensors
from farsearch.cli.options import (
    HOME,
    AboveZero,
    choice_options,
    command_name,
    open_store,
    storage_option,
    study_argument,
    tracking_option,
)
from farsearch.cli.terminal import make_console
from farsearch.far.display import shown_text

if TYPE_CHECKING:
    from farsearch.bundle.write import Written
    from farsearch.records import StudySnapshot, TrialRecord
    from farsearch.select import Intent

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@choice_options
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder to write, new or empty, or a file.zip.")  # fmt: skip
@click.option("--delta", is_flag=True, help="Ship only what differs from the public checkpoint.")
@click.option("--onnx", is_flag=True, help="Also ship the fine-tuned model as ONNX, checked against torch.")
@click.option("--register", is_flag=False, flag_value="", metavar="[NAME]",
              help="Also put the model into MLflow's registry, under the study's name or another.")  # fmt: skip
@click.option("--alias", default="deployed", show_default=True, metavar="ALIAS", help="Of the registered version.")
@storage_option
@tracking_option
def export(
    study: str | None, intent: Intent, out: Path, delta: bool, onnx: bool, register: str | None, alias: str,
    storage: str | None, tracking_uri: str,
) -> None:  # fmt: skip
    """Write the chosen trial as a bundle: start weights, learners, and the fine-tuned model.

    The model in bundle/model loads with transformers alone. Nothing is trained again.

    \b
    Examples:
      farsearch export --prefer knee --out bundle/
      farsearch export --within 0.5 --max-memory 1200 --out bundle/
      farsearch export demo --trial 7 --plan memory --out bundle-7/
      farsearch export demo --out bundle/ --onnx --register
    """
    from farsearch.bundle.write import write_bundle
    from farsearch.formatting import human_memory, human_metric, human_time

    snapshot, store = read_snapshot(study, storage), open_store(storage)
    remote = remote_tensors(store, snapshot, tracking_uri)
    choice = chosen(snapshot, intent, store, remote)
    name = _registered_name(register, alias, snapshot, delta)
    if remote is not None:
        remote.bring_trial(choice.trial.number)
    written = write_bundle(
        snapshot, choice.trial, store.folder(snapshot.name), out, choice.reason, home=HOME, delta=delta, onnx=onnx,
    )  # fmt: skip
    record = choice.trial
    click.echo(choice.reason)
    click.echo(
        f"{out}: trial {record.number}, {human_metric(snapshot.metric_name, record.metric, record.metric_error)}, "
        f"{human_memory(record.peak_memory_mib)} and {human_time(record.wall_time_s)} on {snapshot.settings.device} "
        "(estimates)"
    )
    _say_size(written, out)
    if written.onnx is not None:
        check = written.onnx
        click.echo(
            f"{out / 'model' / 'model.onnx'}: {check.size / 2**20:,.1f} MiB, logits within {check.difference:.1e} of "
            f"torch's on {check.batches} batches"
        )
    if name is not None:
        _register(tracking_uri, snapshot, choice.trial, out, name, alias)
    again = f"{command_name()} finetune {shlex.quote(str(out))} --train mine.tsv --dev mine_dev.tsv --out tuned/"
    click.echo(f"next, here:\n  {again}")
    click.echo(
        "or on the board, in the bundle's folder:\n  python3 train.py --train mine.tsv --dev mine_dev.tsv --out tuned/"
    )


def _registered_name(register: str | None, alias: str, snapshot: StudySnapshot, delta: bool) -> str | None:
    """The name to register under, looked at before anything is written."""
    if register is None:
        return None
    from farsearch.errors import BadInput
    from farsearch.tracking.registry import check_names

    if delta:
        raise BadInput("--delta leaves the model away and --register needs it; give one of them")
    check_names(register or snapshot.name, alias)
    return register or snapshot.name


def _register(uri: str, snapshot: StudySnapshot, trial: TrialRecord, bundle: Path, name: str, alias: str) -> None:
    """Put the bundle's model into MLflow's registry and say how to load it."""
    from farsearch.bundle.folder import opened_folder
    from farsearch.tracking.registry import register_model

    with opened_folder(bundle) as folder:
        made = register_model(uri, snapshot, trial, folder / "model", name, alias)
    click.echo(f"registered in {shown_address(uri)}: {made.name}, version {made.version}, as {made.uri}")


def _say_size(written: Written, out: Path) -> None:
    """What the bundle weighs, and of what a delta mostly consists."""
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
def finetune(bundle: Path, train: Path, dev: Path | None, out: Path, epochs: float | None, base: Path | None) -> None:
    """Run a bundle's FAR phase on your own rows.

    The files are tables (.tsv, .csv, .jsonl) whose header names the columns of the bundle's task, as sentence and
    label, with its labels by name or number; for question answering also SQuAD's .json. The result in --out is an
    ordinary model of transformers.

    \b
    Example:
      farsearch finetune bundle/ --train mine.tsv --dev mine_dev.tsv --out tuned/
    """
    from rich.progress import Progress

    from farsearch.bundle.folder import opened_folder
    from farsearch.bundle.read import finetune as run_phase
    from farsearch.bundle.read import read_bundle
    from farsearch.formatting import human_metric

    console = make_console(stderr=True)
    with (
        opened_folder(bundle) as folder,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        opened = read_bundle(folder)
        task = progress.add_task("FAR phase", total=None)
        tuned = run_phase(
            opened, train, dev, out, epochs,
            lambda step, steps, _loss: progress.update(task, completed=step, total=steps),
            lambda text: click.echo(text, err=True), base,
        )  # fmt: skip
    click.echo(f"{out}: the fine-tuned model after {tuned.steps} steps")
    if tuned.metric is not None and tuned.constant is not None:
        metric, constant = opened.task.metric, tuned.constant
        click.echo(f"  {metric} on {dev}: {human_metric(metric, tuned.metric.value, tuned.metric.error)}")
        click.echo(f"  a constant answer ({shown_text(constant.answer)}) scores {human_metric(metric, constant.value)}")


COMMANDS = (export, finetune)
