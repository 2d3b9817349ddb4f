"""Verification: train points of the front and baselines again, with other seeds.

A search evaluates one seed, a sample of the rows, and a validation split. Here each point is trained on all rows and
scored on the official development set. The results are stored in an auxiliary study, one finished trial per point and
seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farsearch.baselines import METHODS, price_method, train_method
from farsearch.cost.plans import ordinary_plan, quickest
from farsearch.cost.pricer import Cost, Pricer
from farsearch.errors import BadInput, TrialError
from farsearch.records import Baseline, StudySnapshot, TrialRecord, Verification
from farsearch.study.auxiliary import AuxiliaryWatcher, add_once, records_by_key
from farsearch.study.results import priced_record, results_of, updated
from farsearch.study.search import Search
from farsearch.study.snapshot import snapshot_of
from farsearch.tasks.split import Split, draw_training
from farsearch.training import Bench

__all__ = ["Point", "verify"]

PriceOf = Callable[[Bench], Pricer]


@dataclass(frozen=True)
class Point:
    """A trial of the search or one of its baselines, to be trained again."""

    record: TrialRecord

    @property
    def trial(self) -> int | None:
        """Number in the search; None for a baseline."""
        return None if self.record.baseline is not None else self.record.number

    @property
    def title(self) -> str:
        """Name for people: ``trial 7``, or the baseline's."""
        return f"trial {self.record.number}" if self.record.baseline is None else self.record.baseline.title


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
    done = search.store.ask(lambda: records_by_key(auxiliary, _key_of))
    left = [pair for pair in wanted if _key(pair[1], pair[0], samples) not in done]
    search.store.ask(lambda: auxiliary.set_user_attr("n_trials", len(done) + len(left)))
    number = len(wanted) - len(left)
    for seed in dict.fromkeys(seed for seed, _ in left):
        bench = _bench(search, seed, samples)
        pricer = price_of(bench)
        for point in [point for of, point in left if of == seed]:
            number += 1
            record, cost = _priced(point, Verification(point.trial, seed, samples), pricer, search)
            watcher.training_started(f"{point.title}, seed {seed}", number, len(wanted), cost)
            stored, snapshot = add_once(auxiliary, search.store, _trained(record, bench, watcher), _key_of)
            watcher.training_ended(stored, snapshot)
    return search.store.ask(lambda: snapshot_of(search.study))


def _bench(search: Search, seed: int, samples: int) -> Bench:
    """Make a bench for one seed, without validation rows: the development set is scored."""
    old = search.bench
    rows = draw_training(old.data.train, samples, seed, old.data.spec.kind)
    job = dataclasses.replace(old.job, seed=seed, train_samples=len(rows), validation_samples=0)
    micro = old.primings.micro_batch_size
    return Bench(job, old.source, old.data, Split(rows, ()), search.store.cache, micro)


def _priced(point: Point, verification: Verification, pricer: Pricer, search: Search) -> tuple[TrialRecord, Cost]:
    """Return the record of a training, and its cost on the device."""
    baseline, config = point.record.baseline, point.record.config
    if baseline is not None:
        plan, cost = ordinary_plan(pricer.profile), price_method(METHODS[baseline.method], baseline.epochs, pricer)
    else:
        assert config is not None
        plan, cost = pricer.best(config, search.goal)
    origin = {"verifies": verification.to_dict(), "baseline": None if baseline is None else baseline.to_dict()}
    return updated(priced_record(0, config, plan, cost), **origin), cost


def _trained(record: TrialRecord, bench: Bench, watcher: AuxiliaryWatcher) -> TrialRecord:
    """Return the record with the results of its training, or with the reason why that was not finished."""
    baseline, config, plan = record.baseline, record.config, record.plan
    try:
        if baseline is not None:
            method = METHODS[baseline.method]
            rate, epochs = baseline.learning_rate, baseline.epochs
            outcome = train_method(method, rate, epochs, bench, watcher.step, watcher.note)
        else:
            assert config is not None
            assert plan is not None
            outcome = bench.run(config, quickest(plan, bench.layout), watcher.step, watcher.note)
    except TrialError as error:
        return updated(record, state="pruned", reason=str(error))
    return updated(record, state="complete", **results_of(outcome))


_Key = tuple[int | None, Baseline | None, int, int]


def _key(point: Point, seed: int, samples: int) -> _Key:
    return point.trial, point.record.baseline, seed, samples


def _key_of(record: TrialRecord) -> _Key:
    origin = record.verifies
    assert origin is not None
    return origin.trial, record.baseline, origin.seed, origin.train_samples
