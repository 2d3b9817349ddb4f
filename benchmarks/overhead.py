"""The overhead of a search beside training and evaluation, on real trials of the command.

::

    python -m benchmarks.overhead [--json] [--task sst2 --data-dir glue/SST-2]

``farsearch run`` is started without a terminal, so that it writes a line for each trial. From one line to the next a
trial is proposed, priced, trained, evaluated, stored, reported and mirrored in MLflow. The overhead is that time
without the recorded seconds of training and evaluation (intermediate evaluations and priming included).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from farsearch.cli.terminal import print_rows
from farsearch.records import flat
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store

SCHEMA_VERSION = 1
_STUDY = "overhead"
_DONE = re.compile(r"^\s*\[\d+/\d+\] trial (\d+)\s")


@dataclass(frozen=True)
class Overhead:
    """The measured times.

    Attributes:
        overhead_share: of the wall time from the end of the first trial to the end of the last.
        help_s: median of five ``farsearch --help``.
        trial_s: median wall time of a trial. trained_s: of that, training and evaluation.
    """

    overhead_share: float
    help_s: float
    trials_per_hour: float
    trial_s: float
    trained_s: float
    trials: int


def measure(arguments: list[str], trials: int, folder: Path) -> Overhead:
    """Run a search in an empty folder."""
    command = [sys.executable, "-m", "farsearch", "run", *arguments, "--study", _STUDY, "--n-trials", str(trials)]
    ends: dict[int, float] = {}
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            match = _DONE.match(line)
            if match:
                ends[int(match.group(1))] = time.monotonic()
            click.echo(line.rstrip(), err=True)
    if run.returncode:
        raise click.ClickException(f"farsearch run ended with {run.returncode}")
    snapshot = snapshot_of(Store(folder / ".farsearch").load(_STUDY))
    trained = {}
    for trial in map(flat, snapshot.trials):
        priming = trial.priming
        fresh = 0.0 if priming is None or priming.from_cache else priming.host_seconds
        trained[trial.number] = (trial.host_seconds or 0.0) + fresh
    order = sorted(ends, key=lambda number: ends[number])
    walls = {number: ends[number] - ends[before] for before, number in itertools.pairwise(order)}
    for number, wall in walls.items():
        click.echo(f"trial {number}: {wall:.1f} s, of these trained and evaluated {trained[number]:.1f} s", err=True)
    helps = [_help_seconds() for _ in range(5)]
    return Overhead(
        overhead_share=1.0 - sum(trained[number] for number in walls) / sum(walls.values()),
        help_s=statistics.median(helps),
        trials_per_hour=3600.0 * len(walls) / sum(walls.values()),
        trial_s=statistics.median(walls.values()),
        trained_s=statistics.median(trained[number] for number in walls),
        trials=len(walls),
    )


def _help_seconds() -> float:
    program = Path(sys.executable).with_name("farsearch")
    started = time.monotonic()
    subprocess.run([program, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


@click.command()
@click.option("--task", default="reviews", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True))
@click.option("--model", default="minilm", show_default=True)
@click.option("--epochs", type=float, default=3.0, show_default=True)
@click.option("--train-samples", type=int)
@click.option("--trials", type=click.IntRange(min=2), default=6, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    task: str, data_dir: Path | None, model: str, epochs: float, train_samples: int | None, trials: int, as_json: bool
) -> None:
    """Measure the share of a search's wall time that is neither training nor evaluation."""
    arguments = ["--device", "jetson-nano", "--task", task, "--model", model, "--epochs", str(epochs)]
    if data_dir is not None:
        arguments += ["--data-dir", str(data_dir.resolve())]
    if train_samples is not None:
        arguments += ["--train-samples", str(train_samples)]
    with TemporaryDirectory() as folder:
        figures = measure(arguments, trials, Path(folder))
    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(figures)}, indent=1))
        return
    row = {
        "overhead": f"{figures.overhead_share:.1%}",
        "a trial": f"{figures.trial_s:.1f} s",
        "of it trained and evaluated": f"{figures.trained_s:.1f} s",
        "trials an hour": f"{figures.trials_per_hour:.0f}",
        "--help": f"{figures.help_s:.2f} s",
    }
    print_rows([row], f"{figures.trials} trials of {task}", "")


if __name__ == "__main__":
    main()
