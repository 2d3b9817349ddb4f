"""Damaged cache files, and cache files of an older version."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from farsearch.files import load_tensors, save_tensors
from farsearch.records import flat
from tests.journey import assert_whole, call, prepare, read_study, run_arguments


def cut_in_half(path: Path) -> None:
    """Truncate a file, as a kill or a full disk may."""
    half = path.with_suffix(".half")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # rename atomically: a process that has mapped the old file still reads it
    os.replace(half, path)


def without_halves(path: Path) -> None:
    """Write a priming in the format of a version that did not store the halves."""
    tensors = load_tensors(path)
    assert tensors is not None
    save_tensors(path, {name: value.clone() for name, value in tensors.items() if "half" not in name})


def of_version_nought(path: Path) -> None:
    """Write a baseline's results in an old schema, with an impossible metric."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["schema_version"], data["results"]["metric"] = 0, 0.123
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("harm", [cut_in_half, without_halves], ids=lambda harm: harm.__name__)
def test_unusable_priming_is_run_again(tmp_path: Path, tiny_bert: Path, harm: Callable[[Path], None]) -> None:
    """Another study of the same job finds the file, primes again, and has the same trials to the last digit."""
    folder = prepare(tmp_path)
    (first, second) = (run_arguments(tiny_bert, 2, study=name) for name in ("whole", "tiny"))
    primed = ["--set", "priming_epochs=0.5"]
    done = call(folder, *first, *primed)
    assert done.code == 0, done.err
    assert done.err.count("priming 10 steps, cached for all trials") == 1
    files = list((folder / ".farsearch" / "cache" / "priming").rglob("*.safetensors"))
    assert files
    for file in files:
        harm(file)
    again = call(folder, *second, *primed)
    assert again.code == 0, again.err
    assert again.err.count("priming 10 steps, cached for all trials") == 1
    results = [[flat(trial).metric for trial in read_study(folder, name=name).trials] for name in ("whole", "tiny")]
    assert results[0] == results[1]
    assert_whole(folder, 2)
    third = call(folder, *run_arguments(tiny_bert, 2, study="third"), *primed)
    assert "priming 10 steps" not in third.err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_unusable_baseline_is_trained_again(tmp_path: Path, tiny_bert: Path) -> None:
    """Of the cached baselines one is truncated and one is of an older version: only these are trained again."""
    folder = prepare(tmp_path)
    first, second = (run_arguments(tiny_bert, 1, study=name, baselines="paper") for name in ("whole", "tiny"))
    done = call(folder, *first)
    assert done.code == 0, done.err
    files = sorted((folder / ".farsearch" / "cache" / "baselines").glob("*/*-*.json"))
    assert len(files) >= 9
    cut_in_half(files[0])
    of_version_nought(files[-1])
    again = call(folder, *second)
    assert again.code == 0, again.err
    assert again.err.count("from the cache") == len(files) - 2
    results = [
        [trial.outcome.metric for trial in read_study(folder, name=name).baselines] for name in ("whole", "tiny")
    ]
    assert results[0] == results[1]
