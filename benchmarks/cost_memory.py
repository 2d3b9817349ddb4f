"""Memory: the peak of all tensors of a training step, predicted and measured by torch's profiler.

``cost_model.py`` runs selected steps of well-known models; ``python -m benchmarks.cost_memory --random N --seed S``
runs random ones of small models of all families, under all plans, with dropout on and off, and prints the errors.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click
import numpy as np
import torch
import transformers

from benchmarks.cost_models import MODULES, STORE, built, layers_of
from farsearch.calibration.check import StepCase
from farsearch.calibration.steps import peak_mib, ready_step
from farsearch.cost.plans import executable
from farsearch.cost.pricer import Pricer
from farsearch.devices.profile import Profile
from farsearch.devices.registry import load_profile
from farsearch.far.layout import ModelLayout
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import known_models
from farsearch.records import FarConfig, StepPlan

__all__ = [
    "BATCHES",
    "LENGTHS",
    "MemoryCase",
    "RandomStep",
    "counting_profile",
    "measure_peaks",
    "memory_cases",
    "random_steps",
    "this_host",
]

BATCHES = (1, 4, 16)
LENGTHS = (32, 128, 256)
Note = Callable[[str], None]


@dataclass(frozen=True)
class MemoryCase:
    """A step of a model with its predicted and measured peak in MiB."""

    model: str
    case: StepCase
    predicted_mib: float
    measured_mib: float

    @property
    def error(self) -> float:
        """Predicted by measured, less 1."""
        return self.predicted_mib / self.measured_mib - 1


def memory_cases(layers: int, batch_size: int, length: int) -> list[StepCase]:
    """Full fine-tuning, FAR at three uneven settings, frozen embeddings and attention, each policy, micro-batches."""
    rising = FarConfig(tuple(0.95 - 0.6 * i / layers for i in range(layers)), 1e-4, 1.0)
    falling = FarConfig(tuple(0.3 + 0.7 * i / (layers - 1) for i in range(layers)), 1e-4, 1.0)
    mixed = FarConfig(
        tuple((0.0, 0.9, 1.0, 0.5)[i % 4] for i in range(layers)), 1e-4, 1.0, 0.0, True, layers // 2, layers // 6
    )

    def variant(**changes: object) -> StepPlan:
        return dataclasses.replace(STORE, **changes)  # type: ignore[arg-type]

    ways = [
        ("full, modules", FarConfig((0.0,) * layers, 1e-4, 1.0), MODULES),
        ("FAR rising, modules", rising, MODULES),
        ("FAR falling, modules, SGD", falling, dataclasses.replace(MODULES, optimizer="sgd")),
        ("FAR mixed, more frozen, modules", mixed, MODULES),
        ("FAR rising, store", rising, STORE),
        ("FAR falling, recompute", falling, variant(feed_forward="recompute")),
        ("FAR mixed, more frozen, compact", mixed, variant(feed_forward="compact")),
        ("FAR rising, checkpointing", rising, variant(checkpointing=True, frozen_dtype="bfloat16")),
    ]
    if batch_size > 4:
        parts = variant(micro_batch_size=batch_size // 4, optimizer_step="end")
        ways.append(("FAR falling, store, micro-batches", falling, parts))
    return [StepCase(name, batch_size, length, config, plan) for name, config, plan in ways]


def counting_profile(profile: Profile) -> Profile:
    """Return the profile with the profiler's rules: exact bytes, and no workspace."""

    def exactly(value: float) -> Any:
        return dataclasses.replace(profile.allocator_block_bytes, value=value, low=value, high=value)

    return dataclasses.replace(profile, allocator_block_bytes=exactly(1.0), workspace_mib=exactly(0.0))


def this_host() -> Profile:
    """A profile of this host for memory, with the profiler's rules; its rates are another device's."""
    profile = counting_profile(load_profile("raspberry-pi-4"))
    version = ".".join(torch.__version__.split(".")[:2])
    return dataclasses.replace(profile, basis="calibrated", torch=version)


def measure_peaks(profile: Profile, models: Sequence[str], note: Note) -> list[MemoryCase]:
    """Predict and measure every case of every model, batch and length.

    Args:
        profile: of a device whose allocator counts as this host's profiler does.
    """
    cases = []
    for name in models:
        config, original, layout = built(name)
        start = time.monotonic()
        for batch_size in BATCHES:
            for length in LENGTHS:
                pricer = Pricer(config, Head(), batch_size, length, profile)
                for case in memory_cases(layers_of(name), batch_size, length):
                    predicted = pricer.price(case.config, case.plan).tensor_peak_mib
                    model = copy.deepcopy(original)
                    with ready_step(model, layout, case.config, case.plan, batch_size, length) as ready:
                        measured = peak_mib(ready.call, model, ready.optimizer)
                    cases.append(MemoryCase(name, case, predicted, measured))
                worst = max(abs(one.error) for one in cases)
                note(f"memory: {name} {batch_size} x {length}, {time.monotonic() - start:.0f} s, worst {worst:.3%}")
    return cases


FAMILIES = (
    "bert-base-uncased", "distilbert-base-uncased", "roberta-base", "xlm-roberta-base", "camembert-base",
    "google/electra-small-discriminator", "microsoft/mpnet-base", "microsoft/deberta-v3-small",
    "google/mobilebert-uncased", "answerdotai/ModernBERT-base",
)  # fmt: skip
"""A known model of each model type."""

_DROPOUTS = {"on": (0.1, 0.1), "off": (0.0, 0.0), "attention off": (0.1, 0.0), "attention alone": (0.0, 0.1)}
"""Dropout probabilities of hidden values and of attention."""


