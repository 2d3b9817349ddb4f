"""The paper's table compared with ours: figures from the recorded cells, as JSON and as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.paper_cells import DEVICE, SCHEMA_VERSION, Table, evidence_of
from benchmarks.paper_methods import CONTENDERS, FULL, PUBLISHED_CHANGE, Contender
from benchmarks.paper_statistics import difference, difference_draws, interval
from farsearch.formatting import human_memory, metric_title
from farsearch.tasks.weighted import Floats

__all__ = ["Average", "Report", "Row", "TaskReport", "make_report"]

Cells = Mapping[int, Mapping[str, Any]]
"""Of one method, by seed."""


@dataclass(frozen=True)
class Row:
    """One method on one task, against full fine-tuning in the same run. Scores are in points, 100 times the metric.

    Attributes:
        seeds: those whose training was finished; ``failed`` are the others that were tried.
        score, deviation: mean over the seeds, and their standard deviation; None for too few seeds.
        published: the paper's score, if any.
        difference, low, high: to full fine-tuning over common seeds, with the 95 % interval.
        time_ratio: of the training, from steps timed in turn (``paper_steps``); a priming's steps are full
            fine-tuning's and are included, as in ``priming_share``. None until they are timed.
        peak_ratio: of the measured peaks, without the priming's.
        priced_peak_mib, priced_time_ratio: predicted for the device, with the process and without priming.
    """

    method: str
    title: str
    learning_rate: float
    trainable: int
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    score: float
    deviation: float | None
    published: float | None
    difference: float | None
    low: float | None
    high: float | None
    time_ratio: float | None
    published_time_ratio: float | None
    priming_steps: int
    priming_share: float | None
    peak_mib: float
    peak_ratio: float | None
    priced_peak_mib: float
    priced_time_ratio: float | None


@dataclass(frozen=True)
class TaskReport:
    """One task: training settings and results of its cells."""

    header: Mapping[str, Any]
    dev_rows: int
    device: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The task and the settings of its cells."""
        head = self.header
        return (
            f"{head['task']}: {metric_title(head['metric'])} in points, {head['model']}, {head['train_samples']:,} "
            f"training rows, epochs: {head['epochs']:g}, batch {head['batch_size']}, {self.dev_rows:,} development rows"
        )

    def table(self) -> list[dict[str, str]]:
        """Return one row per method."""
        priced = f"peak on {DEVICE} (priced)"
        return [
            {
                "method": row.title,
                "paper": _number(row.published),
                "here": _number(row.score) + ("" if row.deviation is None else f" ± {row.deviation:.1f}"),
                "to full, paper": _signed(_published_difference(row.method, self.header["task"])),
                "to full, here": _with_interval(row.difference, row.low, row.high),
                "time": _number(row.time_ratio, 2),
                "of it priming": "" if row.priming_share is None else f"{row.priming_share:.1%}",
                "time, paper": _number(row.published_time_ratio, 2),
                "peak": human_memory(row.peak_mib),
                "peak ratio": _number(row.peak_ratio, 2),
                priced: human_memory(row.priced_peak_mib),
                "trained": f"{row.trainable / 1e6:.2f} M",
                "rate": f"{row.learning_rate:.0e}".replace("e-0", "e-"),
                "seeds": f"{len(row.seeds)}" + (f", {len(row.failed)} failed" if row.failed else ""),
            }
            for row in self.rows
        ]  # fmt: skip


@dataclass(frozen=True)
class Average:
    """One method against full fine-tuning, mean over the tasks.

    Attributes:
        difference, low, high: in points, with its 95 % interval over seeds and rows; the tasks are taken as given.
        change: in percent of full fine-tuning's score, as the paper's ``published`` is; None where that is not above 0.
    """

    method: str
    title: str
    tasks: tuple[str, ...]
    difference: float
    low: float
    high: float
    change: float | None
    published: float | None


