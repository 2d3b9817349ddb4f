"""Trials as JSON for programs: unrounded, in the shape of ``trials --json``, ``pareto --json`` and MLflow's files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from farsearch.comparison import leads
from farsearch.records import SCHEMA_VERSION, AnyTrial, Record, StudySnapshot, flat

__all__ = ["baselines_json", "trials_json", "trials_text"]


def trials_text(snapshot: StudySnapshot, trials: Sequence[AnyTrial]) -> str:
    """Return ``trials_json`` as text, one line per trial."""
    data = dict(trials_json(snapshot, trials))
    lists = {key: data.pop(key) for key in ("trials", "baselines")}
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in data.items())
    body = ",\n".join(f" {json.dumps(key)}: {_one_a_line(rows)}" for key, rows in lists.items())
    return f"{{\n{head}{body}\n}}"


def _one_a_line(rows: Sequence[Any]) -> str:
    return "[{}]".format(",".join(f"\n  {json.dumps(row)}" for row in rows) + ("\n " if rows else ""))


def trials_json(snapshot: StudySnapshot, trials: Sequence[AnyTrial]) -> Mapping[str, Any]:
    """Return ``trials`` in the shape of ``trials --json``, ``pareto --json`` and MLflow's ``front.json``, unrounded."""
    return {
        "schema_version": SCHEMA_VERSION,
        "study": snapshot.name,
        "constant_answer": snapshot.meta.get("constant_answer"),
        "choices": [
            {"trial": lead.trial.number, "behind": [trial.number for trial in lead.behind]} for lead in leads(snapshot)
        ],
        "trials": [_json_row(trial, _JSON_KEYS) for trial in trials],
        "baselines": baselines_json(snapshot),
    }


def baselines_json(snapshot: StudySnapshot) -> list[Mapping[str, Any]]:
    """Return the baselines in the shape of ``trials_json``'s trials, each with its ``baseline`` record."""
    return [_json_row(trial, ("baseline", *_JSON_KEYS)) for trial in snapshot.baselines]


def _json_row(trial: AnyTrial, keys: Sequence[str]) -> dict[str, Any]:
    stored = flat(trial)
    values = {key: getattr(stored, key) for key in keys}
    return {key: value.to_dict() if isinstance(value, Record) else value for key, value in values.items()}


_JSON_KEYS = (
    "number",
    "state",
    "metric",
    "learned",
    "dev_metric",
    "peak_memory_mib",
    "wall_time_s",
    "energy_j",
    "feasible",
    "on_front",
    "config",
    "plan",
)
