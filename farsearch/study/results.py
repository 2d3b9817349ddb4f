"""What a trial's record holds: what it was priced at, and what its training gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from farsearch.cost.pricer import Cost
from farsearch.pareto import non_dominated
from farsearch.records import FarConfig, PlanPrice, StepPlan, TrialRecord
from farsearch.training import Outcome

__all__ = ["changed", "priced_record", "results_of", "said_by"]


def changed(record: TrialRecord, **changes: Any) -> TrialRecord:
    """The record with some values in JSON types exchanged."""
    return TrialRecord.from_dict({**record.to_dict(), **changes})


def priced_record(
    number: int,
    config: FarConfig | None,
    plan: StepPlan,
    cost: Cost,
    priced: Sequence[tuple[StepPlan, Cost]] = (),
) -> TrialRecord:
    """A trial that is about to be trained, its cost, and what it would cost under other plans."""
    return TrialRecord(
        number=number,
        state="running",
        config=config,
        plan=plan,
        peak_memory_mib=cost.peak_memory_mib,
        peak_memory_range_mib=cost.peak_memory_range_mib,
        wall_time_s=cost.wall_time_s,
        wall_time_range_s=cost.wall_time_range_s,
        energy_j=cost.energy_j,
        feasible=cost.fits,
        memory=cost.memory,
        time=cost.time,
        trainable=cost.trainable,
        plans=tuple(PlanPrice(each, c.peak_memory_mib, c.wall_time_s, c.fits) for each, c in _worth_it(plan, priced)),
    )


def _worth_it(chosen: StepPlan, priced: Sequence[tuple[StepPlan, Cost]]) -> list[tuple[StepPlan, Cost]]:
    """The chosen plan and those that no other beats in peak and time: the best for any goal is among them."""
    front = non_dominated([(cost.peak_memory_mib, cost.wall_time_s) for _, cost in priced], distinct=True)
    return [pair for i, pair in enumerate(priced) if pair[0] == chosen or i in front]


def results_of(outcome: Outcome) -> dict[str, Any]:
    """What training gave, in JSON types by the record's names: the part that depends on no device and no plan."""
    return {
        "metric": outcome.metric,
        "metric_error": outcome.metric_error,
        "learned": outcome.learned,
        "dev_metric": outcome.dev_metric,
        "parts": dict(outcome.parts),
        "host_seconds": outcome.host_seconds,
        "host_peak_mib": outcome.host_peak_mib,
        "trainable": outcome.trainable,
        "priming": outcome.priming.to_dict(),
        "curve": [point.to_dict() for point in outcome.curve],
    }


def said_by(outcome: Outcome) -> dict[str, Tensor]:
    """What the trained model says of the validation and the development rows, as a file keeps it."""
    return {
        "validation": outcome.validation_logits,
        "validation_evidence": outcome.validation_evidence,
        "dev": outcome.dev_logits,
        "dev_evidence": outcome.dev_evidence,
    }
