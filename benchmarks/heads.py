"""Attention heads as units: priming's choice against random heads, against all and none, and against LoRA.

::

    python -m benchmarks.heads --data-dir glue
    python -m benchmarks.heads --recorded

Embeddings and feed-forward blocks are frozen, so that methods differ in the attention alone: all heads, none, a quarter
of each layer chosen by priming, a quarter drawn at random after the same priming, and LoRA of rank 8 on query and
value, for as many epochs and for as long as the quarter takes by its predicted time. Every training is on all given
rows and is evaluated on the development set, as in ``benchmarks.paper``, whose cells these are. Each is recorded when
it ends, and the same command resumes the run.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.grid_record import append, read_lines
from benchmarks.paper_cells import Recipe, evidence_of, resolve, train_cell
from benchmarks.paper_methods import Contender
from benchmarks.paper_statistics import difference, difference_draws, interval
from farsearch.baselines import METHODS, Method
from farsearch.cli.terminal import print_rows
from farsearch.formatting import markdown_table
from farsearch.records import FarConfig
from farsearch.resolve import Job

__all__ = ["main"]

SCHEMA_VERSION = 1
_TABLES = Path(__file__).parent / "heads"
_PRIMING = 0.3
"""Epochs, the longest of the shipped spaces."""
_QUARTER, _LORA, _EQUAL_TIME = "a quarter", "LoRA r=8", "LoRA r=8, equal time"


def _far(name: str, frozen: float, priming: float) -> Method:
    def config(layers: int, learning_rate: float, epochs: float) -> FarConfig:
        return FarConfig(
            (1.0,) * layers, learning_rate, epochs, priming, frozen_embeddings=True, frozen_heads=(frozen,) * layers
        )

    return Method(name, name, (5e-5, 1e-4, 2e-4), config=config)


_QUARTER_METHOD = _far(_QUARTER, 0.75, _PRIMING)
_CONTENDERS = {
    contender.method.name: contender
    for contender in (
        Contender(_QUARTER_METHOD),
        Contender(dataclasses.replace(_QUARTER_METHOD, name="a quarter at random"), selection="random"),
        Contender(_far("all", 0.0, _PRIMING)),
        Contender(_far("none", 1.0, _PRIMING)),
        Contender(dataclasses.replace(METHODS["lora8"], name=_LORA)),
        Contender(dataclasses.replace(METHODS["lora8"], name=_EQUAL_TIME)),
    )
}

Cells = dict[tuple[int, str, float], Mapping[str, Any]]
"""By seed, method and learning rate."""


def _settings(job: Job, epochs: float) -> dict[str, Any]:
    spec = job.settings.job
    return {
        "schema_version": SCHEMA_VERSION, "task": spec.task, "metric": job.data.spec.metric, "weights": spec.weights,
        "data": spec.data, "train_samples": spec.train_samples, "batch_size": spec.batch_size,
        "max_length": spec.max_length, "epochs": epochs, "priming_epochs": _PRIMING,
    }  # fmt: skip


def _read(path: Path) -> tuple[dict[str, Any], Cells]:
    """The settings of a table and its cells; empty where there is no table."""
    header, *lines = [*read_lines(path)] or [{}]
    return header, {(line["seed"], line["method"], line["learning_rate"]): line for line in lines}


def _record(job: Job, path: Path, seeds: int, epochs: float) -> None:
    """Train the missing cells, seed by seed, the upper learning rate of each method first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, cells = _read(path)
    settings = _settings(job, epochs)
    if not header:
        append(path, settings)
    elif header != settings:
        raise click.UsageError(f"{path} was recorded with other settings; move it away, or give another --tables")
    for seed in range(1, seeds + 1):
        for place in (-1, -2):
            for name, contender in _CONTENDERS.items():
                rate = contender.method.learning_rates[place]
                if (seed, name, rate) in cells:
                    continue
                length = epochs
                if name == _EQUAL_TIME:
                    ours, theirs = (
                        next(cell for key, cell in cells.items() if key[:2] == (seed, method))["priced"]["wall_time_s"]
                        for method in (_QUARTER, _LORA)
                    )
                    length = epochs * ours / theirs
                cell = {**train_cell(job, seed, contender, length, rate), "epochs": length}
                append(path, cell)
                cells[seed, name, rate] = cell
                found = cell.get("reason") or f"{100 * cell['metric']:.1f}"
                click.echo(f"{job.settings.job.task}, seed {seed}, {name} at {rate:g}: {found}", err=True)


