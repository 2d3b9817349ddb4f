"""The step tables of one model, each traced when it is first needed."""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

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


class TracedModel:
    """Traces a model with a head, and stores its step tables.

    Args:
        config: transformers configuration of the model.
        head: of the model.
        tables: filled with the step tables. They depend on neither the data nor, except for its software, the device,
            so all users of one model and head can share them.
    """

    def __init__(self, config: Any, head: Head, tables: MutableMapping[TableKey, StepTable] | None = None) -> None:
        self._config, self.head = config, head
        self._tables = {} if tables is None else tables

    @property
    def layout(self) -> ModelLayout:
        """The model's layers and the module paths in them."""
        return layout_of(self._config)

    def table(self, plan: StepPlan, rows: int, max_length: int, software: Software) -> StepTable:
        """Return the step table of a plan with ``rows`` at once.

        Its portions are those of rows of ``max_length`` tokens. Shorter rows are executed in fewer portions, so a few
        launches too many are counted in their time.
        """
        if plan.engine == "onnx":
            compiled: TableKey = (rows, traced_plan(plan), max_length, _SOFTWARE)
            if compiled not in self._tables:
                self._tables[compiled] = StepTable(self._config, self.head, rows, compiled[1], length=max_length)
            return self._tables[compiled]
        is_ordinary = plan.feed_forward == plan.attention == "modules"
        chunk = None if is_ordinary else min(rows, rows_at_once((rows, max_length, 0)))
        key = (rows, traced_plan(plan), chunk, software)
        if key not in self._tables:
            self._tables[key] = StepTable(self._config, self.head, rows, key[1], chunk, software)
        return self._tables[key]

    def step_of(self, prepare: Prepare, rows: int, software: Software) -> Composed:
        """Return the step of the model as ``prepare`` changes it, traced once a process; see ``trace_prepared``."""
        steps, key = _prepared_steps(self._config.to_json_string(use_diff=False), self.head), (prepare, rows, software)
        if key not in steps:
            steps[key] = trace_prepared(self._config, self.head, rows, prepare, software)
        return steps[key]
