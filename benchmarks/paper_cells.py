"""The cells of the comparison with FAR's paper: one training each, recorded line by line so that nothing is done twice.

Peak memory is measured as ``farsearch.calibration.steps`` says: all tensors of a real step at the longest training row,
with weights, gradients and the optimizer's state. A cell's seconds say what it took, and nothing of the method: how
methods compare is measured once all cells are there, in turns (paper_steps.py).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from benchmarks.grid_record import append, read_lines
from benchmarks.paper_methods import CONTENDERS, Contender, learning_rate
from benchmarks.paper_steps import StepTimes, measure_times, ordinary_plan, step_peak
from farsearch.baselines import Method, price_method, train_method
from farsearch.errors import TrialError
from farsearch.search_spec import Job, JobOptions, resolve_job
from farsearch.study.store import Store
from farsearch.tasks.split import Split, draw_training
from farsearch.tasks.weighted import Floats
from farsearch.training import Bench

__all__ = [
    "DEVICE",
    "TABLES",
    "Recipe",
    "Table",
    "columns",
    "evidence_of",
    "open_table",
    "read_table",
    "resolve",
    "table_path",
    "time_steps",
    "train_cell",
]

SCHEMA_VERSION = 1
DEVICE = "jetson-nano"
"""Costs are priced for it."""

TABLES = Path(__file__).parent / "paper"

_SAMPLES = {"sst2": 4096}
"""Training rows that a task is given unless others are asked for; every other has all of its training file."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """How every cell of a task is trained.

    Attributes:
        train_samples: rows, drawn by each seed; or all of them; None for what the task has by default.
        epochs: of the FAR phase, and of every method that has none.
        data_dir: folder of the GLUE download; None for the hub.
    """

    task: str
    model: str
    data_dir: Path | None = None
    train_samples: int | Literal["all"] | None = None
    epochs: float = 2.0
    batch_size: int = 8


@dataclass
class Table:
    """The recorded cells of one task and model.

    Attributes:
        header: what is the same for all cells.
        cells: by (seed, method).
        times: of the methods' steps; None while they are not measured.
    """

    path: Path
    header: Mapping[str, Any]
    cells: dict[tuple[int, str], Mapping[str, Any]]
    times: StepTimes | None = None

    def add(self, cell: Mapping[str, Any]) -> None:
        """Keep a cell, on the disk first."""
        append(self.path, cell)
        self.cells[cell["seed"], cell["method"]] = cell

    def add_times(self, times: StepTimes) -> None:
        """Keep what steps take, on the disk first."""
        append(self.path, {"times": times.to_dict()})
        self.times = times


def table_path(folder: Path, task: str, model: str) -> Path:
    """File of the cells of a task and a model; of a model on the hub or in a folder the last part of its name."""
    return folder / f"{task}-{Path(model).name}.jsonl"


def resolve(recipe: Recipe, note: Note) -> Job:
    """The job of a task, of which every cell takes its own seed and rows."""
    samples = recipe.train_samples or _SAMPLES.get(recipe.task, "all")
    options = JobOptions(
        task=recipe.task, device=DEVICE, model=recipe.model, data_dir=recipe.data_dir, train_samples=samples,
        batch_size=recipe.batch_size,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        job = resolve_job(options, Store(Path(home)), note)
    # where all rows are asked for, the job that a search would be given has held some out already
    rows = samples if isinstance(samples, int) else len(job.data.train)
    return _seeded(job, job.settings.job.seed, rows)


def _seeded(job: Job, seed: int, rows: int) -> Job:
    """The job with so many rows drawn by a seed, none held out."""
    drawn = draw_training(job.data.train, rows, seed, job.data.spec.kind)
    spec = dataclasses.replace(job.settings.job, seed=seed, train_samples=len(drawn), validation_samples=0)
    return dataclasses.replace(job, split=Split(drawn, ()), settings=dataclasses.replace(job.settings, job=spec))


def _settings(job: Job, epochs: float) -> dict[str, Any]:
    """What cells must have in common to stand in one table."""
    spec = job.settings.job
    return {
        "schema_version": SCHEMA_VERSION,
        "task": spec.task,
        "metric": job.data.spec.metric,
        "model": spec.model,
        "weights": spec.weights,
        "data": spec.data,
        "train_samples": spec.train_samples,
        "batch_size": spec.batch_size,
        "max_length": spec.max_length,
        "epochs": epochs,
    }


def open_table(path: Path, job: Job, epochs: float) -> Table:
    """The table at ``path``, begun where there is none.

    Raises:
        click.UsageError: when it was recorded with other settings.
    """
    settings = _settings(job, epochs)
    if not any(read_lines(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        append(path, {**settings, "versions": dict(job.meta["versions"])})
    table = read_table(path)
    pairs = {name: (table.header.get(name), value) for name, value in settings.items()}
    for (_, method), cell in table.cells.items():
        name = f"learning rate of {method}"
        pairs[name] = (cell["learning_rate"], learning_rate(CONTENDERS[method], settings["model"]))
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            raise click.UsageError(
                f"{path} was recorded with another {name}: {found}, not {wanted}; "
                "move it away, or give --tables another folder"
            )
    return table


def read_table(path: Path) -> Table:
    """The table at ``path``, which has begun."""
    header, *lines = read_lines(path)
    cells: dict[tuple[int, str], Mapping[str, Any]] = {
        (line["seed"], line["method"]): line for line in lines if "times" not in line
    }
    times = [StepTimes.from_dict(line["times"]) for line in lines if "times" in line]
    return Table(path, header, cells, times[-1] if times else None)


def train_cell(job: Job, seed: int, contender: Contender, epochs: float) -> dict[str, Any]:
    """Train a method with a seed, score it on the development set, and say what it took."""
    job, method = _seeded(job, seed, job.settings.job.train_samples), contender.method
    spec = job.settings.job
    spec = dataclasses.replace(spec, priming=dataclasses.replace(spec.priming, selection=contender.selection))
    job = dataclasses.replace(job, settings=dataclasses.replace(job.settings, job=spec))
    rate = learning_rate(contender, spec.model)
    # a cache of its own: every cell runs, and pays for, its own priming
    with tempfile.TemporaryDirectory() as home:
        bench = job.bench(Store(Path(home)))
        cost = price_method(method, epochs, job.pricer(bench))
        return {
            "seed": seed,
            "method": method.name,
            "learning_rate": rate,
            "device": bench.device.type,
            **_trained(method, rate, epochs, bench),
            "peak_mib": round(step_peak(method, epochs, bench), 3),
            "priced": {
                "device": DEVICE,
                "tensor_peak_mib": round(cost.tensor_peak_mib, 1),
                "peak_memory_mib": round(cost.peak_memory_mib, 1),
                "wall_time_s": round(cost.wall_time_s, 1),
            },
        }


def time_steps(job: Job, epochs: float, note: Note) -> StepTimes:
    """What steps of all methods take, on the rows of the first seed."""
    job = _seeded(job, 1, job.settings.job.train_samples)
    with tempfile.TemporaryDirectory() as home:
        return measure_times(job.bench(Store(Path(home))), epochs, note)


class _Clock:
    """Seconds of processor and wall."""

    def __init__(self) -> None:
        self._started = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def seconds(self) -> tuple[float, float]:
        """Since it was made."""
        processor, wall = (now - before for now, before in zip(self._now(), self._started, strict=True))
        return round(processor, 3), round(wall, 3)


def _trained(method: Method, rate: float, epochs: float, bench: Bench) -> dict[str, Any]:
    """What a training gave; of one that could not be finished, why."""
    config = method.far_config(len(bench.layout.layers), rate, epochs)
    primed = spent = (0.0, 0.0)
    steps = 0
    try:
        if config is not None and config.priming_epochs:
            clock = _Clock()
            steps = bench.primings.get(bench.model, config.priming_epochs).steps
            primed = clock.seconds()
        clock = _Clock()

        def on_step(_step: int, _steps: int, _loss: float) -> None:
            nonlocal spent
            spent = clock.seconds()  # the last one is before the evaluation

        if config is None:
            outcome = train_method(method, rate, epochs, bench, on_step)
        else:
            outcome = bench.run(config, ordinary_plan(), on_step)
    except TrialError as error:
        return {"metric": None, "reason": str(error)}
    return {
        "metric": outcome.dev_metric,
        "training": {"processor_s": spent[0], "wall_s": spent[1]},
        "priming": {"steps": steps, "processor_s": primed[0], "wall_s": primed[1]},
        "trainable": outcome.trainable,
        "curve": [[point.step, round(point.loss, 6)] for point in outcome.curve],
        "parts": dict(outcome.parts),
        "evidence": columns(outcome.dev_evidence.tolist()),
    }


def columns(evidence: Sequence[Sequence[float]]) -> list[Any]:
    """What each development row says for the metric, column by column: of digits a text, of other numbers a list."""
    whole = [all(value in range(10) for value in column) for column in zip(*evidence, strict=True)]
    return [
        "".join(str(int(value)) for value in column) if short else [float(f"{value:.6g}") for value in column]
        for short, column in zip(whole, zip(*evidence, strict=True), strict=True)
    ]


def evidence_of(cell: Mapping[str, Any]) -> Floats:
    """What ``columns`` wrote, ``[rows, k]``."""
    evidence: Floats = np.array([[float(value) for value in column] for column in cell["evidence"]]).T
    return evidence
