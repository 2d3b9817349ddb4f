"""The search in one process: trials are trained, recorded, saved, requeued and recovered."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from optuna.trial import TrialState, create_trial

from farsearch.cost.pricer import Pricer
from farsearch.devices import Figure, Profile
from farsearch.errors import MissingResource, NoFeasibleTrial
from farsearch.far.surgery import trainable_count
from farsearch.files import load_tensors, save_tensors, write_json
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.records import AnyTrial, Cost, FarConfig, StudySnapshot, Trial, UnpricedTrial, flat
from farsearch.resolve import Job, rejoin_job
from farsearch.study.artifacts import load_trial, sweep
from farsearch.study.liveness import Worker
from farsearch.study.search import Search
from farsearch.study.snapshot import snapshot_of
from farsearch.study.space import Space
from farsearch.study.space_files import list_spaces
from farsearch.study.store import StorageAway, Store
from farsearch.study.suggestion import nearest_fit
from farsearch.study.trial_queue import Proposal
from farsearch.training import EVALUATION_SHARES, Bench
from tests.beds import make_bed
from tests.factories import changed, make_snapshot, make_trial
from tests.journey import SPACE
from tests.services import Postgres

SPACE_DATA: dict[str, Any] = yaml.safe_load(SPACE)


@dataclass
class Notes:
    """A watcher that records its callbacks and may interrupt."""

    interrupt_at: int | None = None
    notes: list[str] = field(default_factory=list)
    ended: list[AnyTrial] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    steps: int = 0

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        self.started.append(number)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Count, and interrupt at the given step."""
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)

    def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
        self.ended.append(record)


@dataclass
class Bed:
    """A job with its model loaded, on which any number of studies run."""

    job: Job
    bench: Bench
    pricer: Pricer

    def search(self, home: Path, watcher: Notes | None = None, space: Space | None = None, **options: Any) -> Search:
        """Open the search in a new store, as a new process does."""
        store = Store(home, options.pop("storage", None))
        store.cache.parent.mkdir(parents=True, exist_ok=True)
        space = space or self.job.space
        study = store.open("s", dataclasses.replace(self.job.settings, space=space.to_dict()), self.job.meta)
        pricer = options.pop("pricer", self.pricer)
        sampler = options.pop("sampler", "random")
        return Search(study, store, self.bench, pricer, space, sampler, "balanced", watcher or Notes())


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> Iterator[Bed]:
    """Return the tiny task with the tiny DistilBERT."""
    with make_bed(tmp_path_factory.mktemp("bed"), tiny_distilbert, rows=64) as made:
        yield Bed(made.job, made.bench, made.pricer)


def space(**search: Any) -> Space:
    """Return the tiny space with some searched parameters replaced, and no starts."""
    data = {**SPACE_DATA, "start": {}, "search": {**SPACE_DATA["search"], **search}}
    return Space.from_dict("changed", data).with_fixed({"epochs": 1.0})


def keys(snapshot: StudySnapshot) -> list[str]:
    """Return the configurations of the finished trials."""
    return [repr(flat(trial).config) for trial in snapshot.trials if flat(trial).state in ("complete", "pruned")]


def test_n_trials_is_the_total_of_the_study(bed: Bed, tmp_path: Path) -> None:
    """The total is stored; repeating it does nothing, and a larger one adds new configurations."""
    first = bed.search(tmp_path).run(2)
    again = Notes()
    assert bed.search(tmp_path, again).run(2) == first
    assert again.started == []
    more = bed.search(tmp_path).run(4)
    before, after = ([changed(trial, on_front=False) for trial in s.trials[:2]] for s in (first, more))
    assert before == after
    assert [flat(trial).state for trial in more.trials] == ["complete"] * 4
    assert len(set(keys(more))) == 4
    assert more.n_trials == 4


