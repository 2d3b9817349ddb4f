"""The step tables of one model, each traced when it is first needed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import MutableMapping
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from farsearch.cache import describe
from farsearch.cost.segments import Composed
from farsearch.cost.software import Software
from farsearch.cost.step_table import StepTable
from farsearch.cost.whole_model import Prepare, trace_prepared
from farsearch.far.execution import rows_at_once
from farsearch.far.layout import ModelLayout
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.records import StepPlan

__all__ = ["TableKey", "TracedModel", "shared_tables", "traced_plan"]

_SOFTWARE = Software()

TableKey = tuple[int, StepPlan, int | None, Software]
"""Rows at once, ``traced_plan``, the rows of a portion (the tokens of a compiled step), and the device's software."""


def traced_plan(plan: StepPlan, micro_batch_size: int | None = None) -> StepPlan:
    """Return the plan as far as the trace of the forward and backward pass depends on it: not on its optimizer."""
    return dataclasses.replace(
        plan, micro_batch_size=micro_batch_size, optimizer="adamw", optimizer_kernel="loop", optimizer_step="end"
    )


def shared_tables(config: Any, head: Head) -> dict[TableKey, StepTable]:
    """Return the step tables of a model, of which a process has one set, for all jobs and devices."""
    return _tables(config.to_json_string(use_diff=False), head)


@lru_cache(maxsize=16)
def _tables(_config: str, _head: Head) -> dict[TableKey, StepTable]:
    return {}


@lru_cache(maxsize=16)
def _prepared_steps(_config: str, _head: Head) -> dict[tuple[Prepare, int, Software], Composed]:
    return {}


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@cache
def _versions() -> tuple[str, ...]:
    """Return the versions of the libraries that a trace runs, and the digest of farsearch's own code."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(file.read_bytes())
    return (*(metadata.version(name) for name in ("torch", "transformers", "onnx")), code.hexdigest())


class TracedModel:
    """Traces a model with a head, and stores its step tables.

    Args:
        config: transformers configuration of the model.
        head: of the model.
        tables: filled with the step tables. They depend on neither the data nor, except for its software, the device,
            so all users of one model and head can share them.
        traces: folder in which processes share what new tables have traced; None for this process alone.
    """

    def __init__(
        self,
        config: Any,
        head: Head,
        tables: MutableMapping[TableKey, StepTable] | None = None,
        traces: Path | None = None,
    ) -> None:
        self._config, self.head = config, head
        self._tables = {} if tables is None else tables
        self._traces = traces

    @property
    def layout(self) -> ModelLayout:
        """The model's layers and the module paths in them."""
        return layout_of(self._config)

    def table(self, plan: StepPlan, rows: int, max_length: int, software: Software) -> StepTable:
        """Return the step table of a plan with ``rows`` at once.

        Its portions are those of rows of ``max_length`` tokens. Shorter rows are executed in fewer portions, so a few
        launches too many are counted in their time.
        """
        portion: int | None
        if plan.engine == "onnx":
            portion, software = max_length, _SOFTWARE
        elif plan.feed_forward == plan.attention == "modules":
            portion = None
        else:
            portion = min(rows, rows_at_once((rows, max_length, 0)))
        key: TableKey = rows, traced_plan(plan), portion, software
        if key not in self._tables:
            sizes = {"length" if plan.engine == "onnx" else "chunk_rows": portion}
            file = None if self._traces is None else self._file(self._traces, key)
            self._tables[key] = StepTable(self._config, self.head, rows, key[1], software=software, file=file, **sizes)
        return self._tables[key]

    def _file(self, folder: Path, key: TableKey) -> Path:
        """Return the file of a table's traces, by all that they depend on."""
        config = {name: value for name, value in self._config.to_dict().items() if name != "_name_or_path"}
        model = _digest(config, self.head, self.layout, _versions())
        describe(folder / model, {"model": self._config.model_type, "layers": len(self.layout.layers)})
        return folder / model / f"{_digest(*key)}.npz"

    def step_of(self, prepare: Prepare, rows: int, software: Software) -> Composed:
        """Return the step of the model as ``prepare`` changes it, traced once a process; see ``trace_prepared``."""
        steps, key = _prepared_steps(self._config.to_json_string(use_diff=False), self.head), (prepare, rows, software)
        if key not in steps:
            steps[key] = trace_prepared(self._config, self.head, rows, prepare, software)
        return steps[key]
