"""Train one proposed trial, and make its record."""

from __future__ import annotations

import dataclasses
import time

from farsearch.cost.plans import quickest
from farsearch.errors import TrialError
from farsearch.records import TrialRecord
from farsearch.study.results import results_of, updated
from farsearch.study.trial_queue import Proposal
from farsearch.study.watcher import Watcher
from farsearch.training import Bench, Outcome

__all__ = ["run_trial"]


def run_trial(bench: Bench, proposal: Proposal, watcher: Watcher) -> tuple[TrialRecord, Outcome | None]:
    """Train a proposal; the outcome is None for one that was stopped or could not be finished."""
    record, racer = proposal.record, proposal.racer
    config, plan = record.config, record.plan
    assert config is not None
    assert plan is not None
    watcher.trial_started(record.number, config, proposal.cost)
    outcome, started = None, time.perf_counter()
    try:
        # all exact plans learn the same, so this host runs the quickest and not the device's
        outcome = bench.run(config, quickest(plan, bench.layout), watcher.step, watcher.note, racer)
    except TrialError as error:
        ended = updated(
            record,
            state="pruned",
            reason=str(error),
            host_seconds=time.perf_counter() - started,
            extrapolated_metric=None if racer is None or racer.stopped_by is None else racer.stopped_by.expected,
        )
    else:
        ended = updated(record, state="complete", **results_of(outcome))
    return ended if racer is None else dataclasses.replace(ended, looks=tuple(racer.points)), outcome
