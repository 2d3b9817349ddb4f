"""Train one proposed trial."""

from __future__ import annotations

import dataclasses
import time

from farsearch.cost.plans import quickest
from farsearch.errors import TrialError
from farsearch.records import Completed, Stopped
from farsearch.study.results import training_result
from farsearch.study.trial_queue import Proposal
from farsearch.study.watcher import Watcher
from farsearch.training import Bench, Outcome
from farsearch.training.phase import OnStep

__all__ = ["run_trial"]


def run_trial(
    bench: Bench, proposal: Proposal, watcher: Watcher, on_step: OnStep
) -> tuple[Completed, Outcome] | tuple[Stopped, None]:
    """Train a proposal; return how it ended, and the outcome with its tensors."""
    trial, racer = proposal.record, proposal.racer
    watcher.trial_started(trial.number, trial.config, trial.cost)
    started, looks = time.perf_counter(), [] if racer is None else racer.points
    try:
        # all exact plans learn the same, so this host runs the quickest and not the device's
        plan = quickest(trial.plan, bench.layout)
        outcome = bench.run(trial.config, plan, on_step, watcher.note, racer)
    except TrialError as error:
        forecast = None if racer is None else racer.stopped_by
        return Stopped(
            reason=str(error),
            host_seconds=time.perf_counter() - started,
            extrapolated_metric=None if forecast is None else forecast.expected,
            looks=tuple(looks),
        ), None
    return dataclasses.replace(training_result(outcome), looks=tuple(looks)), outcome
