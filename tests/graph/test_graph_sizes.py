"""Sizes of the values of a compiled step whose shapes are computed from those of the batch."""

from __future__ import annotations

import pytest

from farsearch.graph.configured import compile_config
from farsearch.graph.memory import EngineMemory
from farsearch.models.heads import Head
from farsearch.records import FarConfig
from tests.tiny import make_config


@pytest.mark.parametrize("kind", ["classification", "token-classification"])
def test_all_sizes_of_a_step_are_known(kind: str) -> None:
    """The gradient of the head's token is padded to all tokens, by the length of the batch."""
    made = compile_config(make_config("bert"), Head(kind), FarConfig((0.5, 0.5), 1e-5, 1.0))
    memory = EngineMemory.of(made)
    short, long, more = (memory.step(rows, length) for rows, length in ((2, 8), (2, 16), (4, 16)))
    assert 0 < short.passing < long.passing < more.passing
    assert short.held == long.held == more.held
