"""Early stopping of a bundle's phase, and its best state, on each engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from farsearch.runtime.bundle_files import BundleProblem, open_bundle
from farsearch.runtime.job import Interrupted
from tests.engines.bundles import TASK, make_bundle, write_rows
from tests.engines.test_engine_contract import after, assert_same_weights, run


@pytest.fixture
def riddle(tmp_path: Path) -> Path:
    """The user's rows with exchanged labels: the more a model learns, the worse it is on them."""
    names = dict(zip(TASK.labels, reversed(TASK.labels), strict=True))
    head, *lines = write_rows(tmp_path / "riddle.tsv").read_text().splitlines()
    pairs = (line.rsplit("\t", 1) for line in lines)
    exchanged = [f"{text}\t{names[label]}" for text, label in pairs]
    (tmp_path / "riddle.tsv").write_text("\n".join([head, *exchanged]) + "\n")
    return tmp_path / "riddle.tsv"


def test_a_phase_stops_in_its_best_state(bundle: Path, rows: Path, riddle: Path, tmp_path: Path) -> None:
    """Half of the rows are right until the model learns: the first state is the best, the second worse one ends."""
    log = run(bundle, rows, tmp_path / "out", dev=str(riddle), patience=2).log
    assert (log.kept, log.done, log.steps) == (2, 14, 16)
    with pytest.raises(Interrupted):
        run(bundle, rows, tmp_path / "two", after(2))
    saved = load_file(tmp_path / "two.partial" / "savepoint.safetensors")
    kept = load_file(tmp_path / "out" / "model.safetensors")
    head = next(name for name in saved if name.startswith("weight/") and name.endswith("classifier.weight"))
    np.testing.assert_array_equal(kept[head.removeprefix("weight/")], saved[head])


@pytest.mark.parametrize("steps", [1, 4])
def test_a_stopped_run_resumes_with_its_best_state(
    bundle: Path, rows: Path, riddle: Path, tmp_path: Path, steps: int
) -> None:
    """Before and after the first evaluation."""
    whole = run(bundle, rows, tmp_path / "whole", dev=str(riddle), patience=2)
    with pytest.raises(Interrupted):
        run(bundle, rows, tmp_path / "cut", after(steps), dev=str(riddle), patience=2)
    rest = run(bundle, rows, tmp_path / "cut", dev=str(riddle), patience=2)
    assert (rest.log.kept, rest.log.done) == (whole.log.kept, whole.log.done)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_evaluations_change_no_step(bundle: Path, rows: Path, tmp_path: Path) -> None:
    plain = run(bundle, rows, tmp_path / "plain", dev=str(rows))
    watched = run(bundle, rows, tmp_path / "watched", dev=str(rows), patience=10)
    assert watched.log.losses == plain.log.losses


def test_patience_of_the_bundle_needs_rows_to_measure_on(rows: Path, riddle: Path, tmp_path: Path) -> None:
    """Without them a phase runs to its end, and patience that is asked for is refused."""
    bundle = make_bundle(tmp_path, "torch", patience=2)
    assert open_bundle(str(bundle)).phase["patience"] == 2
    assert run(bundle, rows, tmp_path / "watched", dev=str(riddle)).log.done == 14
    log = run(bundle, rows, tmp_path / "whole").log
    assert (log.kept, log.done) == (None, 16)
    with pytest.raises(BundleProblem, match=r"--patience 3: .* add it"):
        run(bundle, rows, tmp_path / "none", patience=3)
