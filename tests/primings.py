"""Primings of a tiny model, as workers request them."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from farsearch.far.features import Features
from farsearch.far.layout import ModelLayout
from farsearch.priming import Primed, PrimingCache
from farsearch.records import JobSpec, Priming
from tests.tiny import make_model

__all__ = ["JOB", "ROWS", "make_cache", "network", "prime", "same", "start_of"]

_IDS = [[2, *(random.Random(i).randrange(5, 300) for _ in range(2 + i % 9)), 3] for i in range(40)]
ROWS = Features(_IDS, [i % 2 for i in range(40)])

JOB = JobSpec(
    task="sst2",
    data="9f" * 32,
    model="tiny",
    weights="53" * 32,
    train_samples=40,
    validation_samples=8,
    batch_size=8,
    max_length=16,
    seed=1,
    priming=Priming(learning_rate=1e-3, warmup_steps=2),
)
"""Five steps per epoch."""


@cache
def _made(family: str) -> tuple[nn.Module, ModelLayout, dict[str, Tensor]]:
    model, layout = make_model(family)
    return model, layout, {name: value.clone() for name, value in model.state_dict().items()}


def network(family: str = "bert") -> tuple[nn.Module, ModelLayout]:
    """Return a tiny model that primings overwrite."""
    return _made(family)[:2]


def start_of(family: str = "bert") -> dict[str, Tensor]:
    """Return the weights that every priming starts from."""
    return _made(family)[2]


def make_cache(folder: Path, job: JobSpec = JOB, family: str = "bert", **settings: Any) -> PrimingCache:
    """Open the cache as a new worker. ``settings`` are those of ``PrimingCache``."""
    settings = {"rows": ROWS, "pad_id": 0, **settings}
    return PrimingCache(folder, job, network(family)[1], start_of(family), **settings)


def prime(
    folder: Path,
    epochs: float,
    job: JobSpec = JOB,
    notes: list[str] | None = None,
    family: str = "bert",
    **settings: Any,
) -> Primed:
    """Return a priming as a new worker gets it. ``notes`` grow only if steps are run."""
    cache = make_cache(folder, job, family, **settings)
    return cache.get(network(family)[0], epochs, None if notes is None else notes.append)


def same(one: Primed, other: Primed) -> bool:
    """Return whether weights and all scores are equal, bit by bit."""
    first, second = one.tensors(), other.tensors()
    names = set(first) - {"seconds"}
    assert names == set(second) - {"seconds"}
    return one.steps == other.steps and all(torch.equal(first[name], second[name]) for name in names)