@dataclass(frozen=True)
class Report:
    """The whole comparison."""

    tasks: tuple[TaskReport, ...]
    averages: tuple[Average, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison in JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "priced_for": DEVICE,
            "tasks": [
                {
                    **task.header,
                    "device": task.device,
                    "dev_rows": task.dev_rows,
                    "rows": [asdict(r) for r in task.rows],
                }
                for task in self.tasks
            ],
            "averages": [asdict(average) for average in self.averages],
        }

    def tables(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Return titles and rows of the tables."""
        rows = [
            {
                "method": one.title,
                "tasks": ", ".join(one.tasks),
                "to full": _with_interval(one.difference, one.low, one.high),
                "change": "" if one.change is None else f"{_signed(one.change, 2)} %",
                "change, paper": "" if one.published is None else f"{_signed(one.published, 2)} %",
            }
            for one in self.averages
        ]
        return [(task.title, task.table()) for task in self.tasks] + [("mean over the tasks", rows)]


def make_report(tables: Sequence[Table]) -> Report:
    """Return the comparison of the recorded cells, without tasks and methods that have none."""
    tables = [table for table in tables if any(cell["metric"] is not None for cell in table.cells.values())]
    return Report(tuple(_task(table, i) for i, table in enumerate(tables)), tuple(_averages(tables)))


def _task(table: Table, number: int) -> TaskReport:
    full = _finished(table, FULL)
    rows = [_row(table, number, contender, full) for contender in CONTENDERS.values() if _finished(table, contender)]
    some = next(cell for cell in table.cells.values() if cell["metric"] is not None)
    return TaskReport(table.header, len(evidence_of(some)), some["device"], tuple(rows))


def _finished(table: Table, contender: Contender | str) -> Cells:
    """The finished cells of a method, by seed."""
    name = contender if isinstance(contender, str) else contender.method.name
    return {
        seed: cell
        for (seed, method), cell in sorted(table.cells.items())
        if method == name and cell["metric"] is not None
    }


def _row(table: Table, number: int, contender: Contender, full: Cells) -> Row:
    cells, name, task = _finished(table, contender), contender.method.name, table.header["task"]
    scores = [100 * cell["metric"] for cell in cells.values()]
    some, common = next(iter(cells.values())), _common(cells, full)
    gap = low = high = None
    if common and name != FULL:
        gap = 100 * difference(table.header["metric"], *_pair(cells, full))
        low, high = (100 * end for end in interval(_draws(table, number, cells, full)))
    time = share = None
    primed = some["priming"]["steps"]
    if table.times is not None:
        time = table.times.phase_ratio(name) + primed / table.times.steps
        share = primed / table.times.steps / time if primed else None
    return Row(
        method=name,
        title=contender.method.title,
        learning_rate=some["learning_rate"],
        trainable=some["trainable"],
        seeds=tuple(cells),
        failed=tuple(seed for (seed, method), cell in table.cells.items() if method == name and cell["metric"] is None),
        score=statistics.fmean(scores),
        deviation=statistics.stdev(scores) if len(scores) > 1 else None,
        published=contender.published.get(task),
        difference=gap,
        low=low,
        high=high,
        time_ratio=time,
        published_time_ratio=contender.published_time.get(task),
        priming_steps=primed,
        priming_share=share,
        peak_mib=statistics.median(cell["peak_mib"] for cell in cells.values()),
        peak_ratio=_median(cells[seed]["peak_mib"] / full[seed]["peak_mib"] for seed in common),
        priced_peak_mib=statistics.median(cell["priced"]["peak_memory_mib"] for cell in cells.values()),
        priced_time_ratio=_median(
            cells[seed]["priced"]["wall_time_s"] / full[seed]["priced"]["wall_time_s"] for seed in common
        ),
    )


def _averages(tables: Sequence[Table]) -> Iterable[Average]:
    for name, contender in CONTENDERS.items():
        pairs = [(i, table, _finished(table, name), _finished(table, FULL)) for i, table in enumerate(tables)]
        pairs = [pair for pair in pairs if _common(pair[2], pair[3])]
        if name == FULL or not pairs:
            continue
        gaps = [difference(table.header["metric"], *_pair(cells, full)) for _, table, cells, full in pairs]
        low, high = interval(np.mean([_draws(table, i, cells, full) for i, table, cells, full in pairs], axis=0))
        before = [
            statistics.fmean(full[seed]["metric"] for seed in _common(cells, full)) for _, _, cells, full in pairs
        ]
        yield Average(
            method=name,
            title=contender.method.title,
            tasks=tuple(table.header["task"] for _, table, _, _ in pairs),
            difference=100 * statistics.fmean(gaps),
            low=100 * low,
            high=100 * high,
            change=None
            if min(before) <= 0
            else 100 * statistics.fmean(gap / score for gap, score in zip(gaps, before, strict=True)),
            published=PUBLISHED_CHANGE.get(name),
        )


def _common(cells: Cells, full: Cells) -> list[int]:
    """The common seeds of both."""
    return [seed for seed in cells if seed in full]


def _pair(cells: Cells, full: Cells) -> tuple[list[Floats], list[Floats]]:
    """The evidence of both, seed by seed."""
    seeds = _common(cells, full)
    return [evidence_of(cells[seed]) for seed in seeds], [evidence_of(full[seed]) for seed in seeds]


def _draws(table: Table, number: int, cells: Cells, full: Cells) -> Floats:
    """Every task has its own draws, shared by its methods."""
    return difference_draws(table.header["metric"], *_pair(cells, full), seed=number)


def _median(ratios: Iterable[float]) -> float | None:
    found = list(ratios)
    return statistics.median(found) if found else None


def _published_difference(method: str, task: str) -> float | None:
    ours, full = (CONTENDERS[name].published.get(task) for name in (method, FULL))
    return None if method == FULL or ours is None or full is None else ours - full


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 1) -> str:
    if value is None:
        return ""
    return f"{'−' if round(value, digits) < 0 else '+'}{abs(value):.{digits}f}"


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f"{_signed(value)} ({_signed(low)} to {_signed(high)})"
