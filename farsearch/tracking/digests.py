"""Hashes of what a study's runs show, by which a sync finds what has changed. Pure."""

from __future__ import annotations

import json

from farsearch.records import StudySnapshot, flat
from farsearch.tracking.content import RunContent, digest_of

__all__ = ["shown_digest", "study_digest"]

_VERSION = 3
"""Version of the content of runs. When it rises, the next sync compares all of them."""


def shown_digest(snapshot: StudySnapshot, content: RunContent) -> str:
    """Return a hash of the data of report, pictures and tables, which are drawn again when it changes.

    Of an ended trial only the membership of the front changes, so a few values identify it.
    """
    shown = [
        (t.number, t.state, t.metric, t.metric_error, t.peak_memory_mib, t.wall_time_s, t.feasible, t.on_front,
         t.host_seconds, t.host_peak_mib, len(t.curve))
        for t in map(flat, (*snapshot.ended, *snapshot.baselines))
    ]  # fmt: skip
    verified = [
        (t.number, t.metric, t.verifies and t.verifies.to_dict(), t.baseline and t.baseline.method)
        for t in map(flat, snapshot.verified)
    ]
    measured = [measurement.to_dict() for measurement in snapshot.measurements]
    about = [dict(content.params), dict(snapshot.rejected), snapshot.budget_mib, snapshot.n_trials]
    return digest_of([shown, verified, measured, about, json.dumps(dict(snapshot.meta), sort_keys=True, default=str)])


def study_digest(snapshot: StudySnapshot, content: RunContent) -> str:
    """Return a hash of the content of all runs of the study.

    Of an ended trial only the membership of the front changes, so a few values identify it.
    """
    trials = [
        (t.number, t.state, t.on_front, t.feasible, t.reason, t.metric, t.peak_memory_mib, t.wall_time_s,
         t.host_seconds, None if t.config is None else t.config.learning_rate, len(t.curve))
        for t in map(flat, snapshot.trials)
    ]  # fmt: skip
    tags, params = dict(content.tags), dict(content.params)
    measured = [one.to_dict() for one in snapshot.measurements]
    return digest_of([_VERSION, measured, trials, content.name, content.status, tags, params, dict(content.latest)])
