"""What a search is going to be: the size of its space, the share that fits the device, the time on this host."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import create_study

from farsearch.cost.price import Pricer, full_fine_tuning
from farsearch.far.batches import steps_in
from farsearch.far.loop import predict
from farsearch.records import StepPlan
from farsearch.study.space import Space
from farsearch.training import Bench, far_phase

__all__ = ["Outlook", "outlook"]

_DRAWS = 200
_STEPS = 4


@dataclass(frozen=True)
class Outlook:
    """The outlook of a search.

    Attributes:
        combinations: of the discrete parameters. continuous: names of the others.
        share_feasible: of random configurations of the space, from the cost model.
        memory_mib, time_s: least and most among them.
        trial_seconds: an upper estimate of one trial on this host, from timed steps of full fine-tuning.
    """

    combinations: int
    continuous: tuple[str, ...]
    share_feasible: float
    memory_mib: tuple[float, float]
    time_s: tuple[float, float]
    trial_seconds: float
    n_trials: int

    def lines(self) -> list[str]:
        """The outlook in words."""
        rest = f" times a continuous {', '.join(self.continuous)}" if self.continuous else ""
        minutes = self.trial_seconds * self.n_trials / 60
        lines = [
            f"space: {self.combinations:.3g} combinations{rest}; {self.share_feasible:.0%} of {_DRAWS} random ones fit, "
            f"{self.memory_mib[0]:.0f} to {self.memory_mib[1]:.0f} MiB, {self.time_s[0]:.0f} to {self.time_s[1]:.0f} s "
            "on the device",
            f"this host: at most {self.trial_seconds:.0f} s a trial, {minutes:.0f} min for {self.n_trials} trials",
        ]
        if minutes > 60:
            lines.append("  shorter: fewer --train-samples or --n-trials, or --timeout")
        return lines


def outlook(space: Space, pricer: Pricer, bench: Bench, plan: StepPlan, n_trials: int) -> Outlook:
    """Price random configurations and time some steps."""
    layers = len(bench.layout.layers)
    distributions = space.distributions(layers)
    costs = [
        pricer.price(space.config(params, layers), plan) for params in _draws(distributions, bench.job.seed)
    ]
    combinations, continuous = space.size(layers)
    return Outlook(
        combinations=combinations,
        continuous=tuple(continuous),
        share_feasible=sum(cost.fits for cost in costs) / len(costs),
        memory_mib=(min(c.peak_memory_mib for c in costs), max(c.peak_memory_mib for c in costs)),
        time_s=(min(c.wall_time_s for c in costs), max(c.wall_time_s for c in costs)),
        trial_seconds=_trial_seconds(space, bench, plan),
        n_trials=n_trials,
    )


def _draws(distributions: dict[str, BaseDistribution], seed: int) -> list[dict[str, object]]:
    """Random parameters of the space, by Optuna's own sampler on a study in memory."""
    study = create_study(sampler=RandomSampler(seed=seed))
    return [study.ask(distributions).params for _ in range(_DRAWS)]


def _trial_seconds(space: Space, bench: Bench, plan: StepPlan) -> float:
    """Full fine-tuning of the longest phase that the space allows, extrapolated from a few steps and rows."""
    layers, job = len(bench.layout.layers), bench.job
    params = {name: getattr(d, "high", None) or getattr(d, "choices", [0])[-1]
              for name, d in space.distributions(layers).items()}  # fmt: skip
    epochs = space.config(params, layers).epochs
    rows = bench.train_rows
    size = min(len(rows), _STEPS * job.batch_size)
    sample = dataclasses.replace(rows, input_ids=rows.input_ids[:size], labels=rows.labels[:size])
    bench.model.load_state_dict(bench.pretrained)
    seconds = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        far_phase(
            bench.model, bench.layout, [None] * layers, full_fine_tuning(layers), plan, sample, job.batch_size,
            bench.pad_id, job.seed,
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
    step = seconds[-1] / steps_in(size, job.batch_size, 1.0)
    started = time.perf_counter()
    part = bench.validation_rows.input_ids[:64]
    predict(bench.model, part, bench.pad_id)
    row = (time.perf_counter() - started) / len(part)
    evaluated = len(bench.validation_rows) + len(bench.dev_rows)
    return step * steps_in(len(rows), job.batch_size, epochs) + row * evaluated
