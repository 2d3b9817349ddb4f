"""Make a study of many trials, and time the commands that read it and its mirror in MLflow.

::

    python -m benchmarks.big_study --trials 10000
    python -m benchmarks.big_study --trials 10000 --storage postgresql://user@host/empty_database --json

Every trial is a configuration of the default space, priced by the cost model; proposals over the limit are rejected and
counted, as in a search. Only the results of training (metric, learning curve, seconds) are made up. The trials are
recorded by the same calls of Optuna's storage as in a search, so the journal is realistic.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from farsearch.cost.pricer import Pricer
from farsearch.records import Completed, LossPoint, PrimingReport, Stopped, Trial, TrialOutcome, trial_to_dict
from farsearch.resolve import Job, resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.results import priced_trial
from farsearch.study.store import Store

SCHEMA_VERSION = 1
STUDY = "big"
_OPTIONS = SearchSpec(task="reviews", device="jetson-nano", model="minilm", max_memory_mib=1278.0)
"""The embedded sample, with a limit that about a third of the proposals exceed."""

_BOUNDS_S = {
    "journal": {"status": 8.0, "trials": 8.0, "pareto": 8.0, "first sync": 1500.0, "second sync": 5.0},
    "database": {"status": 5.0, "trials": 5.0, "pareto": 5.0, "first sync": 1500.0, "second sync": 5.0},
}
"""Upper limit of each command's wall seconds with 10,000 trials."""


@dataclass(frozen=True)
class Timing:
    """One command: wall and processor seconds."""

    name: str
    wall_s: float
    cpu_s: float


class _QuickJournal(JournalFileBackend):
    """The journal's file without fsync: ten thousand trials per minute."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with open(self._file_path, "ab") as file:
            file.write(b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs))


def make_study(folder: Path, count: int, seed: int = 0) -> None:
    """Make a study of ``count`` ended trials in the journal of ``folder``."""
    store = Store(folder / ".farsearch")
    job = resolve_job(_OPTIONS, store, lambda text: click.echo(text, err=True))
    bench = job.bench(store)
    pricer, layers = job.pricer(bench), len(bench.layout.layers)
    study = store.open(STUDY, job.settings, {**job.meta, "command": "farsearch run"})
    study.set_user_attr("n_trials", count)
    study.set_user_attr("started", True)
    storage = JournalStorage(_QuickJournal(str(store.home / "studies.journal")))
    draw = np.random.default_rng(seed)
    for number, proposal in enumerate(_proposals(job, pricer, layers, count, draw)):
        _add_trial(storage, study._study_id, number, proposal, job, layers, draw)
        if (number + 1) % 1000 == 0:
            click.echo(f"made {number + 1} of {count} trials", err=True)


@dataclass(frozen=True)
class _Proposal:
    params: Mapping[str, Any]
    trial: Trial[TrialOutcome]
    rejected: Mapping[str, int]


def _proposals(job: Job, pricer: Pricer, layers: int, count: int, draw: np.random.Generator) -> Iterator[_Proposal]:
    """Yield ``count`` random configurations that fit, each with the rejected ones before it."""
    distributions = job.space.distributions(layers)
    number, rejected = 0, Counter[str]()
    while number < count:
        params = {name: _drawn(distribution, draw) for name, distribution in distributions.items()}
        config = job.space.config(params, layers)
        trial, cost = priced_trial(pricer, job.settings.plan, number, config)
        if not cost.fits:
            rejected[cost.problems[0].partition(":")[0]] += 1
            continue
        yield _Proposal(params, trial, rejected)
        number, rejected = number + 1, Counter()


def _drawn(distribution: BaseDistribution, draw: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(draw.integers(len(distribution.choices)))]
    low, high, step = distribution.low, distribution.high, distribution.step  # type: ignore[attr-defined]
    if step is not None:
        return min(high, low + step * int(draw.integers(round((high - low) / step) + 1)))
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def _add_trial(
    storage: BaseStorage,
    study_id: int,
    number: int,
    proposal: _Proposal,
    job: Job,
    layers: int,
    draw: np.random.Generator,
) -> None:
    """Record one trial by the same calls as a search."""
    distributions = job.space.distributions(layers)
    trial = storage.create_new_trial(study_id)
    for name, value in proposal.params.items():
        distribution = distributions[name]
        storage.set_trial_param(trial, name, distribution.to_internal_repr(value), distribution)
    storage.set_trial_user_attr(trial, "worker", "host-0123456789ab")
    if proposal.rejected:
        storage.set_trial_user_attr(trial, "rejected", dict(proposal.rejected))
    storage.set_trial_user_attr(trial, "record", trial_to_dict(proposal.trial))
    for name in ("memory", "max-memory"):
        storage.set_trial_system_attr(trial, f"constraints:{name}", -0.1)
    fate = draw.random()
    if fate < 0.02:
        storage.set_trial_user_attr(trial, "reason", "interrupted (KeyboardInterrupt)")
        storage.set_trial_state_values(trial, TrialState.FAIL)
    elif fate < 0.06:
        stopped = dataclasses.replace(proposal.trial, outcome=Stopped("the loss of step 7 is nan"))
        storage.set_trial_user_attr(trial, "record", trial_to_dict(stopped))
        storage.set_trial_state_values(trial, TrialState.PRUNED)
    else:
        cost, result = proposal.trial.cost, _result(proposal.trial, job, draw)
        complete = dataclasses.replace(proposal.trial, outcome=result)
        storage.set_trial_user_attr(trial, "record", trial_to_dict(complete))
        values = [result.metric, cost.peak_memory_mib, cost.wall_time_s]
        storage.set_trial_state_values(trial, TrialState.COMPLETE, values)


def _result(trial: Trial[TrialOutcome], job: Job, draw: np.random.Generator) -> Completed:
    """A plausible result: more learners and a medium rate are better, on a validation split's grid."""
    config, rows = trial.config, job.settings.job.validation_samples
    learners = 1.0 - sum(config.frozen_fractions) / len(config.frozen_fractions)
    rate = math.exp(-(math.log(config.learning_rate / 2e-4) ** 2) / 2)
    expected = 0.6 + 0.3 * rate * (1.0 - math.exp(-4.0 * learners)) + 0.02 * draw.standard_normal()
    metric = round(min(1.0, max(0.0, expected)) * rows) / rows
    steps = math.ceil(job.settings.job.train_samples / job.settings.job.batch_size)
    apart = math.ceil(steps / 40)
    priming = PrimingReport(round(steps * config.priming_epochs), 1.3, True, 0.4, 0.31, 0.1)
    return Completed(
        metric=metric,
        metric_error=math.sqrt(metric * (1.0 - metric) / rows),
        learned=None,
        dev_metric=min(1.0, max(0.0, metric + 0.01 * draw.standard_normal())),
        parts={},
        host_seconds=10.0 + 2.0 * draw.random(),
        host_peak_mib=900.0 + 100.0 * draw.random(),
        trainable=trial.cost.trainable,
        priming=priming,
        curve=tuple(
            LossPoint(step, 0.69 * math.exp(-step / steps) + 0.05 * draw.random())
            for step in range(apart, steps + 1, apart)
        ),
    )


