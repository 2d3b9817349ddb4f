"""Compare the front with each alternative method: does a point of it dominate or equal the method?

For each task: a search, its baselines, and a comparison. Of the points with at most the memory and time
of a baseline on the device, the one with the best validation metric is shown, with the paired difference to the
baseline and its 95 % interval. An existing study is resumed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.paper_statistics import difference, difference_draws, interval
from farsearch.baselines import chosen_methods
from farsearch.formatting import human_memory, human_metric, human_time
from farsearch.records import AnyTrial, Completed, Cost, FarConfig, StudySnapshot, Trial, flat
from farsearch.resolve import resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.artifacts import load_trial
from farsearch.study.baselines import baseline_logits, train_baselines
from farsearch.study.search import Search
from farsearch.study.store import Store

SCHEMA_VERSION = 1
_FOLDERS = {"sst2": "SST-2", "cola": "CoLA"}
"""Of the official GLUE download."""


@dataclass(frozen=True)
class Comparison:
    """One baseline against the best point of the front with at most its memory and time.

    Attributes:
        trial: number of that point, None where every point takes more of either.
        difference, low, high: its metric over the baseline's on the validation rows, and the 95 % interval, paired.
        memory_ratio, time_ratio: its cost over the baseline's.
    """

    task: str
    baseline: str
    metric: float
    dev_metric: float
    peak_memory_mib: float
    wall_time_s: float
    learned: bool = True
    trial: int | None = None
    trial_metric: float | None = None
    trial_dev_metric: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    memory_ratio: float | None = None
    time_ratio: float | None = None

    @property
    def verdict(self) -> str:
        """The answer in one or two words."""
        if not self.learned:
            return "did not learn"
        if self.difference is None or self.low is None or self.high is None:
            return "no"
        if self.difference >= 0:
            return "yes"
        return "within noise" if self.high >= 0 else "no"


class _Progress:
    """Reports progress to stderr."""

    def __init__(self, task: str) -> None:
        self._task = task

    def note(self, text: str) -> None:
        """Print a remark."""
        click.echo(f"{self._task}: {text}", err=True)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Report no steps: trials are short."""

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """Report nothing before the result."""

    def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
        """Print a trial's result."""
        self._result(f"trial {record.number}:", record)

    def training_started(self, title: str, number: int, total: int, cost: Cost) -> None:
        """Print the start of a baseline's training."""
        self.note(f"baseline {number} of {total}: {title}")

    def training_ended(self, record: AnyTrial, sibling: StudySnapshot) -> None:
        """Print its result."""
        self._result(" ", record)

    def _result(self, title: str, trial: AnyTrial) -> None:
        stored = flat(trial)
        self.note(f"{title} {stored.metric}, {stored.peak_memory_mib} MiB, {stored.wall_time_s} s")


def compare(options: SearchSpec, home: Path, n_trials: int) -> tuple[StudySnapshot, list[Comparison]]:
    """Search, train the baselines, and compare them with the front."""
    progress = _Progress(str(options.task))
    store = Store(home)
    job = resolve_job(options, store, progress.note)
    bench = job.bench(store)
    study = store.open(job.default_name, job.settings, job.meta)
    search = Search(study, store, bench, job.pricer(bench), job.space, "tpe", job.settings.plan, progress)
    search.run(n_trials)
    snapshot = train_baselines(search, chosen_methods("all"), progress)
    comparisons = []
    for record in snapshot.baselines:
        baseline = record.baseline
        plain = Comparison(
            str(options.task), baseline.title, record.outcome.metric, record.outcome.dev_metric,
            record.cost.peak_memory_mib, record.cost.wall_time_s, record.outcome.learned is not False,
        )  # fmt: skip
        point = _best_within(snapshot.front, plain)
        if point is None:
            comparisons.append(plain)
            continue
        saved = load_trial(store.folder(snapshot.name), point.number).logits, baseline_logits(store, bench, baseline)
        ours, theirs = ([logits["validation_evidence"].double().numpy()] for logits in saved)
        low, high = interval(difference_draws(job.data.spec.metric, ours, theirs))
        comparisons.append(
            dataclasses.replace(
                plain,
                trial=point.number,
                trial_metric=point.outcome.metric,
                trial_dev_metric=point.outcome.dev_metric,
                difference=difference(job.data.spec.metric, ours, theirs),
                low=low,
                high=high,
                memory_ratio=point.cost.peak_memory_mib / plain.peak_memory_mib,
                time_ratio=point.cost.wall_time_s / plain.wall_time_s,
            )
        )
    return snapshot, comparisons


