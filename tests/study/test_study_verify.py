"""Verification: repeated points, their seeds and rows, and their auxiliary study."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farsearch.baselines import METHODS, price_method, train_method
from farsearch.cost.plans import quickest
from farsearch.cost.pricer import Pricer
from farsearch.errors import BadInput
from farsearch.records import AnyTrial, Baseline, Completed, FarConfig, Stopped, StudySnapshot, Verification, flat
from farsearch.study.search import Search
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.study.verify import Point, verify
from farsearch.tasks.split import Split, draw_training
from farsearch.training import Bench
from tests.beds import Bed, Notes, make_bed
from tests.factories import make_trial

ROWS = 480
STEPS = ROWS // 16
"""Of a training on all rows for one epoch."""

FULL = FarConfig((0.0, 0.0), 3e-3, 1.0)
PRIMED = FarConfig((0.5, 0.5), 3e-3, 1.0, priming_epochs=0.1)
PRIMED_TOO = dataclasses.replace(PRIMED, frozen_fractions=(0.75, 0.75))
BITFIT = Baseline("bitfit", "BitFit", 1e-3, 1.0)


def point(number: int, config: FarConfig, **changes: object) -> Point:
    """Return a trial of a search as a point of its front."""
    return Point(make_trial(number, 0.8, 900.0, 100.0, config=config, **changes))


BASELINE = Point(make_trial(1, 0.7, 900.0, 100.0, config=None, baseline=BITFIT))


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> Iterator[Bed]:
    """Return a search on 48 of 480 rows."""
    with make_bed(tmp_path_factory.mktemp("bed"), tiny_distilbert) as made:
        yield made


@dataclass
class Again:
    """One call of ``verify``, with its benches and callbacks."""

    search: Search
    bed: Bed
    notes: Notes = field(default_factory=Notes)
    benches: list[Bench] = field(default_factory=list)

    def run(self, *points: Point, seeds: int = 1, samples: int | None = None) -> StudySnapshot:
        """Verify, and record the benches."""
        return verify(self.search, points, seeds, samples, self._pricer, self.notes)

    def _pricer(self, bench: Bench) -> Pricer:
        self.benches.append(bench)
        return self.bed.job.pricer(bench)

    @property
    def auxiliary(self) -> StudySnapshot:
        """Return the study of the verification."""
        found = self.search.store.auxiliary(self.search.study.study_name, "verified")
        assert found is not None
        return snapshot_of(found)


@pytest.fixture(scope="module")
def verified(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Again, StudySnapshot]:
    """Verify two primed points and a baseline, each with two seeds on all rows."""
    again = Again(bed.search(tmp_path_factory.mktemp("complete")), bed)
    return again, again.run(point(3, PRIMED), point(7, PRIMED_TOO), BASELINE, seeds=2)


def completed(trial: AnyTrial) -> Completed:
    """Return the outcome of a completed trial."""
    assert isinstance(trial.outcome, Completed)
    return trial.outcome


def points_of(records: tuple[AnyTrial, ...]) -> list[tuple[int | None, int]]:
    """Return trial and seed of each record."""
    return [(v.trial, v.seed) for v in (flat(r).verifies for r in records) if v is not None]


def test_each_point_is_trained_once_with_each_seed(verified: tuple[Again, StudySnapshot]) -> None:
    """The seeds follow the study's."""
    again, snapshot = verified
    assert points_of(snapshot.verified) == [(trial, seed) for seed in (1, 2) for trial in (3, 7, None)]
    assert again.bed.job.settings.job.seed == 0
    assert [record.outcome.state for record in snapshot.verified] == ["complete"] * 6
    titles = ["trial 3", "trial 7", "BitFit"]
    assert again.notes.started == [f"{title}, seed {seed}" for seed in (1, 2) for title in titles]
    assert again.notes.ended == list(snapshot.verified)
    assert [record.baseline for record in snapshot.verified] == 2 * [None, None, BITFIT]
    assert [record.config for record in snapshot.verified] == 2 * [PRIMED, PRIMED_TOO, None]