def test_complete_trial_has_all_reported_values(bed: Bed, tmp_path: Path) -> None:
    """These are objectives, ranges, breakdowns, curve, priming, and Optuna's values."""
    search = bed.search(tmp_path)
    snapshot = search.run(3)
    for trial, stored in zip(map(flat, snapshot.trials), search.study.trials, strict=True):
        assert stored.values == [trial.metric, trial.peak_memory_mib, trial.wall_time_s]
        assert trial.config is not None
        assert trial.feasible
        prices = {price.plan: price for price in trial.plans}
        assert trial.plan in prices
        assert all(price.plan == trial.plan or price.feasible for price in trial.plans)
        assert prices[trial.plan].peak_memory_mib == trial.peak_memory_mib
        product = trial.peak_memory_mib * trial.wall_time_s  # type: ignore[operator]
        least = min(price.peak_memory_mib * price.wall_time_s for price in trial.plans)
        assert product == pytest.approx(least, rel=1e-9)
        assert None not in (
            trial.metric_error,
            trial.dev_metric,
            trial.energy_j,
            trial.host_seconds,
        )
        assert (trial.host_peak_mib or 0) > 50
        record = snapshot.trials[trial.number]
        assert not isinstance(record, UnpricedTrial)
        cost = record.cost
        assert cost.peak_memory_range_mib is not None
        assert cost.wall_time_range_s is not None
        low, high = cost.peak_memory_range_mib
        assert low <= cost.peak_memory_mib <= high
        early, late = cost.wall_time_range_s
        assert early < cost.wall_time_s < late
        assert sum(trial.time.values()) == pytest.approx(trial.wall_time_s)
        assert trial.curve[-1].step == 4
        assert trial.priming is not None
        assert trial.priming.steps == (2 if trial.config.priming_epochs else 0)
        assert stored.constraints == {"memory": stored.constraints["memory"]}
        assert stored.constraints["memory"] <= 0
    assert snapshot.budget_mib > max(trial.cost.peak_memory_mib for trial in snapshot.complete)
    assert {trial.number for trial in snapshot.front} <= {0, 1, 2}


def test_starts_of_the_space_are_the_first_trials(bed: Bed, tmp_path: Path) -> None:
    """Full fine-tuning precedes any proposal of the sampler."""
    trial = bed.search(tmp_path).run(1).trials[0]
    assert flat(trial).config == FarConfig((0.0, 0.0), 3e-3, 1.0)
    assert flat(trial).trainable == trainable_count(bed.bench.model)


def test_tensors_of_the_front_are_retained(bed: Bed, tmp_path: Path) -> None:
    """The weights of each trial on the front can be read and have exactly the trained tensors."""
    search = bed.search(tmp_path)
    snapshot = search.run(3)
    for trial in snapshot.front:
        saved = load_trial(search.folder, trial.number)
        assert sum(value.numel() for value in saved.trained.values()) == trial.outcome.trainable
        assert saved.logits["dev"].shape == (len(bed.bench.dev_rows.answers), 2)
        accuracy = (saved.logits["dev"].argmax(1) == torch.tensor(bed.bench.dev_rows.answers)).double().mean()
        assert float(accuracy) == pytest.approx(trial.outcome.dev_metric)


def test_tensors_far_off_the_front_are_removed(tmp_path: Path) -> None:
    """The limit is two standard errors below the front; predictions are retained.

    Trial 1 costs more than trial 2 and is worse by three errors, trial 6 by one; trial 3 never ended.
    """
    trials = (
        *make_snapshot().trials[:5],
        make_trial(6, 0.83, 1210.0, 251.0),
    )
    retained, complete = {0, 2, 4, 6}, {0, 1, 2, 4, 6}
    for trial in trials:
        folder = tmp_path / "trials" / f"{trial.number:04d}"
        save_tensors(folder / "trained.safetensors", {"w": torch.ones(1)})
        save_tensors(folder / "logits.safetensors", {"dev": torch.ones(1, 2), "validation": torch.ones(1, 2)})
        notes = {"schema_version": 1, "learners": [None], "primed": f"{trial.number}.safetensors"}
        write_json(folder / "learners.json", notes)
        save_tensors(tmp_path / "primings" / f"{trial.number}.safetensors", {"w": torch.ones(1)})
    sweep(tmp_path, trials)
    assert {int(path.parent.name) for path in tmp_path.glob("trials/*/trained.safetensors")} == retained
    assert {int(path.stem) for path in tmp_path.glob("primings/*")} == retained
    assert {int(path.parent.name) for path in tmp_path.glob("trials/*/logits.safetensors")} >= complete
    with pytest.raises(MissingResource, match=r"tensors of trial 1 are gone: .*see farsearch pareto"):
        load_trial(tmp_path, 1)


