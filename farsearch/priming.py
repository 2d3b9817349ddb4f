"""Priming: the short full training before the selection, cached for all trials of a study.

Also the start state of the FAR phase, made from a priming and a selection.
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
from farsearch.far.split_linear import places_of
from farsearch.files import disk_errors, load_tensors, remove, save_tensors
from farsearch.records import FarConfig, JobSpec

__all__ = ["Primed", "PrimingCache", "retain", "start_state"]

State = dict[str, Tensor]

_SCORES = ("scores", "first_half", "second_half")
"""Tensors of each feed-forward block in a priming's file."""

_NOT_PRIMED = ("positive", "patience", "clip_norm")
"""Settings of a job that do not change its primings."""

_VERSION = 4
"""Version of primings and their files. It rises when an older file must not be read."""


@dataclass(frozen=True)
class Primed:
    """A primed model: its state, and the change of each neuron.

    Attributes:
        scores: L1 change of each neuron over the whole priming, ``[width]`` per feed-forward block.
        halves: the same over the first and over the second half of the steps.
        path: the file in the cache.
        seconds: duration on this host when it was run.
    """

    state: State
    scores: list[Tensor]
    halves: tuple[list[Tensor], list[Tensor]]
    steps: int
    seconds: float
    from_cache: bool
    path: Path

    def tensors(self) -> State:
        """Return all tensors by their names in a file."""
        parts = dict(zip(_SCORES, (self.scores, *self.halves), strict=True))
        scores = {f"{name}.{i}": value for name, blocks in parts.items() for i, value in enumerate(blocks)}
        return {**self.state, **scores, "seconds": torch.tensor(self.seconds, dtype=torch.float64)}


