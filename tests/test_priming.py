"""Priming and its cache: found again, continued, kept, made anew when damaged, run once by many workers."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from farsearch.errors import MissingResource
from farsearch.far.layout import ModelLayout
from farsearch.far.selection import neuron_scores
from farsearch.files import load_tensors, save_tensors
from farsearch.priming import Primed, PrimingCache, keep
from farsearch.records import JobSpec, Priming
from tests.tiny import make_model

ROWS = [[2, *(random.Random(i).randrange(5, 300) for _ in range(2 + i % 9)), 3] for i in range(40)]
LABELS = [i % 2 for i in range(40)]

JOB = JobSpec(
    task="sst2",
    data="9f" * 32,
    model="tiny",
    weights="53" * 32,
    train_samples=40,
    validation_samples=8,
    batch_size=8,
    max_length=16,
    seed=1,
    priming=Priming(learning_rate=1e-3, warmup_steps=2),
)
"""Five steps an epoch."""


@pytest.fixture(scope="module")
def model() -> tuple[nn.Module, ModelLayout]:
    """A tiny model that primings overwrite."""
    return make_model("bert")


@pytest.fixture(scope="module")
def pretrained(model: tuple[nn.Module, ModelLayout]) -> dict[str, Tensor]:
    """The weights that every priming starts from."""
    return {name: value.clone() for name, value in model[0].state_dict().items()}


Get = Callable[..., Primed]


@pytest.fixture
def get(model: tuple[nn.Module, ModelLayout], pretrained: dict[str, Tensor], tmp_path: Path) -> Get:
    """A priming as a new worker gets it, with nothing in memory; ``notes`` grow when steps are really run."""

    def prime(
        epochs: float,
        folder: str = "cache",
        job: JobSpec = JOB,
        notes: list[str] | None = None,
        micro_batch_size: int | None = None,
    ) -> Primed:
        network, layout = model
        cache = PrimingCache(tmp_path / folder, job, layout, pretrained, ROWS, LABELS, 0, micro_batch_size)
        return cache.get(network, epochs, None if notes is None else notes.append)

    return prime


def same(one: Primed, other: Primed) -> bool:
    """Whether weights and all scores are equal, bit by bit."""
    pairs = [*zip(one.scores, other.scores, strict=True)]
    for first, second in zip(one.halves, other.halves, strict=True):
        pairs += zip(first, second, strict=True)
    assert set(one.state) == set(other.state)
    pairs += [(value, other.state[name]) for name, value in one.state.items()]
    return one.steps == other.steps and all(torch.equal(a, b) for a, b in pairs)


def with_optimizer(kind: Any) -> JobSpec:
    """The job with another priming optimizer."""
    return dataclasses.replace(JOB, priming=dataclasses.replace(JOB.priming, optimizer=kind))


def test_what_a_priming_says(get: Get, model: tuple[nn.Module, ModelLayout], pretrained: dict[str, Tensor]) -> None:
    """Its weights are the trained ones, its scores their change, and the halves the change before and after mid-way."""
    primed = get(2.0)
    layout = model[1]
    assert primed.steps == 10
    assert set(primed.state) == set(pretrained)
    assert all(torch.equal(value, model[0].state_dict()[name]) for name, value in primed.state.items())
    expected = neuron_scores(layout, pretrained, primed.state)
    assert all(torch.equal(a, b) for a, b in zip(primed.scores, expected, strict=True))
    assert primed.seconds > 0
    middle = get(1.0, folder="other").state
    for half, (start, end) in zip(primed.halves, ((pretrained, middle), (middle, primed.state)), strict=True):
        expected = neuron_scores(layout, start, end)
        assert all(torch.equal(a, b) for a, b in zip(half, expected, strict=True))


def test_a_priming_is_run_once(get: Get) -> None:
    """The second time it comes from the disk, is the same bit by bit, and says so."""
    notes: list[str] = []
    first, second = get(1.0, notes=notes), get(1.0, notes=notes)
    assert notes == ["priming 5 steps, kept for all trials"]
    assert (first.from_cache, second.from_cache) == (False, True)
    assert same(first, second)
    assert first.seconds == second.seconds


def test_the_same_worker_says_so_too(
    model: tuple[nn.Module, ModelLayout], pretrained: dict[str, Tensor], tmp_path: Path
) -> None:
    """Also a priming that is still in memory was not run for the second trial."""
    network, layout = model
    cache = PrimingCache(tmp_path, JOB, layout, pretrained, ROWS, LABELS, 0)
    assert [cache.get(network, epochs).from_cache for epochs in (1.0, 1.0, 0.4, 0.4, 1.0)] == [
        False, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_longer_priming_continues_a_shorter_one(get: Get, kind: str) -> None:
    """Five steps and then twenty are the twenty in one go: optimizer, order, dropout and rates go on."""
    job = with_optimizer(kind)
    get(1.0, job=job)
    assert same(get(4.0, job=job), get(4.0, "one-go", job))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_it_really_is_continued(get: Get, tmp_path: Path, kind: str) -> None:
    """Changed weights in the shorter one's file show in the longer one: its steps are not run again."""
    job = with_optimizer(kind)
    path = get(1.0, job=job).path
    tensors = load_tensors(path)
    assert tensors is not None
    tensors = {name: value.clone() for name, value in tensors.items()}
    tensors["bert.pooler.dense.bias"] += 7.0
    tensors["seconds"] += 1000.0
    save_tensors(path, tensors)
    longer = get(2.0, job=job)
    assert longer.state["bert.pooler.dense.bias"].min() > 6.0
    assert longer.seconds > 1000.0