def test_primings_of_retained_trials_outlive_the_cache(bed: Bed, tmp_path: Path) -> None:
    """A retained primed trial is readable without the cache; a priming that no trial needs is removed."""
    primed = space(priming_epochs={"choices": [0.25, 0.5]})
    search = bed.search(tmp_path, space=primed)
    snapshot = search.run(2)
    for path in bed.bench.primings.folder.glob("*.safetensors"):
        path.unlink()
    number = snapshot.front[0].number
    saved = load_trial(search.folder, number)
    assert saved.primed is not None
    assert set(saved.primed) == set(bed.bench.pretrained)
    retained = {path.parent for path in search.folder.glob("trials/*/trained.safetensors")}
    needed = {yaml.safe_load((folder / "learners.json").read_text())["primed"] for folder in retained}
    assert {path.name for path in (search.folder / "primings").iterdir()} == needed


def test_diverged_trial_is_recorded_and_the_search_continues(bed: Bed, tmp_path: Path) -> None:
    """A loss that is not finite ends the trial, which has costs and the reason and counts as finished."""
    rates = space(learning_rate={"choices": [5e-3, 1e30]}, priming_epochs={"choices": [0.0]})
    watcher = Notes()
    snapshot = bed.search(tmp_path, watcher, rates).run(6)
    stopped = [trial for trial in snapshot.trials if flat(trial).state == "pruned"]
    assert stopped
    assert len(keys(snapshot)) == 6
    for trial in stopped:
        assert isinstance(trial, Trial)
        assert trial.config.learning_rate == 1e30
        assert "is nan" in (flat(trial).reason or "") or "is inf" in (flat(trial).reason or "")
        assert "lower learning rate" in (flat(trial).reason or "")
        assert flat(trial).metric is None
        assert (flat(trial).peak_memory_mib or 0) > 0
        assert not flat(trial).on_front
    assert [record.number for record in watcher.ended] == [trial.number for trial in snapshot.trials]
    assert {trial.config.learning_rate for trial in snapshot.complete if trial.config is not None} == {5e-3}


def test_interrupted_trial_is_retried_first(bed: Bed, tmp_path: Path) -> None:
    """An interrupt fails the running trial with the reason; the next run trains its configuration exactly once."""
    with pytest.raises(KeyboardInterrupt):
        bed.search(tmp_path, Notes(interrupt_at=6)).run(4)
    search = bed.search(tmp_path)
    before = snapshot_of(search.study)
    assert [flat(trial).state for trial in before.trials] == ["complete", "fail", "waiting"]
    assert flat(before.trials[1]).reason == "interrupted (KeyboardInterrupt)"
    assert flat(before.trials[1]).metric is None
    assert (flat(before.trials[1]).peak_memory_mib or 0) > 0
    after = search.run(4)
    assert flat(after.trials[2]).config == flat(before.trials[1]).config
    assert len(set(keys(after))) == len(keys(after)) == 4


def test_trial_interrupted_before_its_training_is_requeued(bed: Bed, tmp_path: Path) -> None:
    """A signal may come between proposal and training."""

    class Early(Notes):
        def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bed.search(tmp_path, Early()).run(2)
    search = bed.search(tmp_path)
    assert [flat(trial).state for trial in snapshot_of(search.study).trials] == ["fail", "waiting"]
    assert search.study.trials[1].user_attrs["kills"] == 0


def test_closed_progress_pipe_loses_no_trial(bed: Bed, tmp_path: Path) -> None:
    """The search ends with the error, and recorded trials are retained."""

    class Left(Notes):
        def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        bed.search(tmp_path, Left()).run(3)
    search = bed.search(tmp_path)
    assert [flat(trial).state for trial in snapshot_of(search.study).trials] == ["complete"]
    assert len(keys(search.run(3))) == 3


def test_trial_with_unwritable_tensors_is_not_recorded(bed: Bed, tmp_path: Path) -> None:
    """The trial is not complete, nothing else is lost, and it is trained again."""
    search = bed.search(tmp_path)
    search.run(1)
    (search.folder / "trials").rename(search.folder / "aside")
    (search.folder / "trials").write_text("in the way")
    with pytest.raises(MissingResource, match="can't be written"):
        bed.search(tmp_path).run(2)
    (search.folder / "trials").unlink()
    (search.folder / "aside").rename(search.folder / "trials")
    lost = snapshot_of(search.study).trials[1]
    assert (flat(lost).state, flat(lost).reason) == ("fail", "interrupted (MissingResource)")
    after = bed.search(tmp_path).run(2)
    assert [flat(trial).state for trial in after.trials] == ["complete", "fail", "complete"]
    assert flat(after.trials[2]).config == flat(lost).config


