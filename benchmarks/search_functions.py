"""The training that a search needs on synthetic metrics over a real space with real prices, by sampler.

::

    python -m benchmarks.search_functions [--seeds test] [--count 10] [--race] [--json] [--markdown]

Metrics are drawn at random from a written distribution (``metric_functions``), so that no sampler is tuned to them by
accident: development seeds are for designs, test seeds are run once for a table. Space and prices are real: ``wide``
for MiniLM on a Jetson Nano. A search begins with the starts of the space. It sees measured metrics, which have noise;
it is scored by the true metrics of the trials that it would offer, its front:

- the hypervolume above the metric floor (``farsearch.floor``, of the function's best) and below 1.05 times the costs
  of full fine-tuning, after 15, 30 and 60 trials,
- the training seconds until TPE's hypervolume after 30 and after 60 trials on the same function is reached,
- the true metric of the trial with the best measured one, after 30 trials,
- trials that ended without a metric.

Seconds are predicted ones of the device: trainings, new primings, which continue shorter ones, and evaluations.
Nothing is trained, so results do not depend on the machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from benchmarks.function_replay import TRIALS, Ground, MakeSampler, Problem, Replay, replay
from benchmarks.metric_functions import KINDS, Kind
from farsearch.cli.terminal import print_rows
from farsearch.formatting import markdown_table
from farsearch.study.samplers import make_sampler

__all__ = ["Result", "summarize"]

SCHEMA_VERSION = 1
CHECKPOINTS = (15, 30, TRIALS)
SAMPLERS = ("random", "tpe", "known-cost")
SEEDS = {"development": 0, "test": 1_000}
"""The first seed of each set, of at most a thousand."""


@dataclass(frozen=True)
class Result:
    """A sampler on the functions of one kind, or of all; medians over the functions.

    Attributes:
        hypervolume: after each of ``CHECKPOINTS``, by the better median of TPE and random.
        seconds_to_30, seconds_to_60: until TPE's hypervolume after so many trials, by TPE's seconds until then; None
            where half of the searches never got there.
        best_gain: mean difference of the best metric after 30 trials to random's.
        failed, stopped: mean trials without a metric, and stopped by the race, of the first 40.
    """

    kind: str
    sampler: str
    functions: int
    hypervolume: tuple[float, ...]
    seconds_to_30: float | None
    seconds_to_60: float | None
    best_gain: float
    failed: float
    stopped: float


def summarize(kind: str, sampler: str, runs: Mapping[str, Sequence[Replay]]) -> Result:
    """Return the result of a sampler beside TPE and random on the same functions, in the same order."""
    own, tpe, other = runs[sampler], runs["tpe"], runs["random"]
    ratios = tuple(
        min(statistics.median(_ratio(a.scores[n - 1], b.scores[n - 1]) for a, b in zip(own, rival, strict=True))
            for rival in (tpe, other))
        for n in CHECKPOINTS
    )  # fmt: skip
    to = [
        statistics.median(_ratio(a.seconds_to(b.scores[n - 1]), b.seconds_to(b.scores[n - 1]))
                          for a, b in zip(own, tpe, strict=True))
        for n in (30, 60)
    ]  # fmt: skip
    gain = statistics.fmean(a.best[29] - b.best[29] for a, b in zip(own, other, strict=True))
    failed, stopped = (statistics.fmean(getattr(run, name)[39] for run in own) for name in ("failed", "stopped"))
    to_30, to_60 = (value if math.isfinite(value) else None for value in to)
    return Result(kind, sampler, len(own), ratios, to_30, to_60, gain, failed, stopped)


def _ratio(one: float, other: float) -> float:
    """Return a ratio that is 1 where both are 0."""
    return one / other if other else 1.0 if not one else math.inf


def _row(result: Result) -> dict[str, str]:
    def ratio(value: float | None) -> str:
        return "never" if value is None else f"{value:.2f}"

    return {
        "functions": result.kind,
        "sampler": result.sampler,
        **{f"after {n}": ratio(value) for n, value in zip(CHECKPOINTS, result.hypervolume, strict=True)},
        "to TPE's 30": ratio(result.seconds_to_30),
        "to TPE's 60": ratio(result.seconds_to_60),
        "best metric": f"{100 * result.best_gain:+.1f}",
        "failed": f"{result.failed:.0f}",
        "stopped": f"{result.stopped:.0f}",
    }


@click.command()
@click.option("--seeds", type=click.Choice(list(SEEDS)), default="development", show_default=True)
@click.option("--count", type=click.IntRange(1, 1_000), default=12, show_default=True, help="Functions of each kind.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="[default: all]")
@click.option("--race", is_flag=True, help="With racing, for the known-cost sampler.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--markdown", "as_markdown", is_flag=True)
def main(seeds: str, count: int, kinds: tuple[Kind, ...], race: bool, as_json: bool, as_markdown: bool) -> None:
    """Compare samplers on synthetic metrics over a real space."""
    ground, results = Ground(), []
    runs: dict[str, dict[str, list[Replay]]] = {}
    for kind in kinds or KINDS:
        runs[kind] = {name: [] for name in SAMPLERS}
        for seed in range(SEEDS[seeds], SEEDS[seeds] + count):
            problem = Problem.draw(ground, kind, seed)
            for name in SAMPLERS:
                runs[kind][name].append(replay(problem, _sampler(name, problem), race=race and name == "known-cost"))
        click.echo(f"{kind}: {count} functions", err=True)
    together = {name: [run for of_kind in runs.values() for run in of_kind[name]] for name in SAMPLERS}
    for kind_name, of_kind in {"all": together, **runs}.items():
        results += [summarize(kind_name, name, of_kind) for name in SAMPLERS]
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "seeds": seeds, "race": race}
        click.echo(json.dumps({**document, "results": [dataclasses.asdict(each) for each in results]}, indent=1))
        return
    rows = [_row(result) for result in results]
    if as_markdown:
        click.echo(markdown_table(rows))
    else:
        print_rows(rows, "synthetic metrics", "")


def _sampler(name: str, problem: Problem) -> MakeSampler:
    ground = problem.ground
    return lambda number: make_sampler(name, ground.distributions, ground.price, problem.seed, number)


if __name__ == "__main__":
    main()
