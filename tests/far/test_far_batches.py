"""Batches: every row once per epoch, little padding, and consistent phases of different lengths."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from farsearch.far.batches import epoch_batches, phase_batches, steps_in

row_lengths = st.lists(st.integers(1, 128), min_size=1, max_size=300)
batch_sizes = st.integers(1, 32)


@given(row_lengths, batch_sizes, st.integers(0, 1000))
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int) -> None:
    """In full batches except the last; the same seed gives the same order."""
    batches = epoch_batches(lengths, batch_size, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == steps_in(len(lengths), batch_size, 1.0)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert sum(len(batch) < batch_size for batch in batches) <= 1
    assert batches == epoch_batches(lengths, batch_size, seed)


@given(row_lengths, batch_sizes, st.floats(0.01, 3), st.floats(0.01, 3), st.integers(0, 99))
def test_a_longer_phase_starts_with_a_shorter_one(
    lengths: list[int], batch_size: int, one: float, other: float, seed: int
) -> None:
    """So a longer priming can continue a shorter one."""
    short, long = (phase_batches(lengths, batch_size, epochs, seed) for epochs in sorted((one, other)))
    assert long[: len(short)] == short
    assert len(short) == steps_in(len(lengths), batch_size, min(one, other))


def test_epochs_of_a_phase_differ_in_order() -> None:
    """The second epoch has every row once too."""
    batches = phase_batches([5] * 40, 4, 2.0, seed=3)
    first, second = batches[:10], batches[10:]
    assert all(sorted(row for batch in part for row in batch) == list(range(40)) for part in (first, second))
    assert first != second


def test_order_is_golden() -> None:
    """Bundles and cached primings rely on a seed's order, on any version of Python and torch."""
    assert epoch_batches([3, 1, 2, 5, 4, 6], 2, seed=7) == [[0, 4], [3, 5], [1, 2]]


def test_rows_of_similar_length_are_grouped() -> None:
    """Batches of mixed lengths have far less padding than in random order."""
    lengths = [random.Random(i).randint(4, 60) for i in range(800)]

    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)

    rows = list(range(800))
    random.Random(1).shuffle(rows)
    at_random = [rows[i : i + 16] for i in range(0, 800, 16)]
    useful = sum(lengths)
    assert padded(epoch_batches(lengths, 16, 1)) - useful < 0.3 * (padded(at_random) - useful)


def test_step_counts() -> None:
    """A short last batch is a step, a partial epoch is rounded, and only 0 epochs are 0 steps."""
    assert steps_in(100, 16, 1.0) == 7
    assert steps_in(100, 16, 2.0) == 14
    assert steps_in(1000, 10, 0.03) == 3
    assert steps_in(100, 16, 0.001) == 1
    assert steps_in(100, 16, 0) == 0