def test_files_of_an_unrecorded_trial_are_removed(bed: Bed, tmp_path: Path) -> None:
    """A kill between writing tensors and completing a trial leaves a file that the next trial removes."""
    search = bed.search(tmp_path)
    search.run(1)
    left = search.folder / "trials" / "0077" / "trained.safetensors"
    left.parent.mkdir()
    left.write_bytes(b"half")
    bed.search(tmp_path).run(2)
    assert not left.exists()
    assert load_tensors(search.folder / "trials" / "0000" / "logits.safetensors") is not None


def test_trial_of_a_dead_worker_is_recovered_once(bed: Bed, tmp_path: Path) -> None:
    """Its RUNNING trial is failed and its parameters are queued once, also if a recovery is interrupted."""
    search = bed.search(tmp_path)
    trial = search.study.ask(search.queue.distributions)
    trial.set_user_attr("worker", "gone-0123456789ab")
    # simulate a recovery killed after it queued the parameters
    search.queue.requeue(search.study.trials[0], 1)
    watcher = Notes()
    snapshot = bed.search(tmp_path, watcher).run(3)
    assert flat(snapshot.trials[0]).state == "fail"
    assert "killed" in (flat(snapshot.trials[0]).reason or "")
    assert any("trial 0 ended early" in note and "tried again" in note for note in watcher.notes)
    config = repr(search.space.config(trial.params, search.layers))
    assert keys(snapshot).count(config) == 1
    assert len(set(keys(snapshot))) == 3


def test_dequeued_trial_without_parameters_is_recovered(bed: Bed, tmp_path: Path) -> None:
    """A kill between dequeuing a trial and suggesting its parameters leaves a trial without parameters."""
    search = bed.search(tmp_path)
    params = search.space.starts(search.layers)["full fine-tuning"]
    search.study.enqueue_trial(params)
    search.study.set_user_attr("started", True)
    search.study._pop_waiting_trial_id()
    snapshot = bed.search(tmp_path).run(1)
    assert [flat(trial).state for trial in snapshot.trials] == ["fail", "complete"]
    assert flat(snapshot.trials[1]).config == search.space.config(params, search.layers)


def test_parameters_that_kill_their_process_are_given_up(bed: Bed, tmp_path: Path) -> None:
    """A trial that exceeds the host's memory would kill every run: it is retried until its third kill."""
    search = bed.search(tmp_path)
    trial = search.study.ask(search.queue.distributions)
    trial.set_user_attr("worker", "gone-0123456789ab")
    trial.set_user_attr("kills", 2)
    snapshot = bed.search(tmp_path).run(2)
    assert "killed 3 times, so it is not tried again" in (flat(snapshot.trials[0]).reason or "")
    assert repr(search.space.config(trial.params, search.layers)) not in keys(snapshot)


def test_given_up_parameters_are_not_proposed_again(bed: Bed, tmp_path: Path) -> None:
    """One of two configurations killed its process three times: the other one is trained, and then none is left."""
    small = space(
        learning_rate={"choices": [5e-3]}, frozen_fraction={"choices": [0.0, 0.5]}, priming_epochs={"choices": [0.0]}
    )
    search = bed.search(tmp_path, space=small)
    trial = search.study.ask(search.queue.distributions)
    trial.set_user_attr("worker", "gone-0123456789ab")
    trial.set_user_attr("kills", 2)
    with pytest.raises(NoFeasibleTrial, match="duplicate"):
        bed.search(tmp_path, space=small).run(2)
    assert [flat(record).state for record in bed.search(tmp_path, space=small).snapshot().trials[:2]] == [
        "fail",
        "complete",
    ]


def test_exhausted_space_ends_the_search(bed: Bed, tmp_path: Path) -> None:
    """The error states it, and no trial is left running."""
    small = space(
        learning_rate={"choices": [5e-3]}, frozen_fraction={"choices": [0.0, 0.5]}, priming_epochs={"choices": [0.0]}
    )
    with pytest.raises(
        NoFeasibleTrial, match=r"none of 200 .*duplicate 200.*trained already: ask for fewer `n_trials`"
    ):
        bed.search(tmp_path, space=small).run(5)
    search = bed.search(tmp_path, space=small)
    snapshot = snapshot_of(search.study)
    assert [flat(trial).state for trial in snapshot.trials] == ["complete", "complete", "fail"]
    assert snapshot.rejected["duplicate"] >= 200
    with pytest.raises(NoFeasibleTrial):
        search.run(5)
    assert "running" not in {flat(trial).state for trial in snapshot_of(search.study).trials}


