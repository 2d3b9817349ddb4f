"""What a warm start saves on synthetic metrics, where the earlier task is related, and where it is not.

::

    python -m benchmarks.warm_start [--seeds test] [--count 6] [--json] [--markdown]

Space, prices and functions are those of ``search_functions``. Before each search, the default sampler searches another
function for 30 trials: a related one (``metric_functions.related_function``), or an unrelated one of any kind. The
same function is then searched without a warm start and with either. Development seeds are for designs, test seeds are
run once for a table.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np

from benchmarks.function_replay import Ground, Problem, Replay, learned, replay
from benchmarks.metric_functions import KINDS, Kind, related_function
from benchmarks.search_functions import SEEDS, sampler_of
from farsearch.cli.terminal import print_rows
from farsearch.formatting import markdown_table

__all__ = ["Result", "summarize"]

SCHEMA_VERSION = 1
CHECKPOINTS = (8, 15, 30)
_TRIALS = 30
_EARLIER = ("related", "unrelated")


@dataclass(frozen=True)
class Result:
    """Searches with a warm start beside those without on the same functions.

    Attributes:
        hypervolume: median ratios after each of ``CHECKPOINTS``.
        lowest: the ratio after 30 trials that a tenth of the searches are below.
        seconds: median ratio of the training until the hypervolume that the search without has after 30 trials; None
            where half of the searches never got there.
        best_gain: mean difference of the best metric after 30 trials.
    """

    kind: str
    earlier: str
    functions: int
    hypervolume: tuple[float, ...]
    lowest: float
    seconds: float | None
    best_gain: float


def summarize(kind: str, earlier: str, warm: Sequence[Replay], cold: Sequence[Replay]) -> Result:
    """Return the result of searches with a warm start beside those without, in the same order."""
    pairs = list(zip(warm, cold, strict=True))
    ratios = np.array([[_ratio(a.scores[n - 1], b.scores[n - 1]) for n in CHECKPOINTS] for a, b in pairs])
    seconds = statistics.median(_ratio(a.seconds_to(b.scores[-1]), b.seconds_to(b.scores[-1])) for a, b in pairs)
    return Result(
        kind, earlier, len(pairs), tuple(np.median(ratios, axis=0).tolist()), float(np.quantile(ratios[:, -1], 0.1)),
        seconds if math.isfinite(seconds) else None, statistics.fmean(a.best[-1] - b.best[-1] for a, b in pairs),
    )  # fmt: skip


def _ratio(one: float, other: float) -> float:
    """Return a ratio that is 1 where both are 0."""
    return one / other if other else 1.0 if not one else math.inf


def _row(result: Result) -> dict[str, str]:
    return {
        "functions": result.kind,
        "earlier task": result.earlier,
        **{f"after {n}": f"{value:.2f}" for n, value in zip(CHECKPOINTS, result.hypervolume, strict=True)},
        "a tenth below": f"{result.lowest:.2f}",
        "training": "never" if result.seconds is None else f"{result.seconds:.2f}",
        "best metric": f"{100 * result.best_gain:+.1f}",
    }


def _searches(ground: Ground, kind: Kind, seed: int) -> Mapping[str, Replay]:
    """Search a function without a warm start, and with one from a related and from an unrelated function."""
    problem = Problem.draw(ground, kind, seed)
    other = KINDS[seed % len(KINDS)]
    earlier = {
        "related": Problem.of(ground, related_function(problem.function, seed, ground.sample), seed + 1),
        "unrelated": Problem.draw(ground, other, seed + 500),
    }
    found = {"none": replay(problem, sampler_of("known-cost", problem), _TRIALS)}
    for name, before in earlier.items():
        warm = learned(before, sampler_of("known-cost", before), _TRIALS)
        found[name] = replay(problem, sampler_of("known-cost", problem), _TRIALS, warm=warm)
    return found


@click.command()
@click.option("--seeds", type=click.Choice(list(SEEDS)), default="development", show_default=True)
@click.option("--count", type=click.IntRange(1, 500), default=6, show_default=True, help="Functions of each kind.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="[default: all]")
@click.option("--json", "as_json", is_flag=True)
@click.option("--markdown", "as_markdown", is_flag=True)
def main(seeds: str, count: int, kinds: tuple[Kind, ...], as_json: bool, as_markdown: bool) -> None:
    """Compare searches with and without a warm start on synthetic metrics."""
    ground = Ground()
    runs: dict[str, dict[str, list[Replay]]] = {}
    for kind in kinds or KINDS:
        runs[kind] = {"none": [], "related": [], "unrelated": []}
        for seed in range(SEEDS[seeds], SEEDS[seeds] + count):
            for name, run in _searches(ground, kind, seed).items():
                runs[kind][name].append(run)
        click.echo(f"{kind}: {count} functions", err=True)
    together = {name: [run for of_kind in runs.values() for run in of_kind[name]] for name in ("none", *_EARLIER)}
    results = [
        summarize(kind_name, name, of_kind[name], of_kind["none"])
        for kind_name, of_kind in {"all": together, **runs}.items()
        for name in _EARLIER
    ]
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "seeds": seeds}
        click.echo(json.dumps({**document, "results": [dataclasses.asdict(each) for each in results]}, indent=1))
        return
    rows = [_row(result) for result in results]
    if as_markdown:
        click.echo(markdown_table(rows))
    else:
        print_rows(rows, "searches with a warm start, by those without", "")


if __name__ == "__main__":
    main()
