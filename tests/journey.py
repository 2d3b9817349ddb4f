"""A small search that takes seconds: a task that a tiny model can learn, a space that suits it, and ways to run it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SPACE", "Done", "call", "chdir", "prepare", "process", "run_arguments", "start", "write_task"]

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

_FILLER = ("the", "a", "film", "and", "it", "is", "this", "story", "was", "in", "with", "plot", "acting", "very", "not")
_WORDS = (("bad", "boring", "worst", "dull", "poor"), ("good", "great", "best", "funny", "love"))


def write_task(folder: Path, rows: int = 480, seed: int = 0) -> Path:
    """``train.tsv`` and ``dev.tsv`` in SST-2's layout, whose labels follow from a few words, most of the time."""
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
    """A working directory with the task in ``data`` and the space in ``tiny.yaml``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_task(folder / "data")
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    return folder


def run_arguments(model: Path, n_trials: int, /, **options: Any) -> list[str]:
    """Arguments of ``farsearch run`` in a prepared directory. Options by their names, ``max_time=3``."""
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
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
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
    """Run a command in this process, which spares the imports: ``main`` as the console script calls it."""
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


def start(folder: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a command as a process of a group of its own, its output in pipes."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    command = [sys.executable, "-m", "farsearch", *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, **{**settings, **options})


def process(folder: Path, *arguments: object, **options: Any) -> Done:
    """Run a command as a process to its end."""
    child = start(folder, *arguments, **options)
    out, err = child.communicate(timeout=120)
    return Done(child.returncode, out or "", err or "")