def _rows(metric: str, cells: Cells) -> Iterator[dict[str, str]]:
    """A row for each method and rate, in points, with the difference of priming's choice to it at the same seeds."""
    trained = {key: cell for key, cell in cells.items() if cell["metric"] is not None}
    by_method: dict[tuple[str, float], dict[int, Mapping[str, Any]]] = {}
    for (seed, name, rate), cell in trained.items():
        by_method.setdefault((name, rate), {})[seed] = cell
    ours = {rate: seeds for (name, rate), seeds in by_method.items() if name == _QUARTER}
    for (name, rate), seeds in sorted(by_method.items(), key=lambda item: list(_CONTENDERS).index(item[0][0])):
        scores = [100 * cell["metric"] for cell in seeds.values()]
        error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else None
        first = next(iter(seeds.values()))
        yield {
            "attention": name,
            "rate": f"{rate:g}",
            "seeds": str(len(scores)),
            "score": f"{statistics.fmean(scores):.1f}" + ("" if error is None else f" ± {error:.1f}"),
            "the quarter is better by": _advantage(metric, ours.get(rate) or ours.get(2e-4) or {}, seeds),
            "trained": f"{first['trainable']:,}",
            "epochs": f"{first['epochs']:.2g}",
            "priced memory": f"{first['priced']['peak_memory_mib']:,.0f} MiB",
            "priced time": f"{first['priced']['wall_time_s']:,.0f} s",
        }


def _advantage(metric: str, ours: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]) -> str:
    """The difference in points with its 95 % interval over seeds and development rows."""
    common = sorted(set(ours) & set(others))
    if not common or all(ours[seed] is others[seed] for seed in common):
        return ""
    one, other = ([evidence_of(cells[seed]) for seed in common] for cells in (ours, others))
    low, high = interval(difference_draws(metric, one, other))
    return f"{100 * difference(metric, one, other):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), envvar="FARSEARCH_GLUE_DIR",
              help="Folder of the official GLUE download; without it, the hub.")  # fmt: skip
@click.option("--task", "tasks", multiple=True, default=("cola", "sst2"), show_default=True, metavar="NAME")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--train-samples", type=click.IntRange(min=1), metavar="N", help="Rows.  [default: 4096 of sst2, all of cola]"
)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--tables", type=click.Path(file_okay=False, path_type=Path), default=_TABLES,
              help="Folder of the recorded cells.  [default: benchmarks/heads]")  # fmt: skip
@click.option("--recorded", is_flag=True, help="Train nothing: show the recorded cells.")
@click.option("--markdown", is_flag=True, help="Print the tables for a document.")
def main(
    data_dir: Path | None, tasks: Sequence[str], seeds: int, train_samples: int | None, epochs: float, tables: Path,
    recorded: bool, markdown: bool,
) -> None:  # fmt: skip
    """Train the methods on MiniLM, on one thread of a CPU, and compare them."""
    torch.set_num_threads(1)
    for task in tasks:
        path = tables / f"{task}.jsonl"
        if not recorded:
            recipe = Recipe(task, "minilm", data_dir, train_samples, epochs)
            _record(resolve(recipe, lambda text: click.echo(text, err=True)), path, seeds, epochs)
        header, cells = _read(path)
        rows = list(_rows(header["metric"], cells)) if header else []
        if markdown:
            click.echo(f"### {task}\n\n{markdown_table(rows)}\n")
        else:
            print_rows(rows, task, f"{task}: nothing is recorded yet")


if __name__ == "__main__":
    main()
