"""The cells of the comparison with FAR's paper: one training each, recorded so that a run can be resumed.

Peak memory is measured as in ``farsearch.calibration.steps``: all tensors of a real step at the longest training row,
with weights, gradients and the optimizer's state. The seconds of cells are not comparable between methods: these are
timed in turn when all cells are recorded (paper_steps.py).
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
from farsearch.resolve import Job, resolve_job
from farsearch.search_spec import SearchSpec
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
"""The device of the predicted costs."""

TABLES = Path(__file__).parent / "paper"

_SAMPLES = {"sst2": 4096}
"""Default training rows by task; others use all of their training file."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """The training settings of all cells of a task.

    Attributes:
        train_samples: rows, drawn by each seed; or all of them; None for the task's default.
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
        header: settings shared by all cells.
        cells: by (seed, method).
        times: of the methods' steps; None while they are not measured.
    """

    path: Path
    header: Mapping[str, Any]
    cells: dict[tuple[int, str], Mapping[str, Any]]
    times: StepTimes | None = None

    def add(self, cell: Mapping[str, Any]) -> None:
        """Append a cell, with fsync."""
        append(self.path, cell)
        self.cells[cell["seed"], cell["method"]] = cell

    def add_times(self, times: StepTimes) -> None:
        """Append the costs of steps, with fsync."""
        append(self.path, {"times": times.to_dict()})
        self.times = times


def table_path(folder: Path, task: str, model: str) -> Path:
    """Return the file of the cells of a task and a model, with the last part of a hub name or path."""
    return folder / f"{task}-{Path(model).name}.jsonl"


def resolve(recipe: Recipe, note: Note) -> Job:
    """The job of a task; every cell has its own seed and rows."""
    samples = recipe.train_samples or _SAMPLES.get(recipe.task, "all")
    options = SearchSpec(
        task=recipe.task, device=DEVICE, model=recipe.model, data_dir=recipe.data_dir, train_samples=samples,
        batch_size=recipe.batch_size,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        job = resolve_job(options, Store(Path(home)), note)
    # with all rows requested, the job of a search has held out some already
    rows = samples if isinstance(samples, int) else len(job.data.train)
    return _seeded(job, job.settings.job.seed, rows)


def _seeded(job: Job, seed: int, rows: int) -> Job:
    """The job with ``rows`` drawn by a seed, none held out."""
    drawn = draw_training(job.data.train, rows, seed, job.data.spec.kind)
    spec = dataclasses.replace(job.settings.job, seed=seed, train_samples=len(drawn), validation_samples=0)
    return dataclasses.replace(job, split=Split(drawn, ()), settings=dataclasses.replace(job.settings, job=spec))


def _settings(job: Job, epochs: float) -> dict[str, Any]:
    """The settings that all cells of a table share."""
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
    """Return the table at ``path``, or a new one.

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
    """Return the existing table at ``path``."""
    header, *lines = read_lines(path)
    cells: dict[tuple[int, str], Mapping[str, Any]] = {
        (line["seed"], line["method"]): line for line in lines if "times" not in line
    }
    times = [StepTimes.from_dict(line["times"]) for line in lines if "times" in line]
    return Table(path, header, cells, times[-1] if times else None)


def train_cell(job: Job, seed: int, contender: Contender, epochs: float, rate: float | None = None) -> dict[str, Any]:
    """Train a method with a seed, evaluate it on the development set, and return the cell with its costs.

    Args:
        rate: the learning rate; None for that of ``learning_rate``.
    """
    job, method = _seeded(job, seed, job.settings.job.train_samples), contender.method
    spec = job.settings.job
    spec = dataclasses.replace(spec, priming=dataclasses.replace(spec.priming, selection=contender.selection))
    job = dataclasses.replace(job, settings=dataclasses.replace(job.settings, job=spec))
    rate = learning_rate(contender, spec.model) if rate is None else rate
    # a separate cache: every cell runs its own priming
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
    """Return the costs of steps of all methods, on the rows of the first seed."""
    job = _seeded(job, 1, job.settings.job.train_samples)
    with tempfile.TemporaryDirectory() as home:
        return measure_times(job.bench(Store(Path(home))), epochs, note)


class _Clock:
    """Processor and wall seconds."""

    def __init__(self) -> None:
        self._started = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def seconds(self) -> tuple[float, float]:
        """Return the seconds since the construction."""
        processor, wall = (now - before for now, before in zip(self._now(), self._started, strict=True))
        return round(processor, 3), round(wall, 3)


def _trained(method: Method, rate: float, epochs: float, bench: Bench) -> dict[str, Any]:
    """The result of a training, or the reason of its failure."""
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
            spent = clock.seconds()  # the last call is before the evaluation

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
    """The evidence of each development row for the metric, by column: digits as a text, other numbers as a list."""
    whole = [all(value in range(10) for value in column) for column in zip(*evidence, strict=True)]
    return [
        "".join(str(int(value)) for value in column) if short else [float(f"{value:.6g}") for value in column]
        for short, column in zip(whole, zip(*evidence, strict=True), strict=True)
    ]


def evidence_of(cell: Mapping[str, Any]) -> Floats:
    """Return the output of ``columns`` as ``[rows, k]``."""
    evidence: Floats = np.array([[float(value) for value in column] for column in cell["evidence"]]).T
    return evidence
