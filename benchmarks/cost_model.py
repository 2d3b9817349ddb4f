"""Compare the cost model with measurements: memory, time on this machine, and published steps.

1. Memory: the peak of all tensors, predicted and measured by torch's profiler (cost_memory.py).
2. Time: this machine is calibrated, then steps outside of the calibration are predicted and measured (cost_time.py),
   and a whole fine-tuning run on SST-2 (cost_run.py). Leave the machine idle meanwhile.
3. Published: published steps on boards against the shipped profiles (cost_published.py).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from scipy.stats import spearmanr

from benchmarks.cost_memory import MemoryCase, counting_profile, measure_peaks
from benchmarks.cost_models import MODELS
from benchmarks.cost_picture import save_picture
from benchmarks.cost_published import PublishedDevice, published
from benchmarks.cost_run import RunCase, measure_run
from benchmarks.cost_time import TimeCase, measure_steps, settings
from farsearch.calibration.fit import fit_profile
from farsearch.calibration.local import measure_here
from farsearch.cli.terminal import print_rows
from farsearch.formatting import markdown_table

__all__ = ["Report", "main"]

PARTS = ("memory", "time", "run", "published")


@dataclass
class Report:
    """Results; parts that were not requested are empty."""

    memory: list[MemoryCase] = field(default_factory=list)
    time: list[TimeCase] = field(default_factory=list)
    run: RunCase | None = None
    published: list[PublishedDevice] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Errors as fractions."""
        data: dict[str, Any] = {"schema_version": 1}
        if self.memory:
            errors = [abs(one.error) for one in self.memory]
            data["memory"] = {
                "cases": [_memory_json(one) for one in self.memory],
                "mean_error": statistics.mean(errors),
                "max_error": max(errors),
            }
        if self.time:
            data["time"] = {
                "cases": [_time_json(one) for one in self.time],
                "mape": statistics.mean(abs(one.error) for one in self.time),
                "mape_raw": statistics.mean(abs(one.predicted_s / one.measured_s - 1) for one in self.time),
                "spearman": _rank_correlation(self.time),
                "within_range": statistics.mean(one.low_s <= one.steady_s <= one.high_s for one in self.time),
            }
        if self.run is not None:
            data["run"] = {
                "predicted_s": sum(self.run.predicted_s),
                "measured_s": sum(self.run.measured_s),
                "drift": self.run.drift,
                "error": self.run.error,
            }
        if self.published:
            data["published"] = [
                {
                    "device": one.device,
                    "mape_raw": one.mape_raw,
                    "mape_one_scalar": one.mape_one_scalar,
                    "cases": [vars(row) for row in one.rows],
                }
                for one in self.published
            ]
        return data

    def tables(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Titles and rows."""
        found: list[tuple[str, list[dict[str, str]]]] = []
        if self.memory:
            found.append(("Memory, MiB by model and way", _memory_rows(self.memory)))
        if self.time:
            found.append(("Time of a step, s", [_time_row(one) for one in self.time]))
        found += [(one.device, [_published_row(one, i) for i in range(len(one.rows))]) for one in self.published]
        return found

    def summary(self) -> list[str]:
        """One line per part."""
        data, lines = self.to_json(), []
        if self.memory:
            part = data["memory"]
            lines.append(
                f"memory: {len(self.memory)} steps, mean error {part['mean_error']:.3%}, worst {part['max_error']:.3%}"
            )
        if self.time:
            part = data["time"]
            lines.append(
                f"time: {len(self.time)} steps, mean error {part['mape']:.1%} ({part['mape_raw']:.1%} without regard "
                f"to drift), rank correlation {part['spearman']:.3f}, {part['within_range']:.0%} within range"
            )
        if self.run is not None:
            part = data["run"]
            lines.append(
                f"run: predicted {part['predicted_s']:.0f} s, measured {part['measured_s']:.0f} s with the machine "
                f"{part['drift']:.2f} as slow as calibrated: error {part['error']:+.1%}"
            )
        lines += [
            f"{one.device}: mean error {one.mape_raw:.1%}, with one scalar ({one.scalar:.2f}) {one.mape_one_scalar:.1%}"
            for one in self.published
        ]
        return lines


def _rank_correlation(cases: Sequence[TimeCase]) -> float:
    return float(spearmanr([one.predicted_s for one in cases], [one.steady_s for one in cases]).statistic)


def _memory_json(one: MemoryCase) -> dict[str, Any]:
    case = one.case
    return {
        "model": one.model,
        "batch_size": case.batch_size,
        "length": case.length,
        "way": case.title,
        "predicted_mib": one.predicted_mib,
        "measured_mib": one.measured_mib,
        "error": one.error,
    }


def _time_json(one: TimeCase) -> dict[str, Any]:
    case = one.setting.case
    return {
        "model": one.setting.model,
        "batch_size": case.batch_size,
        "length": case.length,
        "way": case.title,
        "predicted_s": one.predicted_s,
        "range_s": [one.low_s, one.high_s],
        "measured_s": one.measured_s,
        "steady_s": one.steady_s,
        "error": one.error,
    }


def _memory_rows(cases: Sequence[MemoryCase]) -> list[dict[str, str]]:
    """One row per model and method: the largest step, and the errors over all batches and lengths."""
    rows = []
    for model, way in dict.fromkeys((one.model, one.case.title) for one in cases):
        some = [one for one in cases if (one.model, one.case.title) == (model, way)]
        errors = [abs(one.error) for one in some]
        largest = max(some, key=lambda one: one.measured_mib)
        rows.append(
            {
                "model": model,
                "what": way,
                "steps": str(len(some)),
                "largest, predicted": f"{largest.predicted_mib:,.1f}",
                "largest, measured": f"{largest.measured_mib:,.1f}",
                "mean error": f"{statistics.mean(errors):.3%}",
                "worst": f"{max(errors):.3%}",
            }
        )
    return rows


def _time_row(one: TimeCase) -> dict[str, str]:
    case = one.setting.case
    return {
        "model": one.setting.model,
        "batch": f"{case.batch_size} x {case.length}",
        "what": case.title,
        "predicted": f"{one.predicted_s:.3f}",
        "range": f"{one.low_s:.3f} to {one.high_s:.3f}",
        "measured": f"{one.measured_s:.3f}",
        "at calibrated speed": f"{one.steady_s:.3f}",
        "off": f"{one.error:+.0%}",
    }


def _published_row(device: PublishedDevice, i: int) -> dict[str, str]:
    row = device.rows[i]
    return {
        "model": row.model,
        "what": row.trained,
        "published": f"{row.published_s:.2f}",
        "predicted": f"{row.predicted_s:.2f}",
        "off": f"{row.predicted_s / row.published_s - 1:+.0%}",
        "with one scalar": f"{device.scalar * row.predicted_s / row.published_s - 1:+.0%}" if i else "fitted",
    }


def _measure(parts: Sequence[str], models: Sequence[str], rounds: int, seconds: float, data_dir: Path | None) -> Report:
    report = Report()
    note: Callable[[str], None] = lambda text: click.echo(text, err=True)  # noqa: E731
    if "published" in parts:
        report.published = published()
    if not {"memory", "time", "run"} & {*parts}:
        return report
    calibration = measure_here(seconds if {"time", "run"} & {*parts} else 5.0, note)
    profile = fit_profile(calibration, "here")
    if "run" in parts and data_dir is not None:
        report.run = measure_run(calibration, profile, data_dir, "minilm", note)
    if "time" in parts:
        chosen = [setting for setting in settings() if setting.model in models]
        report.time = measure_steps(calibration, profile, chosen, rounds, note)
    if "memory" in parts:
        report.memory = measure_peaks(counting_profile(profile), models, note)
    return report


@click.command(help=__doc__, epilog="Example: python -m benchmarks.cost_model --parts time,run --data-dir glue")
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Which, with commas.")
@click.option("--models", default=",".join(MODELS), show_default=True, help="Shapes to measure, with commas.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of timed steps.")
@click.option("--calibration-s", type=float, default=150.0, show_default=True, help="Time to calibrate this machine.")
@click.option("--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), envvar="FARSEARCH_GLUE_DIR",
              help="SST-2's official files, for the run; without it, no run.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print the tables as markdown.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="PNG to write.")
def main(
    parts: str, models: str, rounds: int, calibration_s: float, data_dir: Path | None, as_json: bool, markdown: bool,
    picture: Path | None,
) -> None:  # fmt: skip
    """Compare the cost model with measurements."""
    asked = parts.split(",")
    for name, known in ((asked, PARTS), (models.split(","), MODELS)):
        unknown = sorted({*name} - {*known})
        if unknown:
            raise click.UsageError(f"{unknown[0]!r} is none of {', '.join(known)}")
    report = _measure(asked, models.split(","), rounds, calibration_s, data_dir)
    if picture is not None:
        save_picture(report.memory, report.time, report.published, picture)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
        return
    for title, rows in report.tables():
        if markdown:
            click.echo(f"### {title}\n\n{markdown_table(rows)}\n")
        else:
            print_rows(rows, title, "")
    for line in report.summary():
        click.echo(line)


if __name__ == "__main__":
    main()
