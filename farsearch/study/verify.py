"""Verification: train points of the front and baselines again, with other seeds.

A search evaluates one seed, a sample of the rows, and a validation split. Here each point is trained on all rows and
scored on the official development set. The results are stored in an auxiliary study, one finished trial per point and
seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farsearch.baselines import method_named, price_method, train_method
from farsearch.cost.plans import ordinary_plan, quickest
from farsearch.cost.pricer import Price, Pricer
from farsearch.errors import BadInput, TrialError
from farsearch.goals import Goal
from farsearch.records import (
    Baseline,
    BaselineTrial,
    Completed,
    StepPlan,
    Stopped,
    StudySnapshot,
    Trial,
    Verification,
    VerifiedTrial,
)
from farsearch.study.activity import recorded
from farsearch.study.auxiliary import AuxiliaryWatcher, add_once, trials_by_key
from farsearch.study.results import training_result
from farsearch.study.search import Search
from farsearch.study.snapshot import snapshot_of
from farsearch.tasks.split import Split, draw_training
from farsearch.training import Bench
from farsearch.training.phase import OnStep

__all__ = ["Point", "verify"]

PriceOf = Callable[[Bench], Pricer]


@dataclass(frozen=True)
class Point:
    """A trial of the search or one of its baselines, to be trained again."""

    record: Trial[Completed] | BaselineTrial[Completed]

    @property
    def baseline(self) -> Baseline | None:
        """The method; None for a trial of the search."""
        return self.record.baseline if isinstance(self.record, BaselineTrial) else None

    @property
    def title(self) -> str:
        """Name for people: ``trial 7``, or the baseline's."""
        return f"trial {self.record.number}" if self.baseline is None else self.baseline.title

    @property
    def epochs(self) -> float:
        """Epochs of the training, without priming."""
        record = self.record
        return record.baseline.epochs if isinstance(record, BaselineTrial) else record.config.epochs

    def again(self, seed: int, samples: int) -> Verification:
        """Return the repetition with another seed, on so many training rows."""
        return Verification(None if self.baseline else self.record.number, seed, samples)

    def price(self, pricer: Pricer, goal: Goal) -> tuple[StepPlan, Price]:
        """Return the plan of the training on the device, and its cost."""
        if isinstance(self.record, BaselineTrial):
            baseline = self.record.baseline
            return ordinary_plan(pricer.profile), price_method(method_named(baseline.method), baseline.epochs, pricer)
        return pricer.best(self.record.config, goal)

    def train(
        self, plan: StepPlan, bench: Bench, on_step: OnStep, on_note: Callable[[str], None]
    ) -> Completed | Stopped:
        """Train the point on a bench, and return the result, or the reason why there is none."""
        try:
            if isinstance(self.record, BaselineTrial):
                one = self.record.baseline
                method = method_named(one.method)
                outcome = train_method(method, one.learning_rate, one.epochs, bench, on_step, on_note)
            else:
                executed = quickest(plan, bench.layout)
                outcome = bench.run(self.record.config, executed, on_step, on_note)
        except TrialError as error:
            return Stopped(str(error))
        return training_result(outcome)


def verify(
    search: Search,
    points: Sequence[Point],
    seeds: int,
    train_samples: int | None,
    price_of: PriceOf,
    watcher: AuxiliaryWatcher,
) -> StudySnapshot:
    """Train the points with so many other seeds, except the trainings that the auxiliary study already has.

    Args:
        search: of the study, as for a worker.
        seeds: number of seeds, from the one after the study's.
        train_samples: training rows, drawn by each seed; None for the whole training file.
        price_of: returns the pricer of a bench's job.

    Returns:
        The study with its verification.

    Raises:
        BadInput: for more rows than the training file has.
        MissingResource: when the auxiliary study can't be written; finished trainings are retained.
        KeyboardInterrupt: when it was interrupted; only the running training is repeated.
    """
    job, rows = search.bench.job, len(search.bench.data.train)
    samples = rows if train_samples is None else train_samples
    if samples > rows:
        raise BadInput(f"{samples} training samples are more than the {rows} rows of the training file; ask for fewer")
    auxiliary = search.store.open_auxiliary(search.study, "verified")
    wanted = [(seed, point) for seed in range(job.seed + 1, job.seed + 1 + seeds) for point in points]
    done = search.store.ask(lambda: trials_by_key(auxiliary))
    left = [(seed, point) for seed, point in wanted if (point.again(seed, samples), point.baseline) not in done]
    search.store.ask(lambda: auxiliary.set_user_attr("n_trials", len(done) + len(left)))
    number = len(wanted) - len(left)
    for seed in dict.fromkeys(seed for seed, _ in left):
        bench = _bench(search, seed, samples)
        pricer = price_of(bench)
        for point in [point for of, point in left if of == seed]:
            number += 1
            plan, cost = point.price(pricer, search.goal)
            title = f"{point.title}, seed {seed}"
            watcher.training_started(title, number, len(wanted), cost)
            with recorded(search.folder, title, watcher.step, epochs=point.epochs) as on_step:
                outcome = point.train(plan, bench, on_step, watcher.note)
            trained = VerifiedTrial(
                number=0,
                verifies=point.again(seed, samples),
                baseline=point.baseline,
                config=point.record.config,
                plan=plan,
                cost=cost,
                outcome=outcome,
            )
            stored, snapshot = add_once(auxiliary, search.store, trained)
            watcher.training_ended(stored, snapshot)
    return search.store.ask(lambda: snapshot_of(search.study))


def _bench(search: Search, seed: int, samples: int) -> Bench:
    """Make a bench for one seed, without validation rows: the development set is scored."""
    old = search.bench
    rows = draw_training(old.data.train, samples, seed, old.data.spec.kind)
    job = dataclasses.replace(old.job, seed=seed, train_samples=len(rows), validation_samples=0)
    micro = old.primings.micro_batch_size
    return Bench(job, old.source, old.data, Split(rows, ()), search.store.cache, micro)
