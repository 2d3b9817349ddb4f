"""Record a full grid of configurations once, so that searches over it can be replayed in seconds.

::

    python -m benchmarks.grid_record --task sst2 --data-dir glue/SST-2

Each cell is trained like a trial, on one thread, with intermediate evaluations of its validation metric. The table
grows line by line in ``benchmarks/grids/TASK.jsonl``; a second call resumes it. Seconds are processor seconds, which
depend least on other programs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from farsearch.cost.plans import quickest
from farsearch.records import FarConfig, StepPlan
from farsearch.resolve import Job, resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.tasks.split import Split
from farsearch.training import Bench, Evaluation

__all__ = ["GRIDS", "Grid", "table_path"]

SCHEMA_VERSION = 1
_MODEL, _DEVICE = "minilm", "jetson-nano"
_DEV_ROWS = 8
"""Minimum rows of the development set, which no search evaluates."""

PARTS: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "embeddings": {"frozen_embeddings": True},
    "bottom 3 layers": {"frozen_embeddings": True, "frozen_attention_layers": 3, "frozen_bottom_layers": 3},
}
"""Parts that are frozen beside neurons."""


@dataclass(frozen=True)
class Grid:
    """The cells of one task: every combination of the four lists.

    Attributes:
        train_samples, validation_samples: rows. batch_size: of a step. epochs: of the FAR phase.
    """

    train_samples: int
    validation_samples: int
    batch_size: int
    frozen_fraction: tuple[float, ...]
    learning_rate: tuple[float, ...]
    priming_epochs: tuple[float, ...]
    epochs: float = 1.0
    frozen_part: tuple[str, ...] = tuple(PARTS)

    def cells(self) -> list[dict[str, Any]]:
        """Return the parameters of every cell."""
        keys = ("frozen_fraction", "learning_rate", "priming_epochs", "frozen_part")
        values = itertools.product(*(getattr(self, key) for key in keys))
        return [dict(zip(keys, cell, strict=True)) for cell in values]

    def config(self, cell: Mapping[str, Any], layers: int) -> FarConfig:
        """Return the configuration of a cell."""
        return FarConfig(
            frozen_fractions=(float(cell["frozen_fraction"]),) * layers,
            learning_rate=float(cell["learning_rate"]),
            epochs=self.epochs,
            priming_epochs=float(cell["priming_epochs"]),
            **PARTS[cell["frozen_part"]],
        ).canonical()


GRIDS = {
    "sst2": Grid(448, 512, 8, (0.0, 0.7, 0.9, 1.0), (5e-5, 1e-4, 2e-4, 4e-4), (0.0, 0.1, 0.3)),
    # after fewer than about two thousand steps this model predicts "acceptable" for all rows: the longest priming helps
    "cola": Grid(6400, 768, 8, (0.0, 0.4, 0.7, 0.9, 1.0), (2.5e-5, 5e-5, 1e-4), (0.0, 1.0, 3.0), epochs=0.1),
}


def table_path(task: str) -> Path:
    """Return the file of a task's grid."""
    return Path(__file__).parent / "grids" / f"{task}.jsonl"


def prepare(task: str, grid: Grid, data_dir: Path, home: Path) -> tuple[Job, Bench]:
    """Data and model of a grid: the rows of a study of the task, and fewer validation rows."""
    options = SearchSpec(
        task=task,
        device=_DEVICE,
        model=_MODEL,
        data_dir=data_dir,
        train_samples=grid.train_samples,
        batch_size=grid.batch_size,
    )
    store = Store(home)
    job = resolve_job(options, store, lambda text: click.echo(text, err=True))
    split = Split(job.split.train, job.split.validation[: grid.validation_samples])
    data = dataclasses.replace(job.data, dev=job.data.dev.take(range(_DEV_ROWS)))
    spec = dataclasses.replace(job.settings.job, validation_samples=len(split.validation))
    job = dataclasses.replace(job, split=split, data=data, settings=dataclasses.replace(job.settings, job=spec))
    return job, job.bench(store)


