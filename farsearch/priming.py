"""Priming: the short full training before the selection, and the cache that lets one serve all trials of a study."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor, nn

from farsearch.far.batches import phase_batches, steps_in
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import constant_rate, train
from farsearch.far.optimizer import has_fused, make_optimizer
from farsearch.far.selection import neuron_scores
from farsearch.files import disk_errors, load_tensors, save_tensors
from farsearch.records import JobSpec

__all__ = ["Primed", "PrimingCache", "keep"]

State = dict[str, Tensor]


@dataclass(frozen=True)
class Primed:
    """A primed model: its state, and how much each neuron moved.

    Attributes:
        scores: L1 change of each neuron over the whole priming, ``[width]`` a layer.
        halves: the same over the first and over the second half of its steps.
        path: the file in the cache.
        seconds: host seconds that were spent on it when it was run.
    """

    state: State
    scores: list[Tensor]
    halves: tuple[list[Tensor], list[Tensor]]
    steps: int
    seconds: float
    from_cache: bool
    path: Path


class PrimingCache:
    """Primings of one job, on disk, shared by its workers.

    A priming is found by everything that it depends on: weights, data and its order, batch, lengths, priming's own
    settings, steps and torch's version. A longer one continues the longest shorter one.

    Args:
        folder: of the cache; each job has a sub-folder in it.
        pretrained: the state that priming starts from, with its new head.
    """

    def __init__(
        self,
        folder: Path,
        job: JobSpec,
        layout: ModelLayout,
        pretrained: State,
        rows: list[list[int]],
        labels: list[int],
        pad_id: int,
        micro_batch_size: int | None = None,
    ) -> None:
        self.job, self.layout, self.pretrained = job, layout, pretrained
        self.rows, self.labels, self.pad_id = rows, labels, pad_id
        self.micro_batch_size = micro_batch_size
        identity = {**job.to_dict(), "torch": torch.__version__, "micro": micro_batch_size, "version": 2}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / key
        self._latest: Primed | None = None

    def get(self, model: nn.Module, epochs: float, progress: Callable[[str], None] | None = None) -> Primed:
        """The priming of ``epochs`` epochs, from the cache or run now on ``model`` (whose weights it overwrites)."""
        steps = steps_in(len(self.rows), self.job.batch_size, epochs)
        if self._latest is not None and self._latest.steps == steps:
            return dataclasses.replace(self._latest, from_cache=True)
        path = self.folder / f"{steps}.safetensors"
        # two workers never run the same priming: the second waits and reads
        lock = filelock.FileLock(self.folder / "lock")
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            found = self._read(path, steps)
            if found is None:
                if progress is not None:
                    progress(f"priming {steps} steps, kept for all trials")
                self._run(model, steps)
                found = self._read(path, steps, fresh=True)
        finally:
            lock.release()
        assert found is not None
        self._latest = found
        return found

    def _read(self, path: Path, steps: int, fresh: bool = False) -> Primed | None:
        tensors = load_tensors(path)
        if tensors is None:
            return None
        layers = range(len(self.layout.layers))
        parts = {name: [tensors.pop(f"{name}.{i}") for i in layers] for name in ("scores", "first_half", "second_half")}
        seconds = float(tensors.pop("seconds"))
        halves = (parts["first_half"], parts["second_half"])
        return Primed(tensors, parts["scores"], halves, steps, seconds, not fresh, path)

    def _run(self, model: nn.Module, steps: int) -> None:
        job, started = self.job, time.perf_counter()
        half = steps // 2
        done, before = self._restore(model, half)
        optimizer = make_optimizer(job.priming.optimizer, model, kernel="fused" if has_fused() else "loop")
        if done:
            _load_optimizer(optimizer, load_tensors(self._optimizer_path(done)) or {})
        whole_epochs = math.ceil(steps / steps_in(len(self.rows), job.batch_size, 1.0))
        batches = phase_batches([len(row) for row in self.rows], job.batch_size, whole_epochs, job.seed)
        rate = constant_rate(job.priming.learning_rate, job.priming.warmup_steps)

        def stretch(first: int, last: int) -> None:
            train(
                model, self.rows, self.labels, batches[first:last], optimizer, rate, self.pad_id, job.seed,
                self.micro_batch_size, first_step=first,
            )  # fmt: skip

        stretch(done, half)
        middle = _copy(model)
        stretch(half, steps)
        after = _copy(model)
        self._write(steps, middle, after, before + time.perf_counter() - started)
        save_tensors(self._optimizer_path(steps), _optimizer_tensors(optimizer))
        for old in self.folder.glob("*.optimizer"):
            if int(old.stem) < steps:
                old.unlink(missing_ok=True)

    def _restore(self, model: nn.Module, half: int) -> tuple[int, float]:
        """Put the longest priming that can be continued into ``model``: its steps, and the seconds it took.

        It must not be longer than half of the new one, whose middle is looked at.
        """
        known = sorted((int(path.stem) for path in self.folder.glob("*.optimizer")), reverse=True)
        for steps in known:
            tensors = load_tensors(self.folder / f"{steps}.safetensors")
            if steps <= half and tensors is not None and load_tensors(self._optimizer_path(steps)) is not None:
                model.load_state_dict({name: tensors[name] for name in self.pretrained})
                return steps, float(tensors["seconds"])
        model.load_state_dict(self.pretrained)
        return 0, 0.0

    def _optimizer_path(self, steps: int) -> Path:
        return self.folder / f"{steps}.optimizer"

    def _write(self, steps: int, middle: State, after: State, seconds: float) -> None:
        tensors: State = dict(after)
        for name, (start, end) in {
            "scores": (self.pretrained, after),
            "first_half": (self.pretrained, middle),
            "second_half": (middle, after),
        }.items():
            for i, scores in enumerate(neuron_scores(self.layout, start, end)):
                tensors[f"{name}.{i}"] = scores
        tensors["seconds"] = torch.tensor(seconds, dtype=torch.float64)
        save_tensors(self.folder / f"{steps}.safetensors", tensors)


def keep(primed: Primed, folder: Path) -> Path:
    """Make a priming outlive the cache: linked, or copied where links do not work, into ``folder``."""
    target = folder / f"{primed.path.parent.name}-{primed.path.name}"
    if not target.exists():
        with disk_errors(target):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                os.link(primed.path, target)
            except FileExistsError:
                pass
            except OSError:
                temporary = target.with_suffix(f".{os.getpid()}")
                shutil.copyfile(primed.path, temporary)
                os.replace(temporary, target)
    return target


def _copy(model: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> State:
    """The optimizer's state as flat tensors, by the number of the parameter."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    tensors = {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: State) -> None:
    state = optimizer.state_dict()
    for name, value in tensors.items():
        i, _, entry = name.partition(".")
        state["state"].setdefault(int(i), {})[entry] = value
    optimizer.load_state_dict(state)
