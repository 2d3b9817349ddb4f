"""Priming: the short full training before the selection, and the cache that lets one serve all trials of a study.

And the state that the FAR phase starts from, which a priming and a selection make.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor, nn

from farsearch.cache import BOUND_MIB, describe, touch, trim
from farsearch.far.batches import phase_batches, steps_in
from farsearch.far.features import Features
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import train
from farsearch.far.optimizer import has_fused, make_optimizer
from farsearch.far.schedule import constant_rate
from farsearch.far.selection import neuron_scores
from farsearch.files import disk_errors, load_tensors, remove, save_tensors
from farsearch.records import FarConfig, JobSpec

__all__ = ["Primed", "PrimingCache", "keep", "start_state"]

State = dict[str, Tensor]

_SCORES = ("scores", "first_half", "second_half")
"""Of each feed-forward block, as a priming's file names them."""

_VERSION = 4
"""Of what a priming is and how its file is laid out. It rises when an older file must not be read."""


@dataclass(frozen=True)
class Primed:
    """A primed model: its state, and how much each neuron moved.

    Attributes:
        scores: L1 change of each neuron over the whole priming, ``[width]`` a feed-forward block.
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

    def tensors(self) -> State:
        """All of it under names of their own, as a file holds it."""
        parts = dict(zip(_SCORES, (self.scores, *self.halves), strict=True))
        scores = {f"{name}.{i}": value for name, blocks in parts.items() for i, value in enumerate(blocks)}
        return {**self.state, **scores, "seconds": torch.tensor(self.seconds, dtype=torch.float64)}


class PrimingCache:
    """Primings of one job, on disk, shared by its workers.

    A priming is found by everything that it depends on: weights, rows and their order, batch, priming's own settings,
    steps and torch's version. A longer one continues the longest shorter one. Files are mapped (``load_tensors``), so
    there is no second cache in memory.

    Args:
        folder: of the cache; each job has a sub-folder in it.
        pretrained: the state that priming starts from, with its new head.
        bound_mib: what the primings of all jobs in ``folder`` may take, but for the one just written.
    """

    def __init__(
        self,
        folder: Path,
        job: JobSpec,
        layout: ModelLayout,
        pretrained: State,
        rows: Features,
        pad_id: int,
        micro_batch_size: int | None = None,
        bound_mib: float = BOUND_MIB,
    ) -> None:
        self.job, self.layout, self.pretrained = job, layout, pretrained
        self.rows, self.pad_id = rows, pad_id
        self.micro_batch_size, self.bound_mib = micro_batch_size, bound_mib
        # the texts' identity says nothing of the tokenizer, which comes with a model's folder and a library's version
        encoded = hashlib.sha256(json.dumps([rows, pad_id]).encode()).hexdigest()
        more = {"rows": encoded, "torch": torch.__version__, "micro": micro_batch_size, "version": _VERSION}
        # the class that F1 is of changes no training
        identity = {name: value for name, value in job.to_dict().items() if name != "positive"}
        self._identity = {**identity, **more}
        self.root = folder
        self.folder = folder / hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()[:16]

    def get(self, model: nn.Module, epochs: float, progress: Callable[[str], None] | None = None) -> Primed:
        """The priming of ``epochs`` epochs, from the cache or run now on ``model`` (whose weights it overwrites).

        Raises:
            MissingResource: when the cache can't be written.
            FloatingPointError: when the priming's loss is not finite.
        """
        steps = steps_in(len(self.rows.input_ids), self.job.batch_size, epochs)
        tell = progress or (lambda _: None)
        found = self._read(steps)
        if found is None:
            # two workers never run the same priming: the second waits and reads
            with self._alone(steps, tell):
                found = self._read(steps)
                if found is None:
                    found = self._run(model, steps, tell)
        if not found.from_cache:
            trim(self.root, self.bound_mib, spare={found.path, self._optimizer_path(steps)})
        touch(found.path)
        return found

    @contextmanager
    def _alone(self, steps: int, tell: Callable[[str], None]) -> Iterator[None]:
        """No other worker runs this priming. The lock of one that was killed is free."""
        path = self._path(steps, "lock")
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                tell(f"another worker primes {steps} steps, waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _read(self, steps: int) -> Primed | None:
        """A priming from the disk; None where there is none, or none that fits the model."""
        path = self._path(steps, "safetensors")
        tensors = load_tensors(path)
        if tensors is None or _kinds(tensors) != self._expected():
            return None
        parts = {name: [tensors.pop(f"{name}.{i}") for i in range(len(self.layout.blocks))] for name in _SCORES}
        seconds = float(tensors.pop("seconds"))
        halves = (parts["first_half"], parts["second_half"])
        return Primed(tensors, parts["scores"], halves, steps, seconds, True, path)

    def _expected(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Names, shapes and types of a priming's tensors."""
        expected = _kinds(self.pretrained)
        for i, block in enumerate(self.layout.blocks):
            width = self.pretrained[f"{block.down}.weight"].shape[1:]
            expected.update({f"{name}.{i}": (width, torch.float64) for name in _SCORES})
        return {**expected, "seconds": (torch.Size(), torch.float64)}

    def _run(self, model: nn.Module, steps: int, tell: Callable[[str], None]) -> Primed:
        job, half = self.job, steps // 2
        model.load_state_dict(self.pretrained)
        optimizer = make_optimizer(job.priming.optimizer, model, kernel="fused" if has_fused() else "loop")
        shorter = self._continue(model, optimizer, half, tell)
        done, before = (0, 0.0) if shorter is None else (shorter.steps, shorter.seconds)
        tell(f"priming {steps} steps, {f'{done} of them done before, ' if done else ''}kept for all trials")
        started = time.perf_counter()
        whole_epochs = math.ceil(steps / steps_in(len(self.rows.input_ids), job.batch_size, 1.0))
        batches = phase_batches(self.rows.lengths, job.batch_size, whole_epochs, job.seed)
        rate = constant_rate(job.priming.learning_rate, job.priming.warmup_steps)

        def stretch(first: int, last: int) -> None:
            train(
                model, self.rows, batches[first:last], optimizer, rate, self.pad_id, job.seed, self.micro_batch_size,
                first_step=first,
            )  # fmt: skip

        stretch(done, half)
        middle = _copy(model)
        stretch(half, steps)
        after = _copy(model)
        first, second, whole = (
            neuron_scores(self.layout, start, end)
            for start, end in ((self.pretrained, middle), (middle, after), (self.pretrained, after))
        )
        path, seconds = self._path(steps, "safetensors"), before + time.perf_counter() - started
        made = Primed(after, whole, (first, second), steps, seconds, False, path)
        self._write(made, optimizer)
        # what is mapped costs no memory of its own; what another worker has removed already is still here
        found = self._read(steps)
        return made if found is None else dataclasses.replace(found, from_cache=False)

    def _continue(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, half: int, tell: Callable[[str], None]
    ) -> Primed | None:
        """Put the longest priming that can be continued into model and optimizer, and return it.

        It must not be longer than half of the new one, whose middle is looked at. If another worker is at it, its end
        is waited for: that is never later than to run its steps once more, because it has begun. Only a longer one
        waits for a shorter one, so that no two wait for each other.
        """
        known = self._known("lock") | self._known("optimizer")
        for steps in sorted((steps for steps in known if steps <= half), reverse=True):
            with self._alone(steps, tell):
                primed, tensors = self._read(steps), load_tensors(self._optimizer_path(steps))
            if primed is not None and tensors is not None and _fits(optimizer, tensors):
                # the optimizer first: it is of less use than the weights, so it goes before them
                touch(self._optimizer_path(steps), primed.path)
                model.load_state_dict(primed.state)
                _load_optimizer(optimizer, tensors)
                return primed
        return None

    def _known(self, kind: str) -> set[int]:
        """The steps of which there is a file of this kind."""
        return {int(path.stem) for path in self.folder.glob(f"*.{kind}") if path.stem.isdecimal()}

    def _path(self, steps: int, kind: str) -> Path:
        return self.folder / f"{steps}.{kind}"

    def _optimizer_path(self, steps: int) -> Path:
        return self._path(steps, "optimizer")

    def _write(self, primed: Primed, optimizer: torch.optim.Optimizer) -> None:
        describe(self.folder, self._identity)
        optimizer_path = self._optimizer_path(primed.steps)
        for path, tensors in ((primed.path, primed.tensors()), (optimizer_path, _optimizer_tensors(optimizer))):
            if path.is_dir():  # nothing of ours, and a file can't take its place
                remove(path)
            save_tensors(path, tensors)
        # those of shorter ones would hardly be gone on from, and are large
        for old in self._known("optimizer"):
            if old < primed.steps:
                remove(self._optimizer_path(old))


