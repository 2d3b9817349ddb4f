"""A trial with its predicted cost, and the result of its training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from farsearch.cost.pricer import Price, Pricer, best_of
from farsearch.goals import Goal
from farsearch.pareto import non_dominated
from farsearch.records import Completed, FarConfig, PlanPrice, Running, StepPlan, Trial, TrialOutcome
from farsearch.training import Outcome

__all__ = ["excess_of", "predictions_of", "priced_trial", "training_result"]


def priced_trial(pricer: Pricer, goal: Goal, number: int, config: FarConfig) -> tuple[Trial[TrialOutcome], Price]:
    """Return a trial before its training, with its cost under the best plan for the goal and under others."""
    priced = pricer.all_plans(config)
    plan, cost = best_of(priced, goal)
    plans = tuple(PlanPrice(one, c.peak_memory_mib, c.wall_time_s, c.fits) for one, c in _undominated(plan, priced))
    return Trial(number=number, config=config, plan=plan, cost=cost, outcome=Running(), plans=plans), cost


def excess_of(cost: Price, pricer: Pricer) -> dict[str, float]:
    """Return the excess over each bound as a share of it: feasible where at most 0."""
    constraints = pricer.constraints
    excess = {"memory": cost.peak_memory_range_mib[1] / cost.available_range_mib[0] - 1.0}
    if constraints.max_memory_mib is not None:
        excess["max-memory"] = cost.peak_memory_mib / constraints.max_memory_mib - 1.0
    if constraints.max_time_s is not None:
        excess["max-time"] = cost.wall_time_s / constraints.max_time_s - 1.0
    return excess


def _undominated(chosen: StepPlan, priced: Sequence[tuple[StepPlan, Price]]) -> list[tuple[StepPlan, Price]]:
    """Return the chosen plan and the undominated ones, among which is the best for any goal."""
    front = non_dominated([(cost.peak_memory_mib, cost.wall_time_s) for _, cost in priced], distinct=True)
    return [pair for i, pair in enumerate(priced) if pair[0] == chosen or i in front]


def training_result(outcome: Outcome) -> Completed:
    """Return the result of a training without its tensors, independent of device and plan."""
    return Completed(
        metric=outcome.metric,
        metric_error=outcome.metric_error,
        learned=outcome.learned,
        dev_metric=outcome.dev_metric,
        parts=dict(outcome.parts),
        host_seconds=outcome.host_seconds,
        host_peak_mib=outcome.host_peak_mib,
        trainable=outcome.trainable,
        priming=outcome.priming,
        curve=outcome.curve,
    )


def predictions_of(outcome: Outcome) -> dict[str, Tensor]:
    """Return the predictions on validation and development rows, by their names in a file."""
    return {
        "validation": outcome.validation_logits,
        "validation_evidence": outcome.validation_evidence,
        "dev": outcome.dev_logits,
        "dev_evidence": outcome.dev_evidence,
    }