def test_configurations_that_differ_only_in_priming_are_both_trained(bed: Bed) -> None:
    made = bed.job.space
    params = {"frozen_fraction_layer_0": 0.5, "frozen_fraction_layer_1": 0.5, "learning_rate": 5e-3}
    assert made.config({**params, "priming_epochs": 0.0}, 2) != made.config({**params, "priming_epochs": 0.5}, 2)


def test_no_trial_starts_after_the_timeout(bed: Bed, tmp_path: Path) -> None:
    """The study is unchanged."""
    snapshot = bed.search(tmp_path).run(3, timeout_s=0.0)
    assert [flat(trial).state for trial in snapshot.trials] == ["waiting"]


def test_running_trial_has_its_costs(bed: Bed, tmp_path: Path) -> None:
    """During a training ``status`` and the mirror have its configuration and predicted costs."""
    seen: list[AnyTrial] = []

    class Inspect(Notes):
        def step(self, step: int, steps: int, loss: float) -> None:
            if not seen:
                seen.extend(snapshot_of(Store(tmp_path).load("s")).trials)

    bed.search(tmp_path, Inspect()).run(1)
    assert (flat(seen[0]).state, flat(seen[0]).metric) == ("running", None)
    assert (flat(seen[0]).peak_memory_mib or 0) > 0
    assert flat(seen[0]).config is not None


def test_search_in_parts_equals_one_run(bed: Bed, tmp_path: Path) -> None:
    """2 + 2 trials over a restart equal 4 trials in one run, result by result."""
    bed.search(tmp_path / "parts", sampler="tpe").run(2)
    parts = bed.search(tmp_path / "parts", sampler="tpe").run(4)
    uninterrupted = bed.search(tmp_path / "uninterrupted", sampler="tpe").run(4)
    same = ("config", "metric", "dev_metric", "peak_memory_mib", "wall_time_s", "curve", "on_front", "trainable")
    assert [[getattr(flat(t), name) for name in same] for t in parts.trials] == [
        [getattr(flat(t), name) for name in same] for t in uninterrupted.trials
    ]


def pricer_of(bed: Bed, profile: Profile | None = None, **limits: Any) -> Pricer:
    """Return the job's pricer with other limits, or for another device."""
    device = profile or bed.job.profile
    settings = dataclasses.replace(bed.job.settings, **limits)
    job = dataclasses.replace(bed.job, settings=settings, profile=device, engines={"torch": device})
    return job.pricer(bed.bench)


@pytest.mark.parametrize(("bound", "option"), [("max_memory_mib", "--max-memory"), ("max_time_s", "--max-time")])
def test_unreachable_limit_is_reported_with_a_reachable_one(bed: Bed, tmp_path: Path, bound: str, option: str) -> None:
    """The error names the lowest limit that a configuration satisfies, and this limit works."""
    with pytest.raises(NoFeasibleTrial, match=f"allow {option} ") as caught:
        bed.search(tmp_path, pricer=pricer_of(bed, None, **{bound: 0.001})).run(3)
    assert [flat(trial).state for trial in snapshot_of(bed.search(tmp_path).study).trials] == ["fail"]
    named = float(str(caught.value).rpartition(option)[2])
    least = FarConfig((1.0, 1.0), 1e-3, 1.0, frozen_embeddings=True, frozen_bottom_layers=1)
    fits = [pricer_of(bed, None, **{bound: limit}).best(least, "balanced")[1].fits for limit in (named - 1, named)]
    assert fits == [False, True]


def test_more_freezing_is_suggested_if_it_helps(bed: Bed, tmp_path: Path) -> None:
    """The suggested options freeze enough to fit."""
    _, full = pricer_of(bed).best(FarConfig((0.0, 0.0), 1e-3, 1.0), "time")
    _, frozen = pricer_of(bed).best(FarConfig((1.0, 1.0), 1e-3, 1.0, frozen_embeddings=True), "time")
    bound = (full.wall_time_s + frozen.wall_time_s) / 2
    fixed = bed.job.space.with_fixed({"frozen_fraction": 0.0})
    with pytest.raises(NoFeasibleTrial, match=r"with --set frozen_fraction=1 --set frozen_embeddings=true it would"):
        bed.search(tmp_path, space=fixed, pricer=pricer_of(bed, max_time_s=bound)).run(1)
    corrected = bed.job.space.with_fixed({"frozen_fraction": 1, "frozen_embeddings": True, "priming_epochs": 0.0})
    config = corrected.config({"learning_rate": 1e-3}, 2)
    assert pricer_of(bed, max_time_s=bound).best(config, "balanced")[1].fits


