"""A small search that takes seconds: a task that a tiny model can learn, a suitable space, and helpers to run it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farsearch.records import StudySnapshot

__all__ = [
    "SPACE",
    "Done",
    "Watched",
    "assert_whole",
    "call",
    "chdir",
    "finished",
    "prepare",
    "process",
    "read_study",
    "run_arguments",
    "start",
    "until",
    "watch",
    "write_task",
]

SPACE = """\
schema_version: 1
title: for tiny models, which need high rates
search:
  priming_epochs: {choices: [0.0, 0.5]}
  frozen_fraction: {per_layer: true, low: 0.0, high: 1.0, step: 0.25}
  learning_rate: {low: 1.0e-3, high: 2.0e-2, log: true}
fixed:
  epochs: 3.0
  frozen_embeddings: false
  frozen_attention_layers: 0
  frozen_bottom_layers: 0
start:
  full fine-tuning: {frozen_fraction: 0.0, priming_epochs: 0.0, learning_rate: 3.0e-3}
"""

_PATIENCE_S = 900
"""Timeout in seconds for a process to end or to print something."""

_FILLER = ("the", "a", "film", "and", "it", "is", "this", "story", "was", "in", "with", "plot", "acting", "very", "not")
_WORDS = (("bad", "boring", "worst", "dull", "poor"), ("good", "great", "best", "funny", "love"))


def write_task(folder: Path, rows: int = 480, seed: int = 0) -> Path:
    """Write ``train.tsv`` and ``dev.tsv`` in SST-2's layout, with labels that mostly follow from a few words."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", rows), ("dev", rows // 4)):
        lines = ["sentence\tlabel"]
        for i in range(count):
            words = [draw.choice(_FILLER) for _ in range(draw.randint(4, 8))]
            for _ in range(2):
                told = i % 2 if draw.random() < 0.9 else 1 - i % 2
                words[draw.randrange(len(words))] = draw.choice(_WORDS[told])
            lines.append(f"{' '.join(words)}\t{i % 2}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def prepare(folder: Path) -> Path:
    """Make a working directory with the task in ``data`` and the space in ``tiny.yaml``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_task(folder / "data")
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    return folder


def run_arguments(model: Path, n_trials: int, /, **options: Any) -> list[str]:
    """Return arguments of ``farsearch run`` in a prepared directory. Options are keywords, such as ``max_time=3``."""
    values = {
        "device": "jetson-nano",
        "task": "sst2",
        "data_dir": "data",
        "model": model,
        "space": "tiny.yaml",
        "train_samples": 320,
        "batch_size": 16,
        "max_length": 16,
        "device_samples": 100_000,
        "study": "tiny",
        "n_trials": n_trials,
        **options,
    }
    given = [(name, value) for name, value in values.items() if value is not None]
    return ["run", *(word for name, value in given for word in (f"--{name.replace('_', '-')}", str(value)))]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, parsed as JSON."""
        return json.loads(self.out)


@contextlib.contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """Work in ``folder``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(folder: Path, *arguments: object) -> Done:
    """Run a command in this process, without repeated imports: ``main`` as the console script calls it."""
    from farsearch.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def start(folder: Path, *arguments: object, enter: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    """Start a command as a process in its own group, with its output in pipes.

    Args:
        enter: prefix of the command line, for a program that runs the command.
    """
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    command = [*enter, sys.executable, "-m", "farsearch", *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, **{**settings, **options})


def process(folder: Path, *arguments: object, **options: Any) -> Done:
    """Run a command as a process until it ends."""
    child = start(folder, *arguments, **options)
    out, err = child.communicate(timeout=_PATIENCE_S)
    return Done(child.returncode, out or "", err or "")


def until(what: Callable[[], Any], told: Callable[[], str] = str, pause_s: float = 0.05) -> Any:
    """Call ``what`` until its result is true, and return that; ``told`` explains a timeout."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (said := what()):
        assert time.monotonic() < deadline, told()
        time.sleep(pause_s)
    return said


@dataclass(frozen=True)
class Watched:
    """A command whose stderr can be read while it runs."""

    child: subprocess.Popen[str]
    log: Path

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return self.log.read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        """Whether it is running."""
        return self.child.poll() is None

    @property
    def children(self) -> list[int]:
        """Return the ids of its running child processes."""
        pid = self.child.pid
        with contextlib.suppress(FileNotFoundError):
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def until(self, text: str) -> None:
        """Wait until ``text`` is in its stderr."""
        until(lambda: text in self.err or not self.running, lambda: f"no {text!r} in: {self.err}")
        assert text in self.err, self.err

    def end(self, number: signal.Signals | None = None) -> Done:
        """Send its process group a signal, if one is given, and wait for the end."""
        if number is not None:
            os.killpg(self.child.pid, number)
        self.child.wait(timeout=_PATIENCE_S)
        return Done(self.child.returncode, "", self.err)


@contextlib.contextmanager
def watch(folder: Path, *arguments: object, **options: Any) -> Iterator[Watched]:
    """Start a command and watch it. The process ends with the block."""
    handle, log = tempfile.mkstemp(prefix="stderr-", dir=folder)
    child = start(folder, *arguments, stdout=subprocess.DEVNULL, stderr=handle, **options)
    os.close(handle)
    try:
        yield Watched(child, Path(log))
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def read_study(folder: Path, storage: str | None = None, name: str = "tiny") -> StudySnapshot:
    """Read a study as another process would, from the journal or from a database."""
    from farsearch.study.snapshot import snapshot_of
    from farsearch.study.store import Store

    store = Store(folder / ".farsearch", storage)
    try:
        return snapshot_of(store.load(name))
    finally:
        if storage is not None:
            store.storage.engine.dispose()  # type: ignore[attr-defined]


def finished(snapshot: StudySnapshot) -> dict[int, str]:
    """Return the configurations of finished trials, by number."""
    from farsearch.records import flat

    return {
        trial.number: repr(flat(trial).config)
        for trial in snapshot.trials
        if flat(trial).state in ("complete", "pruned")
    }


def assert_whole(
    folder: Path, n_trials: int, storage: str | None = None, tracking_uri: str = "sqlite:///mlflow.db"
) -> StudySnapshot:
    """Check a completed study: exact number of trials, no duplicates, nothing lost, the same in MLflow."""
    from farsearch.records import flat
    from farsearch.tracking import open_tracking

    snapshot = read_study(folder, storage)
    trained = finished(snapshot)
    assert len(trained) == n_trials
    assert len(set(trained.values())) == n_trials
    assert {flat(trial).state for trial in snapshot.trials} <= {"complete", "pruned", "fail"}
    # an interrupted trial was trained later, unless it was interrupted too often
    given_up = {repr(flat(trial).config) for trial in snapshot.trials if "not tried again" in str(flat(trial).reason)}
    for trial in snapshot.trials:
        cut = flat(trial).state == "fail" and flat(trial).config is not None
        assert not cut or repr(flat(trial).config) in {*trained.values(), *given_up}, trial
    with chdir(folder):
        assert open_tracking(tracking_uri).differences(snapshot) == []
    return snapshot