def header(task: str, grid: Grid, job: Job, bench: Bench) -> dict[str, Any]:
    """The header of a table: the training settings, and the basis of the costs."""
    primings = {}
    for epochs in grid.priming_epochs:
        if epochs:
            started = time.process_time()
            primed = bench.primings.get(bench.model, epochs)
            primings[f"{epochs:g}"] = {"steps": primed.steps, "seconds": round(time.process_time() - started, 3)}
            click.echo(f"{task}: primed {primed.steps} steps", err=True)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "metric": job.data.spec.metric,
        "job": job.settings.job.to_dict(),
        "device": _DEVICE,
        "grid": dataclasses.asdict(grid),
        "lengths": [int(length) for length in bench.train_rows.lengths],
        "labels": "".join(str(label) for label in bench.validation_rows.answers),
        "primings": primings,
        "versions": dict(job.meta["versions"]),
    }


def record(bench: Bench, cell: Mapping[str, Any], config: FarConfig, job: Job) -> dict[str, Any]:
    """Train one cell."""
    plan = quickest(StepPlan(), bench.layout)
    looks: list[dict[str, Any]] = []
    if config.priming_epochs:
        bench.primings.get(bench.model, config.priming_epochs)  # read before the clock starts
    started = before = time.process_time()

    def on_step(_step: int, _steps: int, _loss: float) -> None:
        nonlocal before
        before = time.process_time()

    def on_evaluation(look: Evaluation) -> None:
        seconds = time.process_time() - before
        looks.append(
            {
                "share": look.share,
                "step": look.step,
                "at": round(before - started, 3),
                "seconds": round(seconds, 3),
                "predictions": _digits(look.logits),
            }
        )

    outcome = bench.run(config, plan, on_step, None, on_evaluation)
    return {
        "cell": dict(cell),
        "metric": outcome.metric,
        "metric_error": outcome.metric_error,
        "trained_at": round(before - started, 3),
        "seconds": round(time.process_time() - started, 3),
        "looks": looks,
        "curve": [[point.step, round(point.loss, 4)] for point in outcome.curve],
        "predictions": _digits(outcome.validation_logits),
    }


def _json(value: Any) -> Any:
    """Return a value as JSON returns it."""
    return json.loads(json.dumps(value))


def _digits(logits: torch.Tensor) -> str:
    return "".join(str(int(label)) for label in logits.argmax(1))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a table, without a truncated last line."""
    if path.is_file():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line after the last complete one, with fsync."""
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


@click.command()
@click.option("--task", type=click.Choice(list(GRIDS)), required=True)
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--home", type=click.Path(path_type=Path), default=Path(".farsearch"), show_default=True)
def main(task: str, data_dir: Path, home: Path) -> None:
    """Record the missing cells of a task."""
    torch.set_num_threads(1)
    grid, path = GRIDS[task], table_path(task)
    path.parent.mkdir(exist_ok=True)
    job, bench = prepare(task, grid, data_dir, home)
    known = list(read_lines(path))
    if not known:
        append(path, header(task, grid, job, bench))
    elif (known[0]["grid"], known[0]["job"]) != (_json(dataclasses.asdict(grid)), job.settings.job.to_dict()):
        raise click.UsageError(f"{path} was recorded with another grid or job; move it away to record this one")
    done = {json.dumps(line["cell"], sort_keys=True) for line in known[1:]}
    cells = grid.cells()
    # in random order, so that an incomplete table covers the whole grid
    random.Random(0).shuffle(cells)
    left = [cell for cell in cells if json.dumps(cell, sort_keys=True) not in done]
    layers = len(bench.layout.layers)
    for number, cell in enumerate(left, len(cells) - len(left) + 1):
        line = record(bench, cell, grid.config(cell, layers), job)
        append(path, line)
        click.echo(f"{task} {number}/{len(cells)}: {cell} {line['metric']:.3f} in {line['seconds']:.1f} s", err=True)


if __name__ == "__main__":
    main()
