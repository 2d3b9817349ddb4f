"""A trial that needs more memory than this machine has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import transformers

from farsearch.records import Stopped, Trial, flat
from farsearch.study.store import Store
from tests.journey import assert_whole, prepare, run_arguments, watch
from tests.tiny import make_config

resource = pytest.importorskip("resource")

VOCABULARY = 1_000_000
"""Tokens of a model whose embeddings take 122 MiB, and three times as much more while they are trained."""

SOME, LITTLE = 350 * 2**20, 60 * 2**20
"""Bytes that the search may take beyond what it has between two trials: enough for frozen embeddings alone, and not
even enough for the weights that a trial starts from."""

SEARCHED = """\
schema_version: 1
title: for a model whose embeddings are nearly all of it
search:
  frozen_embeddings: {choices: [true, false]}
  learning_rate: {low: 1.0e-3, high: 2.0e-2, log: true}
fixed:
  priming_epochs: 0.0
  frozen_fraction: 0.0
  epochs: 1.0
  frozen_attention_layers: 0
  frozen_bottom_layers: 0
start:
  frozen embeddings: {frozen_embeddings: true, learning_rate: 3.0e-3}
"""


def data_bytes(pid: int) -> int:
    """Return the memory of a process that RLIMIT_DATA counts."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmData")))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("room", [SOME, LITTLE], ids=["some", "little"])
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits the memory of a running process")
def test_trial_out_of_memory_is_recorded(tmp_path: Path, tiny_bert: Path, storage: str | None, room: int) -> None:
    """The kernel refuses memory to a trial, which is stopped with the reason, and the search continues.

    Each trial is judged by its own constraints, also a stopped one, and no trial with enough memory is stopped.
    """
    folder = prepare(tmp_path)
    wide = shutil.copytree(tiny_bert, tmp_path / "wide")
    transformers.BertModel(make_config("bert", vocabulary=VOCABULARY)).save_pretrained(wide)
    (folder / "tiny.yaml").write_text(SEARCHED, encoding="utf-8")
    options = {"storage": storage, "sampler": "random", "train_samples": 64, "epochs": 1}
    with watch(folder, *run_arguments(wide, 8, **options)) as run:
        run.until("] trial 0 ")
        limit = data_bytes(run.child.pid) + room
        resource.prlimit(run.child.pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
        run.until("[8/8]")
        # only the search is limited
        resource.prlimit(run.child.pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        done = run.end()
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    snapshot = assert_whole(folder, 8, storage)
    stopped = [trial for trial in map(flat, snapshot.trials) if trial.state == "pruned"]
    assert stopped
    assert snapshot.complete
    for trial in snapshot.trials[1:]:
        assert isinstance(trial, Trial)
        assert isinstance(trial.outcome, Stopped) == (room == LITTLE or not trial.config.frozen_embeddings)
    for stored in stopped:
        assert str(stored.reason).startswith("this machine has not enough memory")
        assert stored.metric is None
        assert not stored.on_front
        assert f"trial {stored.number}  stopped: {stored.reason}" in done.err
    trials = Store(folder / ".farsearch", storage).load("tiny").trials
    assert all("memory" in trial.constraints for trial in trials)