def test_all_rows_are_used_for_training(verified: tuple[Again, StudySnapshot]) -> None:
    """Each seed has one bench with the whole training file in order, no validation rows, and the seed's job."""
    again, snapshot = verified
    everything = Counter(again.benches[0].data.train.answers)
    for seed, bench in enumerate(again.benches, 1):
        assert (bench.job.seed, bench.job.train_samples, bench.job.validation_samples) == (seed, ROWS, 0)
        assert (len(bench.train_rows.answers), len(bench.validation_rows.answers)) == (ROWS, 0)
        assert Counter(bench.train_rows.answers) == everything
    rows = [[tuple(row) for row in bench.train_rows.features.input_ids] for bench in again.benches]
    assert rows[0] != rows[1]
    assert Counter(rows[0]) == Counter(rows[1])
    assert {completed(record).curve[-1].step for record in snapshot.verified} == {STEPS}
    assert {r.verifies.train_samples for r in snapshot.verified if r.verifies is not None} == {ROWS}


def test_score_is_that_of_the_development_set(bed: Bed, verified: tuple[Again, StudySnapshot]) -> None:
    """Metric and development metric are equal, and a separate training with that seed and those rows agrees."""
    again, snapshot = verified
    assert all(completed(record).metric == completed(record).dev_metric is not None for record in snapshot.verified)
    assert all(completed(record).metric_error for record in snapshot.verified)
    job = dataclasses.replace(bed.job.settings.job, seed=2, train_samples=ROWS, validation_samples=0)
    rows = draw_training(bed.job.data.train, ROWS, 2)
    bench = Bench(job, bed.job.source, bed.job.data, Split(rows, ()), again.search.store.cache)
    by_hand = train_method(METHODS["bitfit"], BITFIT.learning_rate, BITFIT.epochs, bench)
    assert completed(snapshot.verified[5]).metric == by_hand.dev_metric
    plan = snapshot.verified[3].plan
    assert plan is not None
    assert completed(snapshot.verified[3]).metric == bench.run(PRIMED, quickest(plan, bench.layout)).dev_metric


def test_points_of_one_seed_share_their_priming(verified: tuple[Again, StudySnapshot]) -> None:
    """The first point of a seed primes, the second reads the cache; another seed primes again."""
    _, snapshot = verified
    found = [
        completed(r).priming.from_cache
        for r in snapshot.verified
        if completed(r).priming is not None and completed(r).priming.steps
    ]
    assert found == [False, True, False, True]


def test_costs_are_those_of_the_longer_training(bed: Bed, verified: tuple[Again, StudySnapshot]) -> None:
    """Ten times the rows take about ten times the device's time and the same memory, also for baselines."""
    again, snapshot = verified
    for record in snapshot.verified:
        assert record.verifies is not None
        pricer = bed.job.pricer(again.benches[record.verifies.seed - 1])
        if record.config is None:
            cost, small = price_method(METHODS["bitfit"], 1.0, pricer), price_method(METHODS["bitfit"], 1.0, bed.pricer)
        else:
            cost, small = (each.price(record.config, record.plan) for each in (pricer, bed.pricer))
        assert (record.cost.peak_memory_mib, record.cost.wall_time_s) == (cost.peak_memory_mib, cost.wall_time_s)
        assert cost.peak_memory_mib == small.peak_memory_mib
        assert cost.wall_time_s == pytest.approx(10 * small.wall_time_s, rel=0.1)


def test_study_has_its_verification_and_an_unchanged_front(verified: tuple[Again, StudySnapshot]) -> None:
    """The study has no more trials; the auxiliary study has all of them, and no front."""
    again, snapshot = verified
    assert snapshot.trials == ()
    assert snapshot_of(again.search.study).verified == snapshot.verified
    assert len(again.auxiliary.trials) == again.auxiliary.n_trials == 6
    assert again.auxiliary.front == ()
    assert again.auxiliary.verified == again.auxiliary.trials
    assert again.auxiliary.baselines == ()


