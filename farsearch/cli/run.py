"""``farsearch run``: the search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from farsearch.cli.options import (
    AboveZero,
    KeyValue,
    SamplesOrAll,
    command_name,
    heartbeat_option,
    open_store,
    storage_option,
    task_options,
    tracking_option,
    typed_command,
)
from farsearch.cli.terminal import estimates_for, make_console, print_rows
from farsearch.signals import when_interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from farsearch.cli.progress import Mirror, SearchProgress
    from farsearch.records import StudySnapshot
    from farsearch.search_spec import Job, JobOptions
    from farsearch.study.search import Search
    from farsearch.study.store import Store

__all__ = ["COMMANDS"]


@click.command()
@click.option("--device", required=True, metavar="NAME", help="Profile of the device (see: farsearch devices list).")
@task_options
@click.option(
    "--model",
    metavar="NAME",
    help="Hub name, folder, minilm, or a known model, as deberta-v3-small.  [default: distilbert-base-uncased, for "
    "reviews minilm]",
)
@click.option("--allow-pickle", is_flag=True,
              help="Also read pytorch_model.bin, which can hold any code; without it only safetensors.")  # fmt: skip
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub model; the study keeps its commit.  "
              "[default: main]")  # fmt: skip
@click.option("--keep-head", is_flag=True,
              help="Keep the head that the checkpoint brings, where its labels are the task's.")  # fmt: skip
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with the task's files as GLUE or SQuAD has them, or with your own.  [default: from the hub]",
)
@click.option("--study", metavar="NAME", help="Name of the study.  [default: TASK-MODEL-DEVICE-SPACE]")
@click.option(
    "--space", default="default", show_default=True, metavar="NAME",
    help="Search space (see: farsearch spaces list), or your own .yaml file.",
)  # fmt: skip
@click.option("--n-trials", type=click.IntRange(min=1), metavar="N", default=30, show_default=True,
              help="Trained trials that the study is to have in all.")  # fmt: skip
@click.option("--timeout", type=AboveZero(), metavar="S", help="Start no trial after so many seconds.")
@click.option("--train-samples", type=SamplesOrAll(), metavar="N|all",
              help="Rows that a trial trains on.  [default: at most 4096]")  # fmt: skip
@click.option("--epochs", type=AboveZero(), help="Passes over them in the FAR phase.  [default: the space's, 1]")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N",
              help="Rows of a training step.  [default: by the model's size, 8 for MiniLM, else 16]")  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=4), metavar="N",
              help="Tokens at which a text is cut.  [default: the longest, at most 128; questions 384]")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
              help="Of the data and the training, the same in every trial.")  # fmt: skip
@click.option("--set", "fixed", type=KeyValue(), multiple=True,
              help="Fix a parameter of the space, for example learning_rate=1e-4; may be repeated.")  # fmt: skip
@click.option("--max-memory", type=AboveZero(), metavar="MIB", help="Bound of the peak memory beside the device's own.")
@click.option("--max-time", type=AboveZero(), metavar="S", help="Bound of the wall time on the device.")
@click.option("--device-samples", type=click.IntRange(min=1), metavar="N",
              help="Rows that the device will train on, for its time.  [default: those of a trial]")  # fmt: skip
@click.option("--prime-on", type=click.Choice(["host", "device"]), default="host", show_default=True,
              help="Where priming runs; on the device it costs memory and time there.")  # fmt: skip
@click.option("--plan", type=click.Choice(["memory", "time", "balanced"]), default="balanced", show_default=True,
              help="What a step is arranged for on the device: least memory, least time, or both.")  # fmt: skip
@click.option("--sampler", default="known-cost", show_default=True, metavar="NAME",
              help="known-cost, tpe, nsga2, gp or random.")  # fmt: skip
@click.option("--racing/--no-racing", default=True, show_default=True,
              help="Stop a trial that can't reach the front any more.")  # fmt: skip
@click.option("--baselines", type=click.Choice(["all", "paper", "none"]), default="none", show_default=True,
              help="Then train what the front is compared with: full fine-tuning, FAR r=10 % and BitFit (paper), also "
                   "all FFNs frozen and LoRA (all), each at three learning rates.")  # fmt: skip
@click.option("--verify", is_flag=True,
              help="Then train the front's best again, as farsearch verify does.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), metavar="N", default=1, show_default=True,
              help="Processes that train at once on this host; they share its cores.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what the search would do and how long it takes, and stop there.")
@storage_option
@tracking_option
@heartbeat_option
def run(
    device: str,
    task: str,
    own: dict[str, Any] | None,
    model: str | None,
    allow_pickle: bool,
    revision: str | None,
    keep_head: bool,
    data_dir: Path | None,
    study: str | None,
    space: str,
    n_trials: int,
    timeout: float | None,
    train_samples: Any,
    epochs: float | None,
    batch_size: int | None,
    max_length: int | None,
    seed: int,
    fixed: tuple[tuple[str, Any], ...],
    max_memory: float | None,
    max_time: float | None,
    device_samples: int | None,
    prime_on: Literal["host", "device"],
    plan: Literal["memory", "time", "balanced"],
    sampler: str,
    racing: bool,
    baselines: Literal["all", "paper", "none"],
    verify: bool,
    workers: int,
    dry_run: bool,
    storage: str | None,
    tracking_uri: str,
    heartbeat: int | None,
) -> None:
    """Search for the best trade-offs between accuracy, memory and time on a device.

    The same command again goes on with the study, up to the number of trials asked for. Baselines are trained after the
    search, kept in the study NAME/baselines, and do not count as trials.

    Several processes search at once with --workers N, and those of other hosts join with farsearch worker.

    \b
    Examples:
      farsearch run --device jetson-nano --task reviews
      farsearch run --device jetson-nano --task sst2
      farsearch run --device jetson-nano --task sst2 --baselines all
      farsearch run --device jetson-nano --task sst2 --workers 4 --storage postgresql://me@server/studies
      farsearch run --device jetson-nano --train mails.csv --text-column body --label-column folder
      farsearch run --device jetson-nano --train pairs.tsv --dev more.tsv --text-column a --text-column b --metric f1
      farsearch run --device jetson-nano --task mails.toml
      farsearch run --device raspberry-pi-4 --task cola --data-dir glue/CoLA --model minilm --space wide
      farsearch run --device jetson-tx2 --task sst2 --set priming_epochs=0.1 --max-memory 2000 --dry-run
    """
    from farsearch.search_spec import JobOptions, resolve_job
    from farsearch.study.names import check_study_name
    from farsearch.study.samplers import check_sampler

    console = make_console(stderr=True)
    check_sampler(sampler)  # wrong names are told before anything is read
    if study is not None:
        check_study_name(study)
    store = open_store(storage, heartbeat, console.print)
    options = JobOptions(
        task=task, own=own, device=device, model=model, space=space, data_dir=data_dir, train_samples=train_samples,
        epochs=epochs, batch_size=batch_size, max_length=max_length, seed=seed, fixed=_unique(fixed),
        max_memory_mib=max_memory, max_time_s=max_time, device_samples=device_samples, prime_on=prime_on,
        plan=plan, allow_pickle=allow_pickle, revision=revision, keep_head=keep_head,
    )  # fmt: skip
    pool = _worker_arguments(options, heartbeat)
    asked = _Asked(study, n_trials, timeout, sampler, racing, baselines, verify, workers, pool, tracking_uri, dry_run)
    with when_interrupted(f"interrupted; finished trials are kept. To go on:\n  {typed_command()}"):
        job = resolve_job(options, store, console.print, study)
        snapshot = _search(console, job, store, asked)
    if snapshot is not None:
        _finish(console, snapshot)


COMMANDS = (run,)


def _unique(pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """The ``--set`` values by parameter."""
    from farsearch.errors import BadInput

    for i, (key, value) in enumerate(pairs):
        if key in dict(pairs[:i]):
            raise BadInput(f"--set {key}={value}: {key} is set twice; set it once")
    return dict(pairs)


@dataclass(frozen=True)
class _Asked:
    """What a user asked of a search, beside its job.

    Attributes:
        pool: arguments of the worker processes, beside the study's name.
    """

    study: str | None
    n_trials: int
    timeout: float | None
    sampler: str
    racing: bool
    baselines: Literal["all", "paper", "none"]
    verify: bool
    workers: int
    pool: Sequence[str]
    tracking_uri: str
    dry_run: bool


def _worker_arguments(options: JobOptions, heartbeat: int | None) -> list[str]:
    """What a worker of this run is told: where this host has things, which need not be where the study has them."""
    given = {
        "--data-dir": options.data_dir,
        "--model": options.model,
        "--device": options.device,
        "--heartbeat": heartbeat,
    }
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def _search(console: Console, job: Job, store: Store, asked: _Asked) -> StudySnapshot | None:
    """Say what is to come, search, and train the baselines. None after a dry run."""
    from farsearch.cli.mirror import open_mirror
    from farsearch.cli.progress import SearchProgress
    from farsearch.study.preview import preview_search
    from farsearch.study.search import Search
    from farsearch.study.snapshot import snapshot_of

    # what is wrong with names and addresses is told before model and data take their time
    name = asked.study or job.default_name
    store.check(name, job.settings, job.meta)
    mirror = None if asked.dry_run else open_mirror(console, store, asked.tracking_uri)
    bench = job.bench(store)
    pricer = job.pricer(bench)
    _say_job(console, job, name)
    for line in preview_search(job.space, pricer, bench, job.settings.plan, asked.n_trials).lines():
        console.print(line)
    if mirror is None:
        console.print("dry run: nothing was trained")
        return None
    study = store.open(name, job.settings, {**job.meta, "command": typed_command()})
    with SearchProgress(console, asked.n_trials, job.data.spec.metric, mirror) as progress:
        progress.already(store.ask(lambda: snapshot_of(study)))
        search = Search(
            study, store, bench, pricer, job.space, asked.sampler, job.settings.plan, progress, asked.racing
        )
        if asked.workers == 1:
            snapshot = search.run(asked.n_trials, asked.timeout)
        else:
            snapshot = _search_in_workers(search, asked, progress)
    if asked.baselines != "none":
        snapshot = _train_baselines(console, search, asked.baselines, mirror)
    if asked.verify and snapshot.front:
        from farsearch.cli.verify import SEEDS, chosen_points, verify_study

        points = chosen_points(snapshot, None, "paper")
        snapshot = verify_study(console, search, job, points, SEEDS, None, mirror)
    warning = mirror.last(snapshot)
    if warning is not None:
        console.print(warning)
    return snapshot


def _search_in_workers(search: Search, asked: _Asked, progress: SearchProgress) -> StudySnapshot:
    """Search in several processes. This one starts them, shows what they do, and mirrors the study."""
    from farsearch.cli.pool import Pool, worker_environment

    search.prepare(asked.n_trials)
    environment = worker_environment(asked.workers, search.store.url)
    arguments = [search.study.study_name, *asked.pool]
    Pool(asked.workers, arguments, environment, progress, search.snapshot, search.store.ask).run(asked.timeout)
    return search.store.ask(search.snapshot)


def _train_baselines(
    console: Console,
    search: Search,
    choice: Literal["all", "paper"],
    mirror: Mirror,
) -> StudySnapshot:
    """Train what the front is compared with. The study, with its baselines."""
    from farsearch.baselines import chosen_methods
    from farsearch.cli.progress import SiblingProgress
    from farsearch.study.baselines import baseline_epochs, train_baselines

    methods, epochs = chosen_methods(choice), baseline_epochs(search.space)
    titles = ", ".join(method.title for method in methods)
    console.print(
        f"baselines ({titles}): epochs {epochs:g}, each at three learning rates of its own, and more where none learns"
    )
    with SiblingProgress(console, "baselines", search.bench.data.spec.metric, mirror) as progress:
        return train_baselines(search, methods, progress)


def _say_job(console: Console, job: Job, name: str) -> None:
    from farsearch.formatting import constant_words
    from farsearch.tasks.summary import Tokens

    spec, settings = job.settings.job, job.settings
    console.print(
        f"study {name}: {spec.task} ({job.data.source}), {spec.model}, {spec.train_samples} training and "
        f"{spec.validation_samples} validation rows, batch {spec.batch_size}, at most {spec.max_length} tokens"
    )
    console.print(Tokens.from_dict(job.meta["understood"]["tokens"]).text)
    console.print(constant_words(job.data.spec.metric, job.meta))
    low, high = job.profile.available_mib
    console.print(
        f"device {settings.device}: {job.profile.title}; {low:.0f} to {high:.0f} MiB for the process "
        f"({job.profile.basis} figures)"
    )


def _finish(console: Console, snapshot: StudySnapshot) -> None:
    """The front as a table, its picture, and what to type next."""
    from farsearch.cli.options import HOME
    from farsearch.formatting import ROWS_ERROR, baseline_rows, constant_text, front_rows
    from farsearch.report import save_front_png

    title = (
        f"{snapshot.name}: Pareto front of {len(snapshot.complete)} trained trials, {estimates_for(snapshot)}; "
        f"{ROWS_ERROR}"
    )
    print_rows(
        [*front_rows(snapshot), *baseline_rows(snapshot)], title, f"no trial of {snapshot.name} is on the front yet"
    )
    if constant_text(snapshot):
        console.print(constant_text(snapshot))
    rejected = ", ".join(f"{reason} {count}" for reason, count in snapshot.rejected.items())
    if rejected:
        console.print(f"proposals that were not trained: {rejected}")
    if snapshot.verified:
        from farsearch.cli.verify import print_verdicts

        print_verdicts(snapshot)
    if not snapshot.front:
        return
    picture = HOME / "studies" / snapshot.name / "front.png"
    save_front_png(snapshot, picture)
    program = command_name()
    console.print(f"picture: {picture}")
    if not snapshot.baselines:
        console.print(
            "to compare with full fine-tuning, FAR r=10 %, BitFit and LoRA: the same run with --baselines all"
        )
    console.print(
        f"next:\n  {program} pareto {snapshot.name}\n  {program} ui {snapshot.name}\n"
        f"  {program} export {snapshot.name} --prefer knee --out bundle/"
    )