class PrimingCache:
    """Primings of one job on disk, shared by its workers.

    The key of a priming has everything that it depends on: weights, rows and their order, batch, settings, steps and
    torch's version. A longer priming continues the longest suitable shorter one. Files are mapped (``load_tensors``),
    so they need no second cache in memory.

    Args:
        folder: of the cache; each job has a sub-folder.
        pretrained: the state that priming starts from, with its new head.
        bound_mib: upper bound of all primings in ``folder``, without the one just written.
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
        # the identity of the texts does not include the tokenizer, which depends on the model's folder and a library
        # nor do weights of classes add to it: they follow from the rows and the job
        encoded = hashlib.sha256(json.dumps([rows[:3], pad_id]).encode()).hexdigest()
        more = {"rows": encoded, "torch": torch.__version__, "micro": micro_batch_size, "version": _VERSION}
        identity = {name: value for name, value in job.to_dict().items() if name not in _NOT_PRIMED}
        self._identity = {**identity, **more}
        self.root = folder
        self.folder = folder / hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()[:16]

    def get(self, model: nn.Module, epochs: float, progress: Callable[[str], None] | None = None) -> Primed:
        """Return the priming of ``epochs`` epochs, from the cache or by training ``model`` in place.

        Raises:
            MissingResource: when the cache can't be written.
            FloatingPointError: when the priming's loss is not finite.
        """
        steps = steps_in(len(self.rows.input_ids), self.job.batch_size, epochs)
        note = progress or (lambda _: None)
        primed = self._read(steps)
        if primed is None:
            # two workers never run the same priming: the second waits and reads
            with self._lock(steps, note):
                primed = self._read(steps)
                if primed is None:
                    primed = self._run(model, steps, note)
        if not primed.from_cache:
            trim(self.root, self.bound_mib, spare={primed.path, self._optimizer_path(steps)})
        touch(primed.path)
        return primed

    @contextmanager
    def _lock(self, steps: int, note: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock of a priming, which is released when a worker is killed."""
        path = self._path(steps, "lock")
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                note(f"another worker primes {steps} steps, waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _read(self, steps: int) -> Primed | None:
        """Read a priming; None where it is missing or does not match the model."""
        path = self._path(steps, "safetensors")
        tensors = load_tensors(path)
        if tensors is None or _kinds(tensors) != self._expected():
            return None
        parts = {name: [tensors.pop(f"{name}.{i}") for i in range(len(self.layout.blocks))] for name in _SCORES}
        seconds = float(tensors.pop("seconds"))
        halves = (parts["first_half"], parts["second_half"])
        return Primed(tensors, parts["scores"], halves, steps, seconds, True, path)

    def _expected(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Return shapes and types of a priming's tensors by name."""
        expected = _kinds(self.pretrained)
        for i, block in enumerate(self.layout.blocks):
            width = self.pretrained[f"{block.down}.weight"].shape[1:]
            expected.update({f"{name}.{i}": (width, torch.float64) for name in _SCORES})
        return {**expected, "seconds": (torch.Size(), torch.float64)}

    def _run(self, model: nn.Module, steps: int, note: Callable[[str], None]) -> Primed:
        job, half = self.job, steps // 2
        model.load_state_dict(self.pretrained)
        optimizer = make_optimizer(job.priming.optimizer, model, kernel="fused" if has_fused() else "loop")
        shorter = self._continue(model, optimizer, half, note)
        done, before = (0, 0.0) if shorter is None else (shorter.steps, shorter.seconds)
        note(f"priming {steps} steps, {f'{done} of them done before, ' if done else ''}cached for all trials")
        started = time.perf_counter()
        whole_epochs = math.ceil(steps / steps_in(len(self.rows.input_ids), job.batch_size, 1.0))
        batches = phase_batches(self.rows.lengths, job.batch_size, whole_epochs, job.seed)
        rate = constant_rate(job.priming.learning_rate, job.priming.warmup_steps)

        def train_steps(first: int, last: int) -> None:
            train(
                model, self.rows, batches[first:last], optimizer, rate, self.pad_id, job.seed, self.micro_batch_size,
                first_step=first,
            )  # fmt: skip

        train_steps(done, half)
        middle = _copy(model)
        train_steps(half, steps)
        after = _copy(model)
        first, second, whole = (
            neuron_scores(self.layout, start, end)
            for start, end in ((self.pretrained, middle), (middle, after), (self.pretrained, after))
        )
        path, seconds = self._path(steps, "safetensors"), before + time.perf_counter() - started
        made = Primed(after, whole, (first, second), steps, seconds, False, path)
        self._write(made, optimizer)
        # a mapped file needs no memory of its own; another worker may have removed it already
        mapped = self._read(steps)
        return made if mapped is None else dataclasses.replace(mapped, from_cache=False)

    def _continue(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, half: int, note: Callable[[str], None]
    ) -> Primed | None:
        """Load the longest priming that can be continued into model and optimizer, and return it.

        It is at most half as long as the new one, whose middle is scored. If another worker runs it, this one waits
        for its end, which is earlier than that of running its steps again. Only a longer priming waits for a shorter
        one, so there is no deadlock.
        """
        known = self._known("lock") | self._known("optimizer")
        for steps in sorted((steps for steps in known if steps <= half), reverse=True):
            with self._lock(steps, note):
                primed, tensors = self._read(steps), load_tensors(self._optimizer_path(steps))
            if primed is not None and tensors is not None and _fits(optimizer, tensors):
                # optimizer first: it is less useful than the weights, so it is removed before them
                touch(self._optimizer_path(steps), primed.path)
                model.load_state_dict(primed.state)
                _load_optimizer(optimizer, tensors)
                return primed
        return None

    def _known(self, kind: str) -> set[int]:
        """Return the numbers of steps with a file of this kind."""
        return {int(path.stem) for path in self.folder.glob(f"*.{kind}") if path.stem.isdecimal()}

    def _path(self, steps: int, kind: str) -> Path:
        return self.folder / f"{steps}.{kind}"

    def _optimizer_path(self, steps: int) -> Path:
        return self._path(steps, "optimizer")

    def _write(self, primed: Primed, optimizer: torch.optim.Optimizer) -> None:
        describe(self.folder, self._identity)
        optimizer_path = self._optimizer_path(primed.steps)
        for path, tensors in ((primed.path, primed.tensors()), (optimizer_path, _optimizer_tensors(optimizer))):
            if path.is_dir():  # not a file of the cache, and a file can't replace it
                remove(path)
            save_tensors(path, tensors)
        # the optimizers of shorter primings are large, and hardly ever continued
        for old in self._known("optimizer"):
            if old < primed.steps:
                remove(self._optimizer_path(old))


def retain(primed: Primed, folder: Path) -> Path:
    """Retain a priming in ``folder`` after it leaves the cache: link its file, or write it where that fails."""
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
    heads: Sequence[Sequence[int] | None] = (),
) -> State:
    """Return the start state of the FAR phase, in the original layout.

    Trained tensors have their primed values, frozen ones their pre-trained values unless ``frozen_values`` is
    ``primed``.

    Args:
        learners, heads: as ``apply_far`` takes them.
    """
    state = {name: value.clone() for name, value in primed.items()}
    if frozen_values == "primed":
        return state
    config = config.canonical()
    frozen = [f"{path}." for path in layout.bottom] if config.frozen_embeddings else []
    frozen += [f"{path}." for layer in layout.layers[: config.frozen_attention_layers] for path in layer.attention]
    frozen += [f"{layer.path}." for layer in layout.layers[: config.frozen_bottom_layers]]
    for name in state:
        if name.startswith(tuple(frozen)):
            state[name] = pretrained[name].clone()
    for block, chosen in zip(layout.blocks, learners, strict=True):
        if chosen is None:
            continue
        index = torch.tensor(chosen, dtype=torch.long)
        width = primed[f"{block.down}.weight"].shape[1]
        for name, dim in ((f"{block.up}.weight", 0), (f"{block.up}.bias", 0), (f"{block.down}.weight", 1)):
            if name not in primed:
                continue
            # a gated block has two rows per neuron: all first rows, then all second rows
            rows = torch.cat([index + start for start in range(0, primed[name].shape[dim], width)])
            learned = primed[name].index_select(dim, rows)
            state[name] = pretrained[name].clone().index_copy_(dim, rows, learned)
        if f"{block.down}.bias" in primed:
            state[f"{block.down}.bias"] = pretrained[f"{block.down}.bias"].clone()
    for layer, trained in zip(layout.layers, heads, strict=False):
        for each in layer.head_maps if trained is not None else ():
            places = places_of(primed[f"{each.path}.weight"].shape, layer.heads, trained or (), each)
            for name, ranges in (("weight", places.learners), ("bias", () if each.dim else places.learners)):
                key = f"{each.path}.{name}"
                if key in primed:
                    state[key] = pretrained[key].clone()
                    for start, stop in ranges:
                        trained_part, source = (
                            value.transpose(0, each.dim)[start:stop] for value in (state[key], primed[key])
                        )
                        trained_part.copy_(source)
    return state


def _kinds(tensors: State) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _copy(model: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> State:
    """Return the optimizer's state as tensors by ``PARAMETER.ENTRY``."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    tensors = {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def _fits(optimizer: torch.optim.Optimizer, tensors: State) -> bool:
    """Return whether these tensors are the state of all parameters of this optimizer, with their shapes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected: dict[str, torch.Size] = {}
    if isinstance(optimizer, torch.optim.AdamW):  # SGD without momentum has no state
        for i, parameter in enumerate(parameters):
            expected |= {f"{i}.exp_avg": parameter.shape, f"{i}.exp_avg_sq": parameter.shape, f"{i}.step": torch.Size()}
    return {name: value.shape for name, value in tensors.items()} == expected


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: State) -> None:
    state = optimizer.state_dict()
    for name, value in tensors.items():
        i, _, entry = name.partition(".")
        # a copy: steps change it in place, and the tensor is a mapped file
        state["state"].setdefault(int(i), {})[entry] = value.clone()
    optimizer.load_state_dict(state)