def test_shipped_space_is_suggested_if_nothing_fits(bed: Bed) -> None:
    """The suggestion is a space of which most fits, with its share."""
    _, full = pricer_of(bed).best(FarConfig((0.0, 0.0), 1e-3, 1.0), "time")
    _, frozen = pricer_of(bed).best(FarConfig((1.0, 1.0), 1e-3, 1.0, frozen_embeddings=True), "time")
    unfrozen = bed.job.space.with_fixed({"frozen_fraction": 0.0})
    pricer = pricer_of(bed, max_memory_mib=(full.peak_memory_mib + frozen.peak_memory_mib) / 2)
    answer = nearest_fit(pricer, "balanced", unfrozen, 2)
    name, _, share = answer.rpartition("--space ")[2].partition(", of which ")
    assert name in list_spaces()
    assert float(share.partition("%")[0]) >= 50


def test_smaller_batch_is_suggested_for_a_small_device(bed: Bed) -> None:
    """If only a smaller step fits the device, the suggested batch size fits."""
    config = FarConfig((1.0, 1.0), 1e-4, 1.0, frozen_bottom_layers=1)
    lengths = bed.bench.train_rows.lengths
    quarter = Pricer(load_config(bed.job.source), Head(), 4, 16, bed.job.profile, lengths=lengths)
    needs, less = (pricer.best(config, "memory")[1] for pricer in (bed.pricer, quarter))
    room = (needs.peak_memory_range_mib[1] + less.peak_memory_range_mib[1]) / 2
    profile = dataclasses.replace(
        bed.job.profile,
        visible_mib=Figure(room, room, room, "of this test", "assumed"),
        os_mib=Figure(0, 0, 0, "of this test", "assumed"),
    )
    answer = nearest_fit(pricer_of(bed, profile=profile), "balanced", bed.job.space, 2)
    size = int(answer.partition("--batch-size ")[2].split()[0])
    assert size < 16
    fitting = Pricer(load_config(bed.job.source), Head(), size, 16, profile, lengths=lengths)
    assert fitting.best(config, "balanced")[1].fits


def test_number_of_trials_belongs_to_the_study(bed: Bed, tmp_path: Path) -> None:
    """When another run raises the total, this worker follows; a joining worker sets no total."""

    class Asked(Notes):
        def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
            super().trial_ended(record, snapshot)
            Store(tmp_path).load("s").set_user_attr("n_trials", 2)

    watcher = Asked()
    assert bed.search(tmp_path, watcher).run(1).n_trials == 2
    assert len(watcher.ended) == 2
    joined = Notes()
    assert len(keys(bed.search(tmp_path, joined).run())) == 2
    assert joined.started == []


@dataclass
class Other:
    """Another worker's running trial, in this process: its lock is held until it is closed."""

    search: Search
    worker: Worker
    proposal: Proposal

    def finish(self) -> None:
        self.search.queue.finish(self.proposal, make_trial(0, 0.5, 1.0, 1.0).outcome)


@pytest.fixture
def other(bed: Bed, tmp_path: Path) -> Iterator[Other]:
    """Return a study in which another worker has a running trial, with a total of two."""
    search = bed.search(tmp_path)
    search.prepare(2)
    worker = Worker(search.folder, search.study)
    proposal = search.under_lock(lambda: search.queue.next(worker))
    assert not isinstance(proposal, str)
    yield Other(search, worker, proposal)
    worker.close()


