"""The report of far_step: figures as records, JSON and tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.step_variants import FULL
from farsearch.calibration.local import this_machine

__all__ = ["Report", "Result", "device_name", "tables"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Result:
    """The figures of one variant at one batch and length. Ratios are to full fine-tuning.

    Attributes:
        peak_mib: of all tensors in a step.
        saved_mib: tensors that the forward pass saves for the backward pass.
        step_s: median wall time of a step.
        gemm_ratio, nongemm_ratio: of the time in matrix products and outside them.
        plan: of farsearch's steps, None for another method's.
    """

    variant: str
    batch: int
    seq: int
    time_ratio: float
    peak_ratio: float
    peak_mib: float
    saved_mib: float
    nongemm_ratio: float
    trainable: int
    gemm_ratio: float
    step_s: float
    plan: dict[str, Any] | None


@dataclass(frozen=True)
class Report:
    """A run: the machine, the model, and the results by length."""

    device: str
    model: str
    rounds: int
    results: tuple[Result, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report in JSON types."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Return the report that ``to_dict`` wrote; other data raise KeyError, TypeError or ValueError."""
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {data['schema_version']}; this reads {SCHEMA_VERSION}")
        results = tuple(Result(**row) for row in data["results"])
        return cls(data["device"], data["model"], data["rounds"], results)


def device_name() -> str:
    """Return processor, threads and torch of this machine."""
    machine = this_machine()
    threads = "" if machine.kind == "cuda" else f", threads: {machine.threads}"
    return f"{machine.processor}{threads}, torch {machine.torch}"


def _rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """Rounded figures. Products, and the time outside of them, are ratios too."""
    return [
        {
            "what": result.variant,
            "trained": f"{result.trainable:,}",
            "peak MiB": f"{result.peak_mib:,.0f}",
            "peak ratio": f"{result.peak_ratio:.2f}",
            "time ratio": f"{result.time_ratio:.2f}",
            "products": f"{result.gemm_ratio:.2f}",
            "outside": f"{result.nongemm_ratio:.2f}",
            "saved MiB": f"{result.saved_mib:,.0f}",
        }
        for result in results
    ]


def tables(report: Report) -> list[tuple[str, list[dict[str, str]]]]:
    """Return a title and rows for each length."""
    tables = []
    for length in dict.fromkeys(result.seq for result in report.results):
        here = [result for result in report.results if result.seq == length]
        full = next(result for result in here if result.variant == FULL)
        title = (
            f"{report.model}, batch {full.batch} × {length}, against full fine-tuning ({full.step_s:.2f} s a step); "
            f"rounds: {report.rounds}\n{report.device}"
        )
        tables.append((title, _rows(here)))
    return tables
