"""Training as people expect it, measured: weights of the classes on unequal ones.

::

    python -m benchmarks.imbalance --data-dir glue
    python -m benchmarks.imbalance --recorded

SST-2's training file is divided into rows to train on and rows to measure on that share no text, and both are thinned:
one positive row for twenty negative ones. Full fine-tuning and FAR with a tenth of the neurons train on 2,000 of them,
without and with balanced weights of the classes, all else equal. Each training is recorded when it ends, and the same
command resumes the run.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.grid_record import append, read_lines
from benchmarks.recorded import recorded_command
from farsearch.baselines import METHODS, train_method
from farsearch.resolve import Job, resolve_job
from farsearch.runtime.scores import score
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.tasks.constant_answer import constant_answer
from farsearch.tasks.data import Examples
from farsearch.tasks.load import load_task
from farsearch.tasks.split import Split, split_examples
from farsearch.training import Bench

__all__ = ["main"]

_TABLE = Path(__file__).parent / "imbalance" / "weights.jsonl"
_TRAINED, _RATIO = 2000, 20
"""Rows to train on, and negative rows for a positive one."""
_READ, _DRAWN, _MEASURED = 20_000, 6000, 4000
"""Rows of the training file, and of them to train on and to measure on, before they are thinned."""
_METHODS = ("far10", "full")
_WEIGHTS: tuple[Literal["none", "balanced"], ...] = ("none", "balanced")


def _thinned(rows: Examples, count: int) -> Examples:
    """The first ``count`` rows, in which each positive row has ``_RATIO`` negative ones."""
    by_class: tuple[list[int], list[int]] = ([], [])
    for i, answer in enumerate(rows.answers):
        by_class[answer].append(i)
    positive = min(count // (_RATIO + 1), len(by_class[1]), len(by_class[0]) // _RATIO)
    negative = min(count - positive, positive * _RATIO)
    return rows.take(sorted((*by_class[0][:negative], *by_class[1][:positive])))


def _write(path: Path, rows: Examples) -> Path:
    lines = (
        json.dumps({"sentence": text, "label": ("negative", "positive")[answer]})
        for (text,), answer in zip(rows.texts, rows.answers, strict=True)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _job(folder: Path, rows: Examples, seed: int) -> Job:
    """The rows of a seed as a user's own files, none held out."""
    rows = rows.take(random.Random(seed).sample(range(len(rows)), _READ))
    split = split_examples(rows, _DRAWN, seed, _MEASURED)
    train = _write(folder / "thinned.jsonl", _thinned(rows.take(split.train), _TRAINED))
    dev = _write(folder / "dev.jsonl", _thinned(rows.take(split.validation), _MEASURED))
    own = {"train": str(train), "dev": str(dev)}
    spec = SearchSpec(device="raspberry-pi-4", own=own, model="minilm", train_samples="all", seed=seed)
    job = resolve_job(spec, Store(folder), lambda text: click.echo(text, err=True))
    every = range(len(job.data.train))
    spec_of_all = dataclasses.replace(job.settings.job, train_samples=len(every), validation_samples=0)
    settings = dataclasses.replace(job.settings, job=spec_of_all)
    return dataclasses.replace(job, split=Split(tuple(every), ()), settings=settings)


def _train(job: Job, folder: Path, method: str, weights: Literal["none", "balanced"], epochs: float) -> dict[str, Any]:
    spec = dataclasses.replace(job.settings.job, class_weights=weights)
    bench = Bench(spec, job.source, job.data, job.split, folder / "cache")
    rate = METHODS[method].learning_rates[-1]
    outcome = train_method(METHODS[method], rate, epochs, bench)
    evidence = outcome.dev_evidence.tolist()
    return {
        "seed": spec.seed, "method": method, "class_weights": weights, "learning_rate": rate, "epochs": epochs,
        "rows": [len(job.data.train), len(job.data.dev)], "steps": outcome.curve[-1].step,
        "constant": constant_answer(job.data.spec.task, job.data.dev.answers).value,
        "macro_f1": score("macro_f1", evidence).value, "accuracy": score("accuracy", evidence).value,
        "f1_rare": score("f1", evidence).value,
    }  # fmt: skip


def _record(path: Path, data_dir: Path | None, seeds: int, epochs: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {(line["seed"], line["method"], line["class_weights"]) for line in read_lines(path)}
    rows = load_task("sst2", data_dir and data_dir / "SST-2").train
    for method in _METHODS:
        for seed in range(seeds):
            missing = [weights for weights in _WEIGHTS if (seed, method, weights) not in known]
            if not missing:
                continue
            with tempfile.TemporaryDirectory() as made:
                job = _job(Path(made), rows, seed)
                for weights in missing:
                    line = _train(job, Path(made), method, weights, epochs)
                    append(path, line)
                    click.echo(f"{method}, seed {seed}, {weights}: macro F1 {100 * line['macro_f1']:.1f}", err=True)


def _table(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Means over the seeds in points, and what balanced weights win at each seed."""
    cells = {(line["method"], line["class_weights"], line["seed"]): line for line in lines}
    for method in _METHODS:
        for weights in _WEIGHTS:
            mine = [line for key, line in cells.items() if key[:2] == (method, weights)]
            if not mine:
                continue
            won = [line["macro_f1"] - cells[method, "none", line["seed"]]["macro_f1"] for line in mine]
            means = {name: 100 * statistics.fmean(line[name] for line in mine) for name in mine[0] if name in _SCORES}
            yield {
                "method": METHODS[method].title,
                "class weights": weights,
                "seeds": str(len(mine)),
                **{title: f"{means[name]:.1f}" for name, title in _SCORES.items()},
                "won by weights": "" if weights == "none" else ", ".join(f"{100 * each:+.1f}" for each in won),
            }


_SCORES = {"macro_f1": "macro F1", "constant": "of a constant answer", "f1_rare": "F1, rare", "accuracy": "accuracy"}


main = recorded_command(
    _TABLE, 2.0, "unequal classes", _record, _table,
    "Train MiniLM on unequal classes with and without weights, on one thread of a CPU.",
)  # fmt: skip

if __name__ == "__main__":
    main()