def _best_within(front: Sequence[Trial[Completed]], baseline: Comparison) -> Trial[Completed] | None:
    within = [
        point
        for point in front
        if point.cost.peak_memory_mib <= baseline.peak_memory_mib and point.cost.wall_time_s <= baseline.wall_time_s
    ]
    return max(within, key=lambda point: point.outcome.metric, default=None)


def markdown(snapshot: StudySnapshot, comparisons: Sequence[Comparison]) -> str:
    """Return the comparison as a Markdown table."""
    job = snapshot.settings.job
    name = snapshot.metric_name
    lines = [
        f"### {job.task}: {job.model}, {job.train_samples} training rows, batch {job.batch_size}, "
        f"{snapshot.settings.device}, plan {snapshot.settings.plan}, {len(snapshot.complete)} trials, "
        f"{len(snapshot.front)} on the front",
        "",
        "| against | metric (dev) | memory | time | point of the front | metric (dev) | difference, 95 % | memory "
        "| time | at least as good in all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in comparisons:
        rival = (
            f"| {row.baseline} | {human_metric(name, row.metric)} ({human_metric(name, row.dev_metric)}) "
            f"| {human_memory(row.peak_memory_mib)} | {human_time(row.wall_time_s)} "
        )
        if row.trial is None:
            lines.append(f"{rival}| none within its memory and time | | | | | {row.verdict} |")
            continue
        lines.append(
            f"{rival}| trial {row.trial} | {human_metric(name, row.trial_metric)} "
            f"({human_metric(name, row.trial_dev_metric)}) "
            f"| {row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f}) "
            f"| {row.memory_ratio:.2f} | {row.time_ratio:.2f} | {row.verdict} |"
        )
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data-dir", type=click.Path(exists=True, path_type=Path), required=True,
              help="Folder of the official GLUE download, with SST-2 and CoLA in it.")  # fmt: skip
@click.option("--tasks", default="sst2,cola", show_default=True, help="Of those.")
@click.option("--model", default="minilm", show_default=True, help="A short name, a folder, or a hub name.")
@click.option("--device", default="jetson-nano", show_default=True, help="Profile that costs are predicted for.")
@click.option("--space", default="wide", show_default=True, help="Search space.")
@click.option("--plan", type=click.Choice(["memory", "time", "balanced"]), default="balanced", show_default=True,
              help="Goal of the step plans of the front.")  # fmt: skip
@click.option("--n-trials", type=click.IntRange(min=1), default=20, show_default=True, help="Of each search.")
@click.option("--train-samples", type=click.IntRange(min=1), default=4096, show_default=True, help="Rows of a trial.")
@click.option("--home", type=click.Path(path_type=Path), default=Path(".farsearch"), show_default=True,
              help="Folder of studies and caches.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with a schema_version.")
def main(
    data_dir: Path, tasks: str, model: str, device: str, space: str, plan: Any, n_trials: int, train_samples: int,
    home: Path, as_json: bool,
) -> None:  # fmt: skip
    """Compare the front of a search with full fine-tuning, FAR r=10 %, FFNs frozen, BitFit and LoRA.

    \b
    Examples:
      python -m benchmarks.against_peers --data-dir glue
      python -m benchmarks.against_peers --data-dir glue --tasks cola --n-trials 40 --json
    """
    rows: list[Comparison] = []
    for task in tasks.split(","):
        if task not in _FOLDERS:
            raise click.UsageError(f"--tasks {task!r} is none of {', '.join(_FOLDERS)}")
        options = SearchSpec(
            task=task, device=device, model=model, space=space, data_dir=data_dir / _FOLDERS[task],
            train_samples=train_samples, plan=plan,
        )  # fmt: skip
        snapshot, comparisons = compare(options, home, n_trials)
        rows += comparisons
        if not as_json:
            click.echo(markdown(snapshot, comparisons) + "\n")
    if as_json:
        results = [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows]
        json.dump({"schema_version": SCHEMA_VERSION, "device": device, "results": results}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
