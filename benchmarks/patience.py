"""Early stopping on CoLA: the steps that it saves, and the metric of the state that is kept against that of the last.

::

    python -m benchmarks.patience --data-dir glue
    python -m benchmarks.patience --recorded

Evaluations change no step, so one training to its end shows every patience: each tenth of the FAR phase is evaluated on
256 validation rows, by which early stopping decides, and on the development set, by which it is judged here. Each
training is recorded when it ends, and the same command resumes the run.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.grid_record import append, read_lines
from benchmarks.recorded import recorded_command
from farsearch.baselines import METHODS, train_method
from farsearch.far.loop import predict
from farsearch.resolve import Job, resolve_job
from farsearch.runtime.best_state import EVALUATED_ROWS, EVALUATIONS, BestState, EarlyStop
from farsearch.runtime.encoding import first_rows
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.tasks.standard_errors import paired_error

__all__ = ["main"]

_TABLE = Path(__file__).parent / "imbalance" / "patience.jsonl"
_METHODS = ("far10", "full")
_PATIENCE = (1, 2, 3, 4)
_TRAINED = 2048
"""Rows to train on."""


def _job(data_dir: Path | None, seed: int, folder: Path) -> Job:
    spec = SearchSpec(
        device="raspberry-pi-4", task="cola", model="minilm", data_dir=data_dir and data_dir / "CoLA", seed=seed,
        train_samples=_TRAINED,
    )  # fmt: skip
    return resolve_job(spec, Store(folder), lambda text: click.echo(text, err=True))


def _train(job: Job, folder: Path, method: str, epochs: float) -> dict[str, Any]:
    """Train to the end, and evaluate after each tenth of the steps."""
    bench = job.bench(Store(folder))
    watched = first_rows(bench.validation_rows, EVALUATED_ROWS)
    points: list[dict[str, Any]] = []

    def evaluate(step: int, steps: int, _loss: float) -> None:
        if step not in {round(steps * i / EVALUATIONS) for i in range(1, EVALUATIONS + 1)}:
            return
        values = [
            bench.score(rows, predict(bench.model, rows.features, bench.pad_id)) for rows in (watched, bench.dev_rows)
        ]
        bench.model.train()
        points.append({"step": step, "watched": values[0].value, "dev": values[1].value,
                       "evidence": values[1].evidence.astype(int).tolist()})  # fmt: skip

    rate = METHODS[method].learning_rates[-1]
    train_method(METHODS[method], rate, epochs, bench, evaluate)
    return {
        "seed": job.settings.job.seed, "method": method, "learning_rate": rate, "epochs": epochs,
        "train_samples": job.settings.job.train_samples, "batch_size": job.settings.job.batch_size, "points": points,
    }  # fmt: skip


def _record(path: Path, data_dir: Path | None, seeds: int, epochs: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {(line["seed"], line["method"]) for line in read_lines(path)}
    for method in _METHODS:
        for seed in (seed for seed in range(seeds) if (seed, method) not in known):
            with tempfile.TemporaryDirectory() as made:
                append(path, _train(_job(data_dir, seed, Path(made)), Path(made), method, epochs))
            click.echo(f"{method}, seed {seed}", err=True)


def _stopped(points: Sequence[Mapping[str, Any]], patience: int) -> tuple[int, int]:
    """Index of the evaluation whose state is kept, and of that after which the phase stops, by the code of a phase."""
    values = iter(point["watched"] for point in points)
    best = BestState(patience, len(points), {}, lambda value: value, lambda: next(values))
    done = 0
    try:
        for done in range(1, len(points) + 1):
            best.after(done)
    except EarlyStop:
        pass
    return best.step - 1, done - 1


def _table(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Means over the seeds. An evaluated row counts as a third of a trained one."""
    for method in _METHODS:
        mine = [line for line in lines if line["method"] == method]
        for patience in _PATIENCE if mine else ():
            saved, net, kept, last, errors = [], [], [], [], []
            for line in mine:
                points, steps = line["points"], line["points"][-1]["step"]
                best, end = _stopped(points, patience)
                done = points[end]["step"]
                evaluated = (end + 1) * EVALUATED_ROWS / 3 / line["batch_size"]
                saved.append(1 - done / steps)
                net.append(1 - (done + evaluated) / steps)
                kept.append(points[best]["dev"])
                last.append(points[-1]["dev"])
                one, other = (np.array(points[i]["evidence"], dtype=np.float64) for i in (best, -1))
                errors.append(paired_error("matthews_correlation", one, other))
            error = sum(each**2 for each in errors) ** 0.5 / len(errors)
            difference = statistics.fmean(kept) - statistics.fmean(last)
            yield {
                "method": METHODS[method].title,
                "patience": str(patience),
                "seeds": str(len(mine)),
                "steps saved": f"{statistics.fmean(saved):.0%}",
                "less the evaluations": f"{statistics.fmean(net):.0%}",
                "dev, best kept": f"{100 * statistics.fmean(kept):.1f}",
                "dev, last": f"{100 * statistics.fmean(last):.1f}",
                "difference": f"{100 * difference:+.1f} ± {100 * error:.1f}",
            }


main = recorded_command(
    _TABLE, 5.0, "early stopping", _record, _table,
    "Train MiniLM on CoLA to its end, on one thread of a CPU, and tell what early stopping would have saved.",
)  # fmt: skip

if __name__ == "__main__":
    main()
