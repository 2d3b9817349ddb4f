"""Predicted memory of a compiled step: what the runner's buffers hold, and what portions save."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from farsearch.graph.memory import EngineMemory, StepMemory
from farsearch.models.heads import Head
from tests.graph.test_graph_step import BY_NAME, Compiled, arrays_of, compile_model, far, make_inputs

ROWS, LENGTH = 16, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``compiled``."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def compiled(folder: Path) -> Compiled:
    """A step without dropout, in portions of less than a row."""
    return compile_model(folder, BY_NAME["bert"], Head(), far(embeddings=True))


def predicted(compiled: Compiled, folder: Path, portion: int | None) -> StepMemory[int]:
    """The memory of a step with another size of the portions."""
    program = compiled.program._replace(portion=portion)
    graphs = [(folder / name).read_bytes() for name in program.graphs]
    return EngineMemory(program, graphs, 0).step(ROWS, LENGTH)


def test_the_runner_holds_the_predicted_buffers(compiled: Compiled, folder: Path) -> None:
    batch = arrays_of(make_inputs(Head(), ROWS, LENGTH))
    tracemalloc.start()
    try:
        compiled.runner.step(batch, lambda _, shape: np.zeros(shape, bool), lambda *_: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    memory = predicted(compiled, folder, compiled.program.portion)
    # beside the buffers the objects of Python, some 50 kB
    assert memory.passing - memory.temporary <= peak < memory.passing + 2**17


def test_portions_take_less_for_temporaries_alone(compiled: Compiled, folder: Path) -> None:
    small, large = (predicted(compiled, folder, portion) for portion in (LENGTH, None))
    assert small.temporary < 0.2 * large.temporary
    assert small.passing - small.temporary == pytest.approx(large.passing - large.temporary, rel=0.02)
    assert small.held == large.held
    assert large.allocated - large.passing > small.allocated - small.passing > 0
