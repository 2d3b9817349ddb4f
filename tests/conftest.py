"""Settings that every test runs under. Markers and warnings are configured in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported anywhere: pytest runs one process a core, so one thread each. One thread also makes the
# order of sums, and with it every figure, the same from run to run.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests need nothing but the install: whatever would ask a network fails at once. A test of the unreachable hub starts
# a process with an environment of its own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Pictures are written, never shown.
os.environ["MPLBACKEND"] = "agg"

# A busy machine is no failure, and what failed once must fail again.
hypothesis.settings.register_profile("farsearch", deadline=None, derandomize=True)
hypothesis.settings.load_profile("farsearch")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT with a tokenizer, made once. Do not write to it."""
    # here and not above: torch reads the settings above when it is first imported
    from tests.tiny import make_bert

    return make_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny DistilBERT with a tokenizer, made once. Do not write to it."""
    from tests.tiny import make_distilbert

    return make_distilbert(tmp_path_factory.mktemp("models") / "tiny-distilbert")


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Working directory with the finished study ``tiny`` of nine trials in it. Copy it before a test changes it."""
    from tests.journey import call, prepare, run_arguments

    folder = prepare(tmp_path_factory.mktemp("finished"))
    done = call(folder, *run_arguments(tiny_bert, 9))
    assert done.code == 0, done.err
    return folder