def test_a_longer_priming_does_not_continue_past_its_own_middle(get: Get) -> None:
    """Its halves are what the selection is judged by, so the middle has to be seen: 5 of 8 steps are run again."""
    get(1.0)
    assert same(get(1.6), get(1.6, "one-go"))


def test_a_shorter_priming_after_a_longer_one(get: Get) -> None:
    """The order in which trials ask does not matter."""
    longer, shorter = get(2.0), get(1.0)
    assert same(shorter, get(1.0, "one-go"))
    assert same(longer, get(2.0))


def test_one_step(get: Get) -> None:
    """The shortest priming has one step: all its change is in the second half."""
    primed = get(0.01)
    assert primed.steps == 1
    assert all(float(score.sum()) == 0 for score in primed.halves[0])
    assert all(torch.equal(a, b) for a, b in zip(primed.halves[1], primed.scores, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_damaged_file_is_primed_anew(get: Get, tmp_path: Path, share: float) -> None:
    """A file cut short by a full disk or a kill is no priming."""
    notes: list[str] = []
    whole = get(1.0, "good")
    path = get(1.0, notes=notes).path
    # moved into place: whoever still has the old file mapped keeps it
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    os.replace(cut, path)
    again = get(1.0, notes=notes)
    assert len(notes) == 2
    assert not again.from_cache
    assert same(again, whole)


def test_a_damaged_optimizer_is_not_continued(get: Get) -> None:
    """Weights without the optimizer's state are no place to go on from: the longer priming starts at the beginning."""
    path = get(1.0).path.with_suffix(".optimizer")
    path.write_bytes(path.read_bytes()[:100])
    assert same(get(2.0), get(2.0, "one-go"))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"data": "other"},
        {"weights": "other"},
        {"batch_size": 9},
        {"max_length": 24},
        {"priming": dataclasses.replace(JOB.priming, learning_rate=2e-3)},
        {"priming": dataclasses.replace(JOB.priming, warmup_steps=3)},
        {"priming": dataclasses.replace(JOB.priming, optimizer="sgd")},
    ],
    ids=lambda change: "-".join(change),
)
def test_another_job_has_primings_of_its_own(get: Get, change: dict[str, Any]) -> None:
    """Whatever a priming depends on is part of its key."""
    notes: list[str] = []
    one = get(1.0, notes=notes)
    other = get(1.0, job=dataclasses.replace(JOB, **change), notes=notes)
    assert one.path != other.path
    assert len(notes) == 2


def test_seed_and_rate_change_the_result(get: Get) -> None:
    """The keys differ because the weights do."""
    one = get(1.0)
    assert not same(one, get(1.0, job=dataclasses.replace(JOB, seed=2)))
    faster = dataclasses.replace(JOB.priming, learning_rate=2e-3)
    assert not same(one, get(1.0, job=dataclasses.replace(JOB, priming=faster)))


def test_micro_batches_are_another_priming(get: Get) -> None:
    """Their dropout is drawn otherwise, so they are kept apart; the weights end close by."""
    whole, parts = get(1.0), get(1.0, micro_batch_size=2)
    assert whole.path.parent != parts.path.parent
    assert not same(whole, parts)


def test_a_kept_priming_outlives_the_cache(get: Get, tmp_path: Path) -> None:
    """It is whole when the cache is cleared; keeping it twice is keeping it once; another job's goes beside it."""
    one, other = get(1.0), get(1.0, job=dataclasses.replace(JOB, seed=2))
    kept = [keep(one, tmp_path / "kept"), keep(one, tmp_path / "kept"), keep(other, tmp_path / "kept")]
    assert kept[0] == kept[1] != kept[2]
    expected = {name: value.clone() for name, value in one.state.items()}
    shutil.rmtree(tmp_path / "cache")
    loaded = load_tensors(kept[0])
    assert loaded is not None
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_workers_share_one_priming(
    model: tuple[nn.Module, ModelLayout], pretrained: dict[str, Tensor], tmp_path: Path
) -> None:
    """Of four workers that ask at once one primes, the others wait and read what it wrote."""
    notes: list[str] = []
    found: list[Primed] = []
    start = threading.Barrier(4)

    def work() -> None:
        network, layout = make_model("bert")
        cache = PrimingCache(tmp_path, JOB, layout, pretrained, ROWS, LABELS, 0)
        start.wait()
        found.append(cache.get(network, 0.4, notes.append))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes) == 1
    assert sorted(primed.from_cache for primed in found) == [False, True, True, True]
    assert all(same(found[0], primed) for primed in found)


def test_a_cache_that_can_not_be_written(get: Get, tmp_path: Path) -> None:
    """The folder is named in one line of ours."""
    (tmp_path / "cache").touch()
    with pytest.raises(MissingResource, match="can't be written"):
        get(1.0)


def test_a_failed_priming_leaves_no_file(get: Get, tmp_path: Path) -> None:
    """A priming that diverges is not stored, and the lock is free again."""
    wild = dataclasses.replace(JOB, priming=Priming(optimizer="sgd", learning_rate=1e30, warmup_steps=0))
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            get(1.0, job=wild)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
