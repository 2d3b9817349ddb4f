"""Priming: its result and key, caching, and exact continuation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farsearch.cache import trim
from farsearch.far.selection import neuron_scores
from farsearch.files import load_tensors, save_tensors
from farsearch.priming import Primed
from farsearch.records import JobSpec
from tests.primings import JOB, ROWS, make_cache, network, prime, same, start_of
from tests.tiny import FAMILIES

Get = Callable[..., Primed]


@pytest.fixture
def get(tmp_path: Path) -> Get:
    """Return a function that primes as a new worker does, with one cache per test."""

    def primed(epochs: float, folder: str = "cache", job: JobSpec = JOB, **settings: Any) -> Primed:
        return prime(tmp_path / folder, epochs, job, **settings)

    return primed


def with_optimizer(kind: Any) -> JobSpec:
    """Return the job with another priming optimizer."""
    return dataclasses.replace(JOB, priming=dataclasses.replace(JOB.priming, optimizer=kind))


def test_result_of_a_priming(get: Get) -> None:
    """It has the trained weights, their change as scores, and the change before and after the middle as halves."""
    primed = get(2.0)
    (model, layout), pretrained = network(), start_of()
    assert primed.steps == 10
    assert set(primed.state) == set(pretrained)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in primed.state.items())
    expected = neuron_scores(layout, pretrained, primed.state)
    assert all(torch.equal(a, b) for a, b in zip(primed.scores, expected, strict=True))
    assert primed.seconds > 0
    middle = get(1.0, folder="other").state
    for half, (start, end) in zip(primed.halves, ((pretrained, middle), (middle, primed.state)), strict=True):
        expected = neuron_scores(layout, start, end)
        assert all(torch.equal(a, b) for a, b in zip(half, expected, strict=True))


def test_priming_is_run_once(get: Get) -> None:
    """The second result comes from the disk, is equal bit by bit, and is marked."""
    notes: list[str] = []
    first, second = get(1.0, notes=notes), get(1.0, notes=notes)
    assert notes == ["priming 5 steps, cached for all trials"]
    assert (first.from_cache, second.from_cache) == (False, True)
    assert same(first, second)
    assert first.seconds == second.seconds


def test_same_worker_reads_the_cache(tmp_path: Path) -> None:
    """A worker that alternates between lengths runs each once."""
    cache = make_cache(tmp_path)
    assert [cache.get(network()[0], epochs).from_cache for epochs in (1.0, 1.0, 0.4, 0.4, 1.0)] == [
        False, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_longer_priming_continues_a_shorter_one(get: Get, kind: str, family: str, micro_batch_size: int | None) -> None:
    """Five steps and then twenty equal the twenty in one run: optimizer, order, dropout and rates continue."""
    job, notes = with_optimizer(kind), list[str]()
    given: dict[str, Any] = {"job": job, "family": family, "micro_batch_size": micro_batch_size, "notes": notes}
    shorter = get(1.0, **given).path
    files = [shorter.read_bytes(), shorter.with_suffix(".optimizer").read_bytes()]
    longer = get(4.0, **given)
    assert notes[1:] == ["priming 20 steps, 5 of them done before, cached for all trials"]
    assert same(longer, get(4.0, "one-go", **given))
    assert shorter.read_bytes() == files[0], "the continued priming has changed"
    assert not shorter.with_suffix(".optimizer").exists(), "it only takes room now"


_LENGTHS = (0.2, 0.4, 1.0, 1.2, 2.0)
"""1, 2, 5, 6 and 10 steps."""


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_LENGTHS), st.booleans()), min_size=2, max_size=6))
def test_order_of_trials_does_not_change_primings(asked: list[tuple[float, bool]]) -> None:
    """In any order of lengths, and with any removals from the cache, each equals that of a single run."""
    with TemporaryDirectory() as folder:
        for epochs, cleared in asked:
            found = prime(Path(folder) / "cache", epochs)
            assert same(found, prime(Path(folder) / f"{epochs:g}", epochs))
            if cleared:  # the last priming and its optimizer stay, or one of them
                trim(Path(folder) / "cache", 0.2)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_continuation_uses_the_shorter_file(get: Get, tmp_path: Path, kind: str) -> None:
    """Changed weights in the shorter one's file change the longer one: its steps are not run again."""
    job = with_optimizer(kind)
    path = get(1.0, job=job).path
    tensors = load_tensors(path)
    assert tensors is not None
    tensors = {name: value.clone() for name, value in tensors.items()}
    tensors["bert.pooler.dense.bias"] += 7.0
    tensors["seconds"] += 1000.0
    save_tensors(path, tensors)
    notes: list[str] = []
    longer = get(2.0, job=job, notes=notes)
    assert notes == ["priming 10 steps, 5 of them done before, cached for all trials"]
    assert longer.state["bert.pooler.dense.bias"].min() > 6.0
    assert longer.seconds > 1000.0


def test_longer_priming_does_not_continue_past_its_own_middle(get: Get) -> None:
    """The selection is checked by its halves, so the middle is needed: 5 of 8 steps are run again."""
    get(1.0)
    assert same(get(1.6), get(1.6, "one-go"))


def test_shorter_priming_after_a_longer_one(get: Get) -> None:
    """The order of trials does not change the result."""
    longer, shorter = get(2.0), get(1.0)
    assert same(shorter, get(1.0, "one-go"))
    assert same(longer, get(2.0))


def test_priming_of_one_step(get: Get) -> None:
    """All the change of the shortest priming is in the second half."""
    primed = get(0.01)
    assert primed.steps == 1
    assert all(float(score.sum()) == 0 for score in primed.halves[0])
    assert all(torch.equal(a, b) for a, b in zip(primed.halves[1], primed.scores, strict=True))


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
def test_another_job_has_its_own_primings(get: Get, change: dict[str, Any]) -> None:
    """Everything that a priming depends on is part of its key."""
    notes: list[str] = []
    one = get(1.0, notes=notes)
    other = get(1.0, job=dataclasses.replace(JOB, **change), notes=notes)
    assert one.path != other.path
    assert len(notes) == 2


def test_other_tokens_or_labels_have_their_own_primings(get: Get) -> None:
    """The key has the tokens, because equal texts give other tokens with other tokenizer files or libraries."""
    one = get(1.0)
    longer = ROWS._replace(input_ids=[*ROWS.input_ids[:-1], [*ROWS.input_ids[-1], 7]])
    other = ROWS._replace(targets=[*ROWS.targets[:-1], 0])
    others = [get(1.0, rows=longer), get(1.0, rows=other), get(1.0, pad_id=1)]
    assert not any(other.from_cache for other in others)
    assert len({primed.path for primed in (one, *others)}) == 4
    assert not same(one, others[0])


def test_seed_and_rate_change_key_and_result(get: Get) -> None:
    """The keys differ because the weights do."""
    one = get(1.0)
    assert not same(one, get(1.0, job=dataclasses.replace(JOB, seed=2)))
    faster = dataclasses.replace(JOB.priming, learning_rate=2e-3)
    assert not same(one, get(1.0, job=dataclasses.replace(JOB, priming=faster)))


def test_micro_batches_are_another_priming(get: Get) -> None:
    """They draw dropout differently, so they have another key; the weights are close."""
    full, parts = get(1.0), get(1.0, micro_batch_size=2)
    assert full.path.parent != parts.path.parent
    assert not same(full, parts)
