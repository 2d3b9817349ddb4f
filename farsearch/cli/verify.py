"""``farsearch verify``: points of the front trained again, with other seeds and all data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from farsearch.cli.attach import here_options, join_search
from farsearch.cli.options import (
    ParamType,
    SamplesOrAll,
    json_option,
    open_store,
    storage_option,
    study_argument,
    tracking_option,
    typed_command,
)
from farsearch.cli.terminal import estimates_for, make_console, print_rows
from farsearch.far.display import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from farsearch.cli.progress import Mirror
    from farsearch.cost.pricer import Cost
    from farsearch.records import FarConfig, StudySnapshot, TrialRecord
    from farsearch.search_spec import Job
    from farsearch.study.search import Search
    from farsearch.study.verify import Point

__all__ = ["COMMANDS", "SEEDS", "chosen_points", "print_verdicts", "verify_study"]

SEEDS = 5
"""Trainings of each point: with fewer only large differences stand out from noise."""


class _Numbers(ParamType):
    """Numbers of trials with commas between."""

    name = "n,n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A tuple of different numbers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{shown(value)} is not a list of trial numbers, for example 3,7", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


@click.command()
@study_argument
@click.option("--trials", type=_Numbers(), metavar="N,N", help="By number.  [default: the front's knee and its best in "
              "metric, memory and time]")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=SEEDS, show_default=True, metavar="N",
              help="Trainings of each point, each with a seed of its own; 3 at least for a verdict.")  # fmt: skip
@click.option("--train-samples", type=SamplesOrAll(), default="all", show_default=True, metavar="N|all",
              help="Rows to train on, drawn by each seed.")  # fmt: skip
@click.option("--baselines", type=click.Choice(["all", "paper", "none"]), default="paper", show_default=True,
              help="Which of the study's baselines to train again beside the points.")  # fmt: skip
@here_options
@json_option
@storage_option
@tracking_option
def verify(
    study: str | None,
    trials: tuple[int, ...] | None,
    seeds: int,
    train_samples: int | Literal["all"],
    baselines: Literal["all", "paper", "none"],
    data_dir: Path | None,
    model: str | None,
    device: str | None,
    as_json: bool,
    storage: str | None,
    tracking_uri: str,
) -> None:
    """Train points of the front again, with other seeds and all data, and score them on the development set.

    A search judges by one seed and a sample. This says what a point is worth: mean and deviation over seeds beside the
    baselines', whether its advantage over what costs less is more than noise, and how well the search ranked. The same
    command again goes on where it was cut off. Results are kept in the study NAME/verified.

    \b
    Examples:
      farsearch verify
      farsearch verify demo --trials 3,7 --seeds 10
      farsearch verify sst2-minilm-jetson-nano-default --train-samples 8192 --baselines all
    """
    from farsearch.cli.mirror import open_mirror
    from farsearch.study.snapshot import snapshot_of

    console = make_console(stderr=True)
    store = open_store(storage, note=console.print)
    # what is wrong with names and numbers is told before model and data take their time
    found = store.load(study)
    before = store.ask(lambda: snapshot_of(found))
    points = chosen_points(before, trials, baselines)
    mirror = open_mirror(console, store, tracking_uri)
    try:
        search, job = join_search(store, before.name, _Notes(console), data_dir=data_dir, model=model, device=device)
        samples = None if train_samples == "all" else train_samples
        snapshot = verify_study(console, search, job, points, seeds, samples, mirror)
    except KeyboardInterrupt:
        console.print(f"interrupted; finished trainings are kept. To go on:\n  {typed_command()}")
        raise
    warning = mirror.last(snapshot)
    if warning is not None:
        console.print(warning)
    if as_json:
        from farsearch.significance import verdict_json

        click.echo(json.dumps({"schema_version": 1, "study": snapshot.name, **verdict_json(snapshot)}, indent=1))
    else:
        print_verdicts(snapshot)


COMMANDS = (verify,)


def print_verdicts(snapshot: StudySnapshot) -> None:
    """What was verified as a table, and how well the search ranked."""
    from farsearch.formatting import SEEDS_ERROR, constant_text
    from farsearch.significance import agreement_text, verdict_rows

    title = f"{snapshot.name}: verified with other seeds, {estimates_for(snapshot)}; {SEEDS_ERROR}"
    print_rows(verdict_rows(snapshot), title, f"nothing of {snapshot.name} is verified yet")
    for text in filter(None, [constant_text(snapshot), agreement_text(snapshot)]):
        click.echo(text)


class _Notes:
    """Hears the notes of a search that trains no trial."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """There is none."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """There is none."""

    def note(self, text: str) -> None:
        """Something took time."""
        self._console.print(text)

    def trial_ended(self, record: TrialRecord, snapshot: StudySnapshot) -> None:
        """There is none."""


def verify_study(
    console: Console, search: Search, job: Job, points: Sequence[Point], seeds: int, samples: int | None, mirror: Mirror
) -> StudySnapshot:
    """Say what is to come, and do it."""
    from farsearch.cli.progress import SiblingProgress
    from farsearch.significance import FEWEST_SEEDS
    from farsearch.study.verify import verify as train_again

    rows = len(job.data.train) if samples is None else samples
    titles = ", ".join(point.title for point in points)
    console.print(f"verifying {titles}: {seeds} seed{'s' * (seeds != 1)} each, on {rows:,} rows")
    if seeds < FEWEST_SEEDS:
        console.print(
            f"that is too few to tell an advantage from noise; --seeds {FEWEST_SEEDS} is the least for a verdict"
        )
    with SiblingProgress(console, "verification", job.data.spec.metric, mirror) as progress:
        return train_again(search, points, seeds, samples, job.pricer, progress)


def chosen_points(
    snapshot: StudySnapshot, trials: tuple[int, ...] | None, baselines: Literal["all", "paper", "none"]
) -> list[Point]:
    """The trials that were asked for, or what people choose of a front, and the study's baselines.

    Raises:
        BadInput: for a trial without a result.
        NoFeasibleTrial: when there is no front.
    """
    from farsearch.baselines import chosen_methods
    from farsearch.select import Intent, choose
    from farsearch.study.verify import Point

    wanted = (
        [Intent(prefer=prefer) for prefer in ("knee", "accuracy", "memory", "time")]
        if trials is None
        else [Intent(trial=number) for number in trials]
    )
    numbers = dict.fromkeys(choose(snapshot, intent).trial.number for intent in wanted)
    chosen = [trial for number in numbers for trial in snapshot.trials if trial.number == number]
    methods = {method.name for method in chosen_methods(baselines)}
    beside = [record for record in snapshot.baselines if record.baseline and record.baseline.method in methods]
    return [Point(record) for record in (*chosen, *beside)]