def test_worker_waits_for_the_last_trials_of_others(bed: Bed, tmp_path: Path, other: Other) -> None:
    """It proposes no more trials than the total, and ends when all are finished."""

    class Waiting(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            if "waiting" in text:
                other.finish()

    watcher = Waiting()
    snapshot = bed.search(tmp_path, watcher).run()
    assert [flat(trial).state for trial in snapshot.trials] == ["complete", "complete"]
    assert watcher.started == [1]
    assert watcher.notes.count("waiting for the last trials of other workers") == 1


def test_waiting_worker_retrains_the_trial_of_a_dead_one(bed: Bed, tmp_path: Path, other: Other) -> None:
    """The study reaches its total."""

    class Waiting(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            if "waiting" in text:
                other.worker.close()

    watcher = Waiting()
    snapshot = bed.search(tmp_path, watcher).run()
    assert [flat(trial).state for trial in snapshot.trials] == ["fail", "complete", "complete"]
    assert flat(snapshot.trials[0]).reason == "its process was killed"
    assert flat(snapshot.trials[2]).config == flat(snapshot.trials[0]).config
    assert watcher.started == [1, 2]


def test_interrupted_proposal_is_repeated(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the storage fails after a trial was created, the next attempt requeues it and proposes the same."""
    monkeypatch.setattr("farsearch.study.storage_errors.REPORT_AFTER_S", 0.0)
    watcher = Notes()
    search = bed.search(tmp_path, watcher)
    search.prepare(2)
    worker = Worker(search.folder, search.study)
    made = []

    def step() -> None:
        proposal = search.queue.next(worker)
        assert not isinstance(proposal, str)
        made.append(proposal)
        if len(made) < 3:
            raise StorageAway("gone")

    search.under_lock(step)
    trials = search.study.trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "RUNNING"]
    assert [trial.number for trial in trials] == [proposal.record.number for proposal in made]
    assert len({repr(proposal.record.config) for proposal in made}) == 1
    assert all(trial.user_attrs.get("kills", 0) == 0 for trial in trials), "it was no kill"
    waited = [note for note in watcher.notes if "does not answer" in note]
    assert len(waited) == 1
    assert waited[0].startswith(f"the storage {search.store.where} does not answer; trying again until ")
    worker.close()


def test_recording_a_trial_is_idempotent(bed: Bed, tmp_path: Path) -> None:
    """A repeat, needed because the first attempt may not have been stored, changes nothing."""

    class Repeating(Search):
        def _finish(self, *arguments: Any) -> StudySnapshot | None:
            super()._finish(*arguments)
            shutil.rmtree(self.folder / "trials")
            return super()._finish(*arguments)

    search = bed.search(tmp_path)
    snapshot = Repeating(**{field.name: getattr(search, field.name) for field in dataclasses.fields(search)}).run(2)
    assert [flat(trial).state for trial in snapshot.trials] == ["complete", "complete"]
    for trial in snapshot.front:
        assert load_trial(search.folder, trial.number).trained


def test_worker_presumed_dead_drops_its_result(bed: Bed, tmp_path: Path) -> None:
    """A trial that another worker ended meanwhile is dropped with a note, and the number of trials is exact."""

    class Buried(Notes):
        def step(self, step: int, steps: int, loss: float) -> None:
            super().step(step, steps, loss)
            if self.steps == 1:
                judge = bed.search(tmp_path)
                trial = judge.study.trials[0]
                judge.queue.requeue(trial, 1)
                judge.queue.fail(trial, "its process was killed")

    watcher = Buried()
    snapshot = bed.search(tmp_path, watcher).run(2)
    assert [flat(trial).state for trial in snapshot.trials] == ["fail", "complete", "complete"]
    assert flat(snapshot.trials[0]).metric is None
    assert flat(snapshot.trials[1]).config == flat(snapshot.trials[0]).config
    assert "trial 0 was given to another worker while this one was away; its result is dropped" in watcher.notes
    assert [record.number for record in watcher.ended] == [1, 2]


@pytest.mark.service
def test_database_outage_loses_no_trial(bed: Bed, tmp_path: Path, own_postgres: Postgres) -> None:
    """The database stops during a training and returns after it, and the trial is then recorded."""

    class Stopping(Notes):
        def step(self, step: int, steps: int, loss: float) -> None:
            super().step(step, steps, loss)
            if self.steps == 2:
                own_postgres.stop()

        def note(self, text: str) -> None:
            super().note(text)
            if "does not answer" in text:
                own_postgres.start()

    watcher = Stopping()
    search = bed.search(tmp_path, watcher, storage=own_postgres.url)
    snapshot = search.run(3)
    assert [flat(trial).state for trial in snapshot.trials] == ["complete"] * 3
    assert watcher.started == [0, 1, 2]
    waited = [note for note in watcher.notes if "does not answer" in note]
    assert len(waited) == 1
    assert waited[0].startswith(f"the storage {search.store.where} does not answer; trying again until ")


def test_job_built_from_the_study_is_equal(bed: Bed, tmp_path: Path) -> None:
    """A worker that has only the study continues exactly as the original run would have."""
    uninterrupted = bed.search(tmp_path / "uninterrupted", sampler="tpe").run(4)
    first = bed.search(tmp_path / "parts", sampler="tpe")
    first.run(2)
    store = Store(tmp_path / "parts")
    study = store.load("s")
    meta = json.loads(json.dumps(study.user_attrs["meta"]))
    job = rejoin_job("s", bed.job.settings, meta, store, print)
    assert job.settings == bed.job.settings
    assert job.space.to_dict() == bed.job.space.to_dict()
    assert job.meta == bed.job.meta
    bench = job.bench(store)
    sampler = study.user_attrs["sampler"]
    parts = Search(study, store, bench, job.pricer(bench), job.space, sampler, job.settings.plan, Notes()).run(4)
    same = ("config", "metric", "dev_metric", "peak_memory_mib", "wall_time_s", "curve", "on_front", "trainable")
    assert [[getattr(flat(t), name) for name in same] for t in parts.trials] == [
        [getattr(flat(t), name) for name in same] for t in uninterrupted.trials
    ]


HOPELESS = {"low": 1e-9, "high": 1e-8, "log": True}
"""Learning rates that are too low to learn."""


def overtake(search: Search, count: int) -> None:
    """Add trials that cost nothing and are right in all rows from the first evaluation on, which are hard to beat."""
    template = search.study.trials[0]
    for number in range(count):
        record = {
            **template.user_attrs["record"],
            "metric": 1.0 - 1e-6 * number,
            "peak_memory_mib": 1.0 + number,
            "wall_time_s": 1e-6,
            "looks": [{"share": share, "step": 1, "metric": 1.0 - 1e-6 * number} for share in EVALUATION_SHARES],
        }
        search.study.add_trial(
            create_trial(
                values=[record["metric"], record["peak_memory_mib"], record["wall_time_s"]],
                params={**template.params, "learning_rate": 1e-9 * (1.1 + 0.1 * number)},
                distributions=template.distributions,
                user_attrs={"record": record},
            )
        )


def test_trial_that_cannot_reach_the_front_is_stopped(bed: Bed, tmp_path: Path) -> None:
    """It ends at an evaluation, is finished, has a reason and is on no front; Optuna has its extrapolated metric."""
    search, watcher = bed.search(tmp_path, space=space(learning_rate=HOPELESS)), Notes()
    search = dataclasses.replace(search, racing=False)
    search.run(1)
    overtake(search, 5)
    before = watcher.steps
    snapshot = bed.search(tmp_path, watcher, space(learning_rate=HOPELESS)).run(8)
    stopped = [trial for trial in map(flat, snapshot.trials) if trial.extrapolated_metric is not None]
    assert [trial.number for trial in stopped] == [6, 7]
    steps = 4
    assert watcher.steps - before < 2 * steps
    for trial in stopped:
        assert (trial.state, trial.metric, trial.on_front) == ("pruned", None, False)
        assert trial.reason is not None
        assert trial.reason.startswith("stopped after ")
        assert "the front has 1.000" in trial.reason
        assert trial.host_seconds is not None
        assert trial.host_seconds > 0
        assert len(trial.looks) >= 1
        assert trial.looks[-1].share < 1
        stored = search.study.trials[trial.number]
        assert stored.state == TrialState.COMPLETE
        assert stored.values == [trial.extrapolated_metric, trial.peak_memory_mib, trial.wall_time_s]
        assert trial.extrapolated_metric is not None
        assert trial.extrapolated_metric < 1.0
    assert [record.number for record in watcher.ended] == [6, 7]
    assert not list((search.folder / "trials").glob("000[67]/trained.safetensors"))


def test_trials_are_trained_to_their_end_without_racing(bed: Bed, tmp_path: Path) -> None:
    """There are no intermediate evaluations, and the same trials are complete."""
    search = bed.search(tmp_path, space=space(learning_rate=HOPELESS))
    search.run(1)
    overtake(search, 5)
    snapshot = dataclasses.replace(search, racing=False).run(7)
    assert flat(snapshot.trials[6]).state == "complete"
    assert flat(snapshot.trials[6]).looks == ()


def test_intermediate_evaluations_do_not_change_the_training(bed: Bed, tmp_path: Path) -> None:
    """With and without them the same study has the same trials, to the last digit."""
    racing, plain = bed.search(tmp_path / "racing"), bed.search(tmp_path / "plain")
    plain = dataclasses.replace(plain, racing=False)
    evaluated, without = racing.run(3), plain.run(3)
    assert all(len(flat(trial).looks) == len(EVALUATION_SHARES) for trial in evaluated.trials)
    assert [flat(trial).metric for trial in evaluated.trials] == [flat(trial).metric for trial in without.trials]
    assert [flat(trial).curve for trial in evaluated.trials] == [flat(trial).curve for trial in without.trials]