def run_command(folder: Path, name: str, arguments: Sequence[str]) -> Timing:
    """Run a command of farsearch as a process."""
    command = [sys.executable, "-m", "farsearch", *arguments]
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with {child.returncode}")
    return Timing(name, round(wall, 2), round(usage.ru_utime + usage.ru_stime, 2))


def measure(folder: Path, storage: str | None, *, sync: bool) -> list[Timing]:
    """Time the commands one after another."""
    commands = {name: [name] for name in ("status", "trials", "pareto")}
    commands |= {f"{name} --json": [name, "--json"] for name in ("status", "trials", "pareto")}
    if sync:
        commands |= {"first sync": ["sync"], "second sync": ["sync"]}
    options = [] if storage is None else ["--storage", storage]
    timings = []
    for name, words in commands.items():
        timings.append(run_command(folder, name, [*words, STUDY, *options]))
        click.echo(f"{name}: {timings[-1].wall_s} s, processor {timings[-1].cpu_s} s", err=True)
    return timings


def _prepare(folder: Path, count: int, storage: str | None) -> None:
    """Make the study in the storage of the commands, unless it exists."""
    if not (folder / ".farsearch" / "studies.journal").is_file():
        make_study(folder, count)
    if storage is not None and not Store(folder / ".farsearch", storage).names():
        click.echo("copying the study into the database", err=True)
        optuna.copy_study(
            from_study_name=STUDY,
            from_storage=Store(folder / ".farsearch").storage,
            to_storage=Store(folder / ".farsearch", storage).storage,
        )


@click.command()
@click.option("--trials", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--storage", metavar="URL", help="An empty database for the study; default: a journal.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the study here, and use it again.")
@click.option("--sync/--no-sync", default=True, show_default=True, help="Measure the mirror in MLflow too.")
@click.option("--json", "as_json", is_flag=True)
def main(trials: int, storage: str | None, folder: Path | None, sync: bool, as_json: bool) -> None:
    """Make a study of many trials and time the commands that read it."""
    with tempfile.TemporaryDirectory() as temporary:
        home = folder or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        _prepare(home, trials, storage)
        timings = measure(home, storage, sync=sync)
    kind = "journal" if storage is None else "database"
    rows = [
        {
            "command": t.name,
            "wall_s": t.wall_s,
            "cpu_s": t.cpu_s,
            "bound_s": _BOUNDS_S[kind].get(t.name.split(" --")[0]),
        }
        for t in timings
    ]
    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, "trials": trials, "storage": kind, "commands": rows}))
        return
    click.echo(f"{trials} trials, {kind}")
    for row in rows:
        bound = "" if row["bound_s"] is None else f" (at most {row['bound_s']:g} s)"
        click.echo(f"  {row['command']:15} {row['wall_s']:8.2f} s{bound}, processor {row['cpu_s']:.2f} s")


if __name__ == "__main__":
    main()
