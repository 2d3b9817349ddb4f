"""Fill a trial's record: its predicted costs, and the results of its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from farsearch.cost.pricer import Cost
from farsearch.pareto import non_dominated
from farsearch.records import FarConfig, PlanPrice, StepPlan, TrialRecord
from farsearch.training import Outcome

__all__ = ["predictions_of", "priced_record", "results_of", "updated"]


def updated(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Return the record with changed values, given as JSON types."""
    return TrialRecord.from_dict({**record.to_dict(), **changes})


def priced_record(
    number: int,
    config: FarConfig | None,
    plan: StepPlan,
    cost: Cost,
    priced: Sequence[tuple[StepPlan, Cost]] = (),
) -> TrialRecord:
    """Return the record of a trial before its training, with its cost under ``plan`` and under other plans."""
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
        plans=tuple(PlanPrice(one, c.peak_memory_mib, c.wall_time_s, c.fits) for one, c in _undominated(plan, priced)),
    )


def _undominated(chosen: StepPlan, priced: Sequence[tuple[StepPlan, Cost]]) -> list[tuple[StepPlan, Cost]]:
    """Return the chosen plan and the undominated ones, among which is the best for any goal."""
    front = non_dominated([(cost.peak_memory_mib, cost.wall_time_s) for _, cost in priced], distinct=True)
    return [pair for i, pair in enumerate(priced) if pair[0] == chosen or i in front]


def results_of(outcome: Outcome) -> dict[str, Any]:
    """Return the results of a training as JSON types by the record's names, independent of device and plan."""
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


def predictions_of(outcome: Outcome) -> dict[str, Tensor]:
    """Return the predictions on validation and development rows, by their names in a file."""
    return {
        "validation": outcome.validation_logits,
        "validation_evidence": outcome.validation_evidence,
        "dev": outcome.dev_logits,
        "dev_evidence": outcome.dev_evidence,
    }
