"""The training that a search needs to close the gap to the best front, by sampler.

::

    python -m benchmarks.search_efficiency [--json] [--png FILE] [--markdown]

Searches are replayed over the recorded grids (``grid_record``). All start with the same three baselines; the score is
the share of the gap between their hypervolume and the best known that is closed, with the cheapest baseline's metric
and 1.05 times full fine-tuning's costs as reference point. Seconds are those of training, evaluation,
intermediate evaluations and new primings, after the baselines. Each seed hides another tenth of the cells from all
samplers, so that twenty seeds are twenty problems, also for a deterministic sampler.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from optuna.samplers import BaseSampler

from benchmarks.grid_record import GRIDS, table_path
from benchmarks.grid_replay import Replay, Table, replay
from benchmarks.search_picture import save_picture
from farsearch.cli.terminal import print_rows
from farsearch.formatting import markdown_table
from farsearch.study.samplers import make_sampler

__all__ = ["CONTENDERS", "Contender", "Result", "measure"]

SCHEMA_VERSION = 1
REACHED = 0.9
_BUDGET_TRIALS = 20
"""The budget at which scores are compared, in median cells."""


@dataclass(frozen=True)
class Contender:
    """A sampler, with or without racing."""

    name: str
    sampler: str
    race: bool = False


CONTENDERS = (
    Contender("random", "random"),
    Contender("nsga2", "nsga2"),
    Contender("tpe", "tpe"),
    Contender("gp", "gp"),
    Contender("tpe with racing", "tpe", race=True),
    Contender("known-cost without racing", "known-cost"),
    Contender("farsearch", "known-cost", race=True),
)
"""The last is the default."""


@dataclass(frozen=True)
class Result:
    """Results of one sampler on one task, medians over the seeds.

    Attributes:
        median_seconds_to_90: training seconds until nine tenths of the gap are closed; None where half of the seeds
            never got there.
        quartiles: of the same, infinite as None.
        score_at_budget: share of the gap that is closed after the budget's seconds.
        stopped_share: of the trials. wrongly_stopped_share: of the stopped ones, those that would have been on the
            front.
    """

    task: str
    sampler: str
    seeds: int
    median_seconds_to_90: float | None
    quartiles: tuple[float | None, float | None]
    median_trials_to_90: float | None
    score_at_budget: float
    budget_seconds: float
    stopped_share: float
    wrongly_stopped_share: float | None


def measure(table: Table, contender: Contender, seeds: int) -> tuple[Result, list[Replay]]:
    """Replay one sampler on a task, once for each seed."""
    runs = []
    budget = _BUDGET_TRIALS * statistics.median(cell.seconds for cell in table.cells)
    for seed in range(seeds):
        problem = table.without_a_tenth(seed)

        def make(number: int, problem: Table = problem, seed: int = seed) -> BaseSampler:
            return _sampler(contender.sampler, problem, seed, number)

        runs.append(replay(problem, make, contender.race, REACHED, budget))
    times = sorted(run.seconds_to(REACHED) for run in runs)
    stopped = sum(run.stopped for run in runs)
    result = Result(
        task=table.task,
        sampler=contender.name,
        seeds=seeds,
        median_seconds_to_90=_finite(statistics.median(times)),
        quartiles=(_finite(times[len(times) // 4]), _finite(times[(3 * len(times)) // 4])),
        median_trials_to_90=_finite(statistics.median(run.trials_to(REACHED) for run in runs)),
        score_at_budget=statistics.median(run.score_at(budget) for run in runs),
        budget_seconds=budget,
        stopped_share=stopped / sum(run.trials for run in runs),
        wrongly_stopped_share=sum(run.wrongly for run in runs) / stopped if stopped else None,
    )
    return result, runs


def _sampler(name: str, table: Table, seed: int, number: int) -> BaseSampler:
    return make_sampler(name, table.space, table.price, seed, number)


def _finite(seconds: float) -> float | None:
    return round(seconds, 1) if math.isfinite(seconds) else None


def _rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return the table; the third column compares with TPE without racing."""
    tpe = {result.task: result.median_seconds_to_90 for result in results if result.sampler == "tpe"}

    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.0f} s"

    def ratio(result: Result) -> str:
        theirs = tpe.get(result.task)
        if theirs is None or result.median_seconds_to_90 is None:
            return ""
        return f"{result.median_seconds_to_90 / theirs:.2f}"

    return [
        {
            "task": result.task,
            "sampler": result.sampler,
            "to 90 % of the gap": seconds(result.median_seconds_to_90),
            "of TPE's": ratio(result),
            "quartiles": " to ".join(map(seconds, result.quartiles)),
            "trials": "" if result.median_trials_to_90 is None else f"{result.median_trials_to_90:g}",
            f"score after {result.budget_seconds:.0f} s": f"{result.score_at_budget:.2f}",
            "stopped": f"{result.stopped_share:.0%}",
            "of these wrongly": "" if result.wrongly_stopped_share is None else f"{result.wrongly_stopped_share:.1%}",
        }
        for result in results
    ]


def _noise(table: Table) -> str:
    """The share of the gap within the best cells' standard error."""
    front = table.front
    gain = max(cell.metric for cell in front) - float(table.reference[0])
    error = statistics.median(cell.metric_error for cell in front)
    verdict = "so which of the best cells is best is noise" if gain < 4 * error else "well above noise"
    return (
        f"{table.task}: {len(table.cells)} cells, {len(front)} on the front; its best metric is {gain:.3f} above the "
        f"cheapest baseline's, with a standard error of {error:.3f} each: {verdict}"
    )


@click.command()
@click.option("--task", "tasks", type=click.Choice(list(GRIDS)), multiple=True, help="[default: all that are recorded]")
@click.option(
    "--sampler", "names", type=click.Choice([c.name for c in CONTENDERS]), multiple=True, help="[default: all]"
)
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--markdown", "as_markdown", is_flag=True)
@click.option("--png", type=click.Path(path_type=Path), help="Draw score against seconds into this file.")
def main(
    tasks: tuple[str, ...], names: tuple[str, ...], seeds: int, as_json: bool, as_markdown: bool, png: Path | None
) -> None:
    """Compare samplers on the recorded grids."""
    recorded = [task for task in (tasks or tuple(GRIDS)) if table_path(task).is_file()]
    results: list[Result] = []
    runs: dict[tuple[str, str], list[Replay]] = {}
    remarks = []
    for task in recorded:
        table = Table(task)
        remarks.append(_noise(table))
        for contender in CONTENDERS:
            if names and contender.name not in names:
                continue
            result, runs[task, contender.name] = measure(table, contender, seeds)
            results.append(result)
            click.echo(f"{task}, {contender.name}: {result.median_seconds_to_90} s", err=True)
    if png is not None:
        save_picture(runs, png)
    if as_json:
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "tasks": [dataclasses.asdict(r) for r in results]}
        click.echo(json.dumps({**document, "remarks": remarks}, indent=1))
        return
    for task in recorded:
        rows = _rows([result for result in results if result.task == task])
        if as_markdown:
            click.echo(f"\n{markdown_table(rows)}")
        else:
            print_rows(rows, task, "")
    click.echo("\n".join(remarks))


if __name__ == "__main__":
    main()