def keep(primed: Primed, folder: Path) -> Path:
    """Make a priming outlive the cache: linked into ``folder``, or written there where it can't be linked.

    It can't where links do not work, and where it has left the cache since it was read.
    """
    target = folder / f"{primed.path.parent.name}-{primed.path.name}"
    if load_tensors(target) is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.link(primed.path, target)
        except OSError:
            save_tensors(target, primed.tensors())
    return target


def start_state(
    layout: ModelLayout,
    pretrained: State,
    primed: State,
    learners: Sequence[Sequence[int] | None],
    config: FarConfig,
    frozen_values: str,
) -> State:
    """The state that the FAR phase starts from, in the original layout.

    What is trained starts from its primed values; what is frozen has its pre-trained ones, unless ``frozen_values``
    is ``primed``.
    """
    state = {name: value.clone() for name, value in primed.items()}
    if frozen_values == "primed":
        return state
    config = config.canonical()
    back = [f"{path}." for path in layout.bottom] if config.frozen_embeddings else []
    back += [f"{path}." for layer in layout.layers[: config.frozen_attention_layers] for path in layer.attention]
    back += [f"{layer.path}." for layer in layout.layers[: config.frozen_bottom_layers]]
    for name in state:
        if name.startswith(tuple(back)):
            state[name] = pretrained[name].clone()
    for block, chosen in zip(layout.blocks, learners, strict=True):
        if chosen is None:
            continue
        index = torch.tensor(chosen, dtype=torch.long)
        width = primed[f"{block.down}.weight"].shape[1]
        for name, dim in ((f"{block.up}.weight", 0), (f"{block.up}.bias", 0), (f"{block.down}.weight", 1)):
            if name not in primed:
                continue
            # a gated block has two rows a neuron, the second ones behind all the first
            here = torch.cat([index + start for start in range(0, primed[name].shape[dim], width)])
            learned = primed[name].index_select(dim, here)
            state[name] = pretrained[name].clone().index_copy_(dim, here, learned)
        if f"{block.down}.bias" in primed:
            state[f"{block.down}.bias"] = pretrained[f"{block.down}.bias"].clone()
    return state


def _kinds(tensors: State) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _copy(model: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> State:
    """The optimizer's state as flat tensors, by the number of the parameter."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    tensors = {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def _fits(optimizer: torch.optim.Optimizer, tensors: State) -> bool:
    """Whether these tensors are the state of all parameters of such an optimizer, each in its shape."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected: dict[str, torch.Size] = {}
    if isinstance(optimizer, torch.optim.AdamW):  # SGD without momentum keeps nothing
        for i, parameter in enumerate(parameters):
            expected |= {f"{i}.exp_avg": parameter.shape, f"{i}.exp_avg_sq": parameter.shape, f"{i}.step": torch.Size()}
    return {name: value.shape for name, value in tensors.items()} == expected


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: State) -> None:
    state = optimizer.state_dict()
    for name, value in tensors.items():
        i, _, entry = name.partition(".")
        # the steps change it in place, and it is a file's
        state["state"].setdefault(int(i), {})[entry] = value.clone()
    optimizer.load_state_dict(state)