@dataclass(frozen=True)
class RandomStep:
    """A step of a small model with random settings."""

    model: str
    dropout: str
    model_config: Any
    batch_size: int
    length: int
    config: FarConfig
    plan: StepPlan

    def measured_mib(self) -> float:
        """Return the peak of all tensors, measured by the profiler."""
        model, layout = build_model(self.model_config, Head())
        with ready_step(model, layout, self.config, self.plan, self.batch_size, self.length) as ready:
            return peak_mib(ready.call, model, ready.optimizer)

    def predicted_mib(self, profile: Profile) -> float:
        """Return the predicted peak, with the profiler's rules."""
        pricer = Pricer(self.model_config, Head(), self.batch_size, self.length, profile)
        return pricer.price(self.config, self.plan).tensor_peak_mib


def random_steps(count: int, seed: int) -> Iterator[RandomStep]:
    """Yield random steps of all families in turn, drawn by ``seed``."""
    draw = random.Random(seed)
    for i in range(count):
        name, dropout = FAMILIES[i % len(FAMILIES)], draw.choice(list(_DROPOUTS))
        model_config = _small_config(name, *_DROPOUTS[dropout], draw)
        layers = int(model_config.num_hidden_layers)
        config = FarConfig(
            tuple(draw.choice((0.0, 0.05, 0.5, 0.9, 1.0)) for _ in range(layers)), 1e-4, 1.0,
            frozen_embeddings=draw.random() < 0.3,
            frozen_attention_layers=draw.choice((0, 0, draw.randint(0, layers))),
            frozen_bottom_layers=draw.choice((0, 0, draw.randint(0, layers))),
        )  # fmt: skip
        batch_size = draw.randint(2, 20)
        plan = _random_plan(batch_size, draw, layout_of(model_config))
        yield RandomStep(name, dropout, model_config, batch_size, 2 * draw.randint(4, 110), config, plan)


def _small_config(name: str, hidden_dropout: float, attention_dropout: float, draw: random.Random) -> Any:
    """The configuration of a known model with a few narrow layers and a small vocabulary."""
    values = dict(known_models()[name])
    heads, layers, neurons = draw.choice((1, 2, 4)), draw.randint(2, 5), draw.choice((64, 200, 264, 520))
    hidden = heads * draw.choice((16, 32, 64))
    sizes = {
        "vocab_size": draw.choice((300, 1000, 6000)), "hidden_size": hidden, "dim": hidden,
        "num_hidden_layers": layers, "n_layers": layers, "num_attention_heads": heads, "n_heads": heads,
        "intermediate_size": neurons, "hidden_dim": neurons, "pooler_hidden_size": hidden,
        "max_position_embeddings": 300,
        "embedding_size": 2 * draw.randint(8, 24), "position_buckets": draw.choice((16, 64, 256)),
        "local_attention": draw.choice((16, 64)),
    }  # fmt: skip
    if "intra_bottleneck_size" in values:
        sizes.update(hidden_size=2 * hidden, intra_bottleneck_size=hidden)
    values.update({name: value for name, value in sizes.items() if name in values})
    for key in values:
        if "dropout" in key:
            values[key] = attention_dropout if "att" in key else hidden_dropout
        elif key.endswith("_token_id"):
            values[key] = values[key] if values[key] < 300 else 2
    values["pad_token_id"] = 0 if name != "roberta-base" else values["pad_token_id"]
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)


def _random_plan(batch_size: int, draw: random.Random, layout: ModelLayout) -> StepPlan:
    """Draw a plan: ordinary modules or farsearch's own step, moment of the optimizer's step, micro-batches."""
    optimizers: tuple[Literal["adamw", "sgd"], ...] = ("adamw", "adamw", "sgd")
    kernels: tuple[Literal["loop", "foreach", "fused"], ...] = ("loop", "foreach", "fused")
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "float32", "bfloat16")
    optimizer = draw.choice(optimizers)
    micro = draw.choice((None, draw.randint(1, batch_size - 1)))
    if draw.random() < 0.3:
        kernel = draw.choice(kernels)
        return dataclasses.replace(MODULES, optimizer=optimizer, optimizer_kernel=kernel, micro_batch_size=micro)
    lean = dataclasses.replace(
        STORE,
        optimizer=optimizer,
        feed_forward=draw.choice(("store", "recompute", "compact")),
        checkpointing=draw.random() < 0.3,
        optimizer_kernel=draw.choice(("loop", "fused")),
        optimizer_step="end" if micro is not None else draw.choice(("end", "backward")),
        micro_batch_size=micro,
    )
    plan, frozen_dtype = executable(lean, layout), draw.choice(dtypes)
    return plan if plan.feed_forward == "modules" else dataclasses.replace(plan, frozen_dtype=frozen_dtype)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--random", "count", type=click.IntRange(min=1), default=200, help="Steps to measure.")
@click.option("--seed", type=int, default=0, help="Of the random settings.")
def main(count: int, seed: int) -> None:
    """Measure random steps of small models of all families, and print the errors of the predicted peaks."""
    profile = this_host()
    errors = []
    for step in random_steps(count, seed):
        predicted, measured = step.predicted_mib(profile), step.measured_mib()
        errors.append(predicted / measured - 1)
        click.echo(
            f"{errors[-1]:+.3%}  {predicted:.3f} MiB predicted, {measured:.3f} measured: {step.model}, dropout "
            f"{step.dropout}, {step.batch_size} x {step.length}, {step.config}, {step.plan}"
        )
    absolute = np.abs(errors)
    quantiles = ", ".join(f"{share:.0%} within {np.quantile(absolute, share):.4%}" for share in (0.5, 0.9, 0.99))
    click.echo(f"{count} steps: mean {absolute.mean():.4%}, {quantiles}, worst {absolute.max():.4%}")


if __name__ == "__main__":
    main()