def test_repeated_verification_trains_only_missing_seeds(bed: Bed, tmp_path: Path) -> None:
    """A new process leaves existing trainings unchanged."""
    first = Again(bed.search(tmp_path), bed).run(point(0, FULL))
    repeated = Again(bed.search(tmp_path), bed)
    assert repeated.run(point(0, FULL)).verified == first.verified
    assert repeated.notes.started == []
    assert repeated.benches == []
    more = Again(bed.search(tmp_path), bed)
    snapshot = more.run(point(0, FULL), BASELINE, seeds=2)
    assert more.notes.started == ["BitFit, seed 1", "trial 0, seed 2", "BitFit, seed 2"]
    assert points_of(snapshot.verified) == [(0, 1), (None, 1), (0, 2), (None, 2)]
    assert snapshot.verified[0] == first.verified[0]
    assert len(more.auxiliary.trials) == more.auxiliary.n_trials == 4


def test_verification_resumes_after_an_interruption(bed: Bed, tmp_path: Path) -> None:
    """After Ctrl-C in the second training the first is stored, and the second is trained again."""
    cut = Again(bed.search(tmp_path), bed, Notes(interrupt_at=STEPS + 5))
    with pytest.raises(KeyboardInterrupt):
        cut.run(point(0, FULL), BASELINE)
    assert points_of(cut.auxiliary.trials) == [(0, 1)]
    on = Again(bed.search(tmp_path), bed)
    snapshot = on.run(point(0, FULL), BASELINE)
    assert on.notes.started == ["BitFit, seed 1"]
    uncut = Again(bed.search(tmp_path / "uncut"), bed).run(point(0, FULL), BASELINE)
    assert [completed(record).metric for record in snapshot.verified] == [
        completed(record).metric for record in uncut.verified
    ]


def test_subsets_are_drawn_by_each_seed_and_stored_separately(bed: Bed, tmp_path: Path) -> None:
    """Each seed draws another subset with both classes; it does not replace a training on all rows."""
    again = Again(bed.search(tmp_path), bed)
    again.run(point(0, FULL), seeds=2, samples=32)
    rows = [Counter(map(tuple, bench.train_rows.features.input_ids)) for bench in again.benches]
    assert [sum(each.values()) for each in rows] == [32, 32]
    assert rows[0] != rows[1]
    assert all(set(bench.train_rows.answers) == {0, 1} for bench in again.benches)
    snapshot = Again(bed.search(tmp_path), bed).run(point(0, FULL))
    assert [r.verifies for r in snapshot.verified] == [
        Verification(0, 1, 32), Verification(0, 2, 32), Verification(0, 1, ROWS),
    ]  # fmt: skip


def test_more_rows_than_available_are_refused(bed: Bed, tmp_path: Path) -> None:
    """The error precedes the creation of a study."""
    again = Again(bed.search(tmp_path), bed)
    with pytest.raises(BadInput, match="481 training samples are more than the 480 rows"):
        again.run(point(0, FULL), samples=481)
    assert again.search.store.auxiliary("s", "verified") is None


def test_diverged_training_is_recorded_and_not_retried(bed: Bed, tmp_path: Path) -> None:
    """It has its reason, and the others are trained."""
    wild = dataclasses.replace(FULL, learning_rate=1e30)
    snapshot = Again(bed.search(tmp_path), bed).run(point(0, wild), point(1, FULL))
    broken, finished = snapshot.verified
    assert isinstance(broken.outcome, Stopped)
    assert isinstance(finished.outcome, Completed)
    assert "a lower learning rate may help" in broken.outcome.reason
    again = Again(bed.search(tmp_path), bed)
    assert again.run(point(0, wild), point(1, FULL)).verified == snapshot.verified
    assert again.notes.started == []


def test_verification_is_not_listed_and_is_deleted_with_its_study(bed: Bed, tmp_path: Path) -> None:
    """It is never the latest, but can be loaded by name."""
    again = Again(bed.search(tmp_path), bed)
    again.run(point(0, FULL), samples=16)
    store = Store(tmp_path)
    assert store.names() == ["s"]
    assert store.load().study_name == "s"
    assert points_of(snapshot_of(store.load("s/verified")).trials) == [(0, 1)]
    store.delete("s")
    assert store.auxiliary("s", "verified") is None
    assert snapshot_of(bed.search(tmp_path).study).verified == ()
