"""Blocks of memory that are used again, and the portions of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.runtime.onnx_engine.buffers import Buffers, Declared, portion_rows, size_of

HIDDEN = Declared("float32", ("rows", "length", 8))
FLAT = Declared("float32", ("rows*length", 8))


@pytest.mark.parametrize(
    ("dimension", "size"),
    [(7, 7), ("rows", 3), ("rows*length", 15), ("12*rows", 36), ("length-1", 4), ("2*length+3", 13)],
)
def test_a_dimension_follows_from_the_batch(dimension: int | str, size: int) -> None:
    assert size_of(dimension, 3, 5) == size


@pytest.mark.parametrize("dimension", ["tokens", None, "", "rows**2"])
def test_an_unknown_dimension_is_an_error(dimension: str | None) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        size_of(dimension, 3, 5)


@given(rows=st.integers(1, 200), length=st.integers(1, 512), tokens=st.integers(1, 4096))
def test_portions_are_as_few_as_fit_and_differ_by_less_than_one_each(rows: int, length: int, tokens: int) -> None:
    each = portion_rows(rows, length, tokens)
    assert 1 <= each <= rows
    assert each == 1 or each * length <= tokens
    count = -(-rows // each)
    assert count == -(-rows // max(1, min(rows, tokens // length)))
    assert count * each - rows < count


def test_a_block_is_used_again_for_a_value_of_its_size() -> None:
    buffers = Buffers()
    buffers.reserve(4, 16)
    first, block = buffers.take(HIDDEN, (4, 16, 8))
    other, _ = buffers.take(FLAT, (64, 8))
    assert not np.shares_memory(first, other)
    buffers.give(block)
    again, _ = buffers.take(FLAT, (64, 8))
    assert np.shares_memory(first, again)
    assert again.ctypes.data % 64 == 0


def test_a_shorter_batch_uses_the_blocks_of_the_longest() -> None:
    buffers = Buffers()
    buffers.reserve(4, 16)
    long, block = buffers.take(HIDDEN, (4, 16, 8))
    buffers.give(block)
    buffers.reserve(2, 9)
    short, _ = buffers.take(HIDDEN, (2, 9, 8))
    assert np.shares_memory(long, short)
    buffers.reserve(4, 17)
    longer, _ = buffers.take(HIDDEN, (4, 17, 8))
    assert not np.shares_memory(long, longer)
