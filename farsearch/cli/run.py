"""``farsearch run``: the search."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from farsearch.cli.options import (
    KeyValue,
    SamplesOrAll,
    command_name,
    open_store,
    storage_option,
    tracking_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from farsearch.jobs import Job
    from farsearch.records import StudySnapshot
    from farsearch.study.search import Search

__all__ = ["COMMANDS"]


@click.command()
@click.option("--device", required=True, metavar="NAME", help="Profile of the device (see: farsearch devices list).")
@click.option("--task", required=True, metavar="NAME", help="sst2, cola, or reviews, the embedded sample.")
@click.option("--model", metavar="NAME", help="Hub name, folder, or minilm.  [distilbert-base-uncased]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with the task's files as GLUE has them.")
@click.option("--study", metavar="NAME", help="Name of the study.  [task-model-device-space]")
@click.option("--space", default="default", show_default=True, metavar="NAME", help="Search space, or a .yaml file.")
@click.option("--n-trials", type=click.IntRange(min=1), default=30, show_default=True, help="Trained trials in all.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Start no trial after so many seconds.")
@click.option("--train-samples", type=SamplesOrAll(), help="Rows that a trial trains on.  [at most 4096]")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), help="Length of the FAR phase.  [1]")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--max-length", type=click.IntRange(min=4), help="Tokens of a text.  [the longest, at most 128]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same for every trial.")
@click.option("--set", "fixed", type=KeyValue(), multiple=True, help="Fix a searched parameter; may be repeated.")
@click.option("--max-memory", type=click.FloatRange(min=0, min_open=True), metavar="MIB", help="Bound of the peak.")
@click.option("--max-time", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Bound of the wall time.")
@click.option("--device-samples", type=click.IntRange(min=1), help="Rows that the device will train on.")
@click.option("--prime-on", type=click.Choice(["host", "device"]), default="host", show_default=True)
@click.option("--sampler", default="tpe", show_default=True, metavar="NAME", help="tpe, nsga2, gp or random.")
@click.option("--dry-run", is_flag=True, help="Say what the search would do, and stop there.")
@storage_option
@tracking_option
def run(
    device: str,
    task: str,
    model: str | None,
    data_dir: Path | None,
    study: str | None,
    space: str,
    n_trials: int,
    timeout: float | None,
    train_samples: Any,
    epochs: float | None,
    batch_size: int,
    max_length: int | None,
    seed: int,
    fixed: tuple[tuple[str, Any], ...],
    max_memory: float | None,
    max_time: float | None,
    device_samples: int | None,
    prime_on: Literal["host", "device"],
    sampler: str,
    dry_run: bool,
    storage: str | None,
    tracking_uri: str,
) -> None:
    """Search for the best trade-offs between accuracy, memory and time on a device.

    The same command again goes on with the study, up to the number of trials asked for.

    \b
    Examples:
      farsearch run --device jetson-nano --task reviews
      farsearch run --device jetson-nano --task sst2
      farsearch run --device raspberry-pi-4 --task cola --data-dir glue/CoLA --model minilm --space wide
      farsearch run --device jetson-tx2 --task sst2 --set priming_epochs=0.1 --max-memory 2000 --dry-run
    """
    from rich.console import Console

    from farsearch.jobs import JobOptions, resolve_job
    from farsearch.study.samplers import make_sampler

    console = Console(stderr=True)
    make_sampler(sampler)  # a wrong name is told before anything is read
    store = open_store(storage)
    options = JobOptions(
        task=task, device=device, model=model, space=space, data_dir=data_dir, train_samples=train_samples,
        epochs=epochs, batch_size=batch_size, max_length=max_length, seed=seed, fixed=dict(fixed),
        max_memory_mib=max_memory, max_time_s=max_time, device_samples=device_samples, prime_on=prime_on,
    )  # fmt: skip
    job = resolve_job(options, store, lambda text: console.print(text, highlight=False))
    _search(console, job, store, study or job.default_name, n_trials, timeout, sampler, tracking_uri, dry_run)


COMMANDS = (run,)


def _search(
    console: Console,
    job: Job,
    store: Any,
    name: str,
    n_trials: int,
    timeout: float | None,
    sampler: str,
    tracking_uri: str,
    dry_run: bool,
) -> None:
    from farsearch.cli.progress import SearchProgress
    from farsearch.records import StepPlan
    from farsearch.study.outlook import outlook
    from farsearch.study.search import Search
    from farsearch.study.snapshot import snapshot_of

    bench = job.bench(store)
    pricer = job.pricer(bench)
    plan = StepPlan()
    _say_job(console, job, name)
    for line in outlook(job.space, pricer, bench, plan, n_trials).lines():
        console.print(line, highlight=False)
    if dry_run:
        console.print("dry run: nothing was trained", highlight=False)
        return
    study = store.open(name, job.settings, {**job.meta, "command": shlex.join([command_name(), *sys.argv[1:]])})
    mirror = _mirror(console, tracking_uri)
    with SearchProgress(console, n_trials, job.data.spec.metric, mirror) as progress:
        progress.already(snapshot_of(study))
        search = Search(study, store, bench, pricer, job.space, sampler, plan, progress)
        snapshot = _run(search, console, n_trials, timeout)
    mirror(snapshot)
    _finish(console, snapshot)


def _run(search: Search, console: Console, n_trials: int, timeout: float | None) -> StudySnapshot:
    try:
        return search.run(n_trials, timeout)
    except KeyboardInterrupt:
        again = shlex.join([command_name(), *sys.argv[1:]])
        console.print(f"interrupted; finished trials are kept. To go on: {again}", highlight=False, soft_wrap=True)
        raise


def _say_job(console: Console, job: Job, name: str) -> None:
    spec, settings = job.settings.job, job.settings
    console.print(
        f"study {name}: {spec.task} ({job.data.source}), {spec.model}, {spec.train_samples} training and "
        f"{spec.validation_samples} validation rows, batch {spec.batch_size}, at most {spec.max_length} tokens",
        highlight=False,
    )
    low, high = job.profile.available_mib
    console.print(
        f"device {settings.device}: {job.profile.title}; {low:.0f} to {high:.0f} MiB for the process "
        f"({job.profile.basis} figures)",
        highlight=False,
    )


def _mirror(console: Console, tracking_uri: str) -> Callable[[StudySnapshot], str | None]:
    """A function that mirrors a snapshot in MLflow, and says so when that fails: the search goes on without."""
    from farsearch.errors import FarsearchError
    from farsearch.tracking import open_tracking

    with console.status("opening MLflow's database"):
        tracker = open_tracking(tracking_uri)

    def mirror(snapshot: StudySnapshot) -> str | None:
        try:
            tracker.sync(snapshot)
        except FarsearchError as error:
            return f"{error}; the search goes on, farsearch sync catches up"
        return None

    return mirror


def _finish(console: Console, snapshot: StudySnapshot) -> None:
    """The front as a table, its picture, and what to type next."""
    from rich.console import Console as Output

    from farsearch.cli.options import HOME
    from farsearch.report import save_front_png
    from farsearch.tables import front_rows, print_table

    finished = len(snapshot.complete)
    print_table(front_rows(snapshot), Output(), f"{snapshot.name}: Pareto front of {finished} trained trials")
    rejected = ", ".join(f"{count} by {reason}" for reason, count in snapshot.rejected.items())
    if rejected:
        console.print(f"proposals that were not trained: {rejected}", highlight=False)
    picture = HOME / "studies" / snapshot.name / "front.png"
    save_front_png(snapshot, picture)
    program = command_name()
    console.print(f"picture: {picture}", highlight=False)
    console.print(
        f"next:\n  {program} pareto {snapshot.name}\n  {program} ui {snapshot.name}\n"
        f"  {program} export {snapshot.name} --prefer knee --out bundle/",
        highlight=False,
    )
