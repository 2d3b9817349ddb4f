"""Preview of a search: the size of its space, the share of it that fits the device, the time on this host."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from farsearch.cost.plans import quickest
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.errors import NoFeasibleTrial
from farsearch.far.batches import steps_in
from farsearch.far.loop import predict
from farsearch.formatting import human_memory, human_time
from farsearch.goals import Goal
from farsearch.records import FarConfig, StepPlan
from farsearch.runtime.best_state import EVALUATIONS
from farsearch.runtime.encoding import first_rows
from farsearch.study.pricing import price_params
from farsearch.study.random_configs import draw_params
from farsearch.study.samplers import GatedSampler, make_sampler
from farsearch.study.space import Space
from farsearch.study.store import DIRECTIONS
from farsearch.study.suggestion import nearest_fit
from farsearch.training import Bench, far_phase

__all__ = ["Preview", "check_feasible", "preview_search"]

_DRAWS = 200
_STEPS = 4
_PRIMINGS = 10
_LONG_S = 3600.0


@dataclass(frozen=True)
class Preview:
    """Size, feasibility and duration of a search before it starts.

    Attributes:
        combinations: number of combinations of the discrete parameters.
        continuous: names of the other parameters.
        share_feasible: share of random configurations that fit, from the cost model.
        memory_mib, time_s: minimum and maximum over these configurations, on the device.
        trial_seconds: upper estimate of one trial on this host, from timed steps of full fine-tuning.
        priming_seconds: the same for all primings, which are run once and cached.
    """

    combinations: int
    continuous: tuple[str, ...]
    share_feasible: float
    memory_mib: tuple[float, float]
    time_s: tuple[float, float]
    trial_seconds: float
    priming_seconds: float
    n_trials: int

    def lines(self) -> list[str]:
        """Format the preview as lines of text."""
        rest = f" times a continuous {', '.join(self.continuous)}" if self.continuous else ""
        count = f"{self.combinations:,}" if self.combinations < 1_000_000 else f"{self.combinations:.1e}"
        low, high = self.memory_mib
        total = self.priming_seconds + self.trial_seconds * self.n_trials
        lines = [
            f"space: {count} combination{'s' * (self.combinations != 1)}{rest}; {self.share_feasible:.0%} of {_DRAWS} "
            f"random ones fit: {low:,.0f} to {human_memory(high)}, {human_time(self.time_s[0])} to "
            f"{human_time(self.time_s[1])} on the device",
            f"this host: about {human_time(total)} for {self.n_trials} trials of at most "
            f"{human_time(self.trial_seconds)}, {human_time(self.priming_seconds)} of it for priming",
        ]
        if total > _LONG_S:
            lines.append("  shorter: fewer --train-samples or --n-trials, a smaller --model, or --timeout")
        return lines


def preview_search(space: Space, pricer: Pricer, bench: Bench, goal: Goal, n_trials: int) -> Preview:
    """Price random configurations of a space, and time a few training steps on this host."""
    layers = len(bench.layout.layers)
    params = draw_params(space.distributions(layers), _DRAWS, np.random.default_rng(bench.job.seed))
    configs = [space.config(values, layers) for values in params]
    costs = price_params(pricer, space, layers, goal)(params)
    combinations, continuous = space.size(layers)
    trial_seconds, priming_seconds = _host_seconds(configs, bench)
    return Preview(
        combinations=combinations,
        continuous=tuple(continuous),
        share_feasible=float(costs.fits.mean()),
        memory_mib=(float(costs.memory_mib.min()), float(costs.memory_mib.max())),
        time_s=(float(costs.time_s.min()), float(costs.time_s.max())),
        trial_seconds=trial_seconds,
        priming_seconds=priming_seconds,
        n_trials=n_trials,
    )


def check_feasible(
    space: Space, pricer: Pricer, goal: Goal, sampler: str, seed: int, others: Pricer | None = None
) -> None:
    """Check that a search would find a first trial, by the proposals that it would make.

    Args:
        others: of the engines that ``pricer`` leaves out, for a suggestion.

    Raises:
        NoFeasibleTrial: with the nearest settings that fit.
    """
    layers = pricer.layers
    distributions = space.distributions(layers)

    def gate(params: Mapping[str, Any]) -> str | None:
        _, cost = pricer.best(space.config(params, layers), goal)
        return None if cost.fits else cost.problems[0].partition(":")[0]

    if any(gate(start) is None for start in space.starts(layers).values()):
        return
    inner = make_sampler(sampler, distributions, price_params(pricer, space, layers, goal), seed, 0)
    study = optuna.create_study(directions=DIRECTIONS, sampler=GatedSampler(inner, distributions, gate))
    try:
        study.ask(distributions)
    except NoFeasibleTrial as error:
        raise NoFeasibleTrial(f"{error}; {nearest_fit(pricer, goal, space, layers, others)}") from error


def _host_seconds(configs: Sequence[FarConfig], bench: Bench) -> tuple[float, float]:
    """Return the seconds of a trial and of all primings, estimated from a few steps and rows of full fine-tuning."""
    layers, job = len(bench.layout.layers), bench.job
    rows, features = bench.train_rows, len(bench.train_rows.lengths)
    sample = first_rows(rows, _STEPS * job.batch_size)
    size = len(sample.lengths)
    bench.model.load_state_dict(bench.pretrained)
    plan = quickest(StepPlan(), bench.layout)
    seconds = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        far_phase(
            bench.model, bench.layout, [None] * len(bench.layout.blocks), full_fine_tuning(layers), plan, sample,
            bench.batching,
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
    step = seconds[-1] / steps_in(size, job.batch_size, 1.0)
    started = time.perf_counter()
    part = first_rows(bench.validation_rows, 64).features
    predict(bench.model, part, bench.pad_id)
    row = (time.perf_counter() - started) / len(part.input_ids)
    evaluated = (bench.validation_rows, bench.dev_rows, *bench.more_dev_rows.values())
    evaluated_rows = sum(len(part.lengths) for part in evaluated)
    longest = max(config.epochs for config in configs)
    # continuous lengths make every priming different: count at most the usual number
    primings = sorted({config.priming_epochs for config in configs})[-_PRIMINGS:]
    evaluated_rows += EVALUATIONS * bench.watched_rows
    trial = step * steps_in(features, job.batch_size, longest) + row * evaluated_rows
    return trial, step * sum(steps_in(features, job.batch_size, epochs) for epochs in primings)
