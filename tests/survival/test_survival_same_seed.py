"""The same seed gives the same trials, in one process or in several consecutive ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from farsearch.records import StudySnapshot, flat
from farsearch.study.samplers import SAMPLERS
from tests.journey import call, finished, prepare, process, read_study, run_arguments

SAME = (
    "config", "plan", "metric", "metric_error", "dev_metric", "peak_memory_mib", "wall_time_s", "energy_j", "curve",
    "on_front", "trainable", "state",
)  # fmt: skip
"""The fields of a trial that describe its training and results."""

# trials of a tenth of a second
SMALL = {"train_samples": 64, "epochs": 1}


def results_of(snapshot: StudySnapshot) -> list[list[object]]:
    """Return the trials in order, without their durations."""
    return [[getattr(trial, name) for name in SAME] for trial in map(flat, snapshot.trials)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("sampler", "storage"),
    [
        *((name, "journal") for name in SAMPLERS),
        # proposals depend on the trials that a sampler reads, not on where they are stored
        *(pytest.param(name, "postgresql", marks=pytest.mark.service) for name in ("known-cost", "nsga2")),
    ],
    indirect=["storage"],
)
def test_search_in_parts_equals_one_run(tmp_path: Path, tiny_bert: Path, storage: str | None, sampler: str) -> None:
    """5, 5 and 5 trials over two restarts equal the 15 of one run, to the last digit.

    There are fifteen because samplers propose at random in the beginning, some for the first dozen trials.
    """
    options = {"storage": storage, "sampler": sampler, **SMALL}
    parts, whole = prepare(tmp_path / "parts"), prepare(tmp_path / "whole")
    for n_trials in (5, 10, 15):
        done = call(parts, *run_arguments(tiny_bert, n_trials, study="parts", **options))
        assert done.code == 0, done.err
    done = call(whole, *run_arguments(tiny_bert, 15, study="whole", **options))
    assert done.code == 0, done.err
    in_parts, in_one_go = read_study(parts, storage, "parts"), read_study(whole, storage, "whole")
    assert results_of(in_parts) == results_of(in_one_go)
    assert len(set(finished(in_parts).values())) == 15


@pytest.mark.slow
def test_processes_with_the_same_seed_have_the_same_trials(
    tmp_path: Path, tiny_bert: Path, storage: str | None
) -> None:
    """Compare studies of two directories and processes; another seed gives other trials."""
    found = []
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        folder = prepare(tmp_path / name)
        arguments = run_arguments(tiny_bert, 4, study=name, seed=seed, storage=storage, **SMALL)
        done = process(folder, *arguments)
        assert done.code == 0, done.err
        found.append(results_of(read_study(folder, storage, name)))
    assert found[0] == found[1]
    assert found[0] != found[2]
