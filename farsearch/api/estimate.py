"""Predicted memory and time of a configuration, or of a whole search space, on a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from farsearch.api import HOME
from farsearch.api.own_rows import OwnRows
from farsearch.calibration.local import find_engine_profile, find_profile
from farsearch.cost.breakdown import CostBreakdown, cost_breakdown, device_plans
from farsearch.cost.plans import for_engine
from farsearch.cost.pricer import Price, Pricer
from farsearch.cost.sweep import Sweep, price_space
from farsearch.cost.traced_model import shared_tables
from farsearch.errors import BadInput
from farsearch.far.batches import steps_in
from farsearch.goals import Goal
from farsearch.models.config import load_config
from farsearch.models.families import layout_of, max_length_of
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.records import PER_LAYER, Engine, FarConfig

__all__ = ["breakdown_of", "estimate", "features_of", "frozen_config", "pricer_for", "sweep"]

_BATCH_SIZE, _MAX_LENGTH = 16, 128
"""Of a batch without rows of its own."""


def estimate(
    device: str,
    model: str,
    config: FarConfig | None = None,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    classes: int = 2,
    samples: int | None = None,
    rows: OwnRows | None = None,
    plan: Goal | None = None,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    micro_batch_size: int | None = None,
    prime_on_device: bool = False,
    engine: Engine = "torch",
    revision: str | None = None,
    progress: Callable[[str], None] | None = None,
    **frozen: Any,
) -> Price:
    """Predict the memory and time of fine-tuning on a device. Needs no weights, and no network for known models.

    Args:
        device: name of a profile, or path of a profile's file.
        config: the configuration; None for one made of ``frozen``: ``frozen_fraction`` and ``frozen_heads`` (one
            number each, or one a layer), the other frozen parts of ``FarConfig``, and ``priming_epochs``.
        batch_size, max_length: None for 16 rows of 128 tokens; those of ``rows`` are used instead.
        classes: outputs of the head, where there are no ``rows``.
        samples: rows of one epoch, each at full length; None for a single step.
        rows: your own, by ``read_own_rows``: their head, lengths and number, unless ``samples`` is another number.
        plan: goal of the step plan; None for ordinary modules.
        micro_batch_size: rows of one forward pass; None for the whole batch.
        prime_on_device: include the priming, with gradient descent in micro-batches.
        engine: ``torch``, or ``onnx`` without torch on the board's CPU, for which the step is compiled.
        revision: branch, tag or commit of a hub model.
        progress: reports the calibration of the device ``local``.

    Raises:
        BadInput: for an unknown device, or values that the model or the engine does not support.
        MissingResource: when the model's configuration can't be read.
    """
    if config is None:
        config = frozen_config(model, frozen, revision)
    pricer = pricer_for(
        device, model, batch_size=batch_size, max_length=max_length, classes=classes, samples=samples,
        prime_on_device=prime_on_device, revision=revision, progress=progress, rows=rows, engine=engine,
    )  # fmt: skip
    return breakdown_of(
        pricer, engine, model, config, plan, optimizer, micro_batch_size, features_of(samples, rows), revision
    ).cost


def breakdown_of(
    pricer: Pricer,
    engine: Engine,
    model: str,
    config: FarConfig,
    goal: Goal | None,
    optimizer: Literal["adamw", "sgd"],
    micro_batch_size: int | None,
    samples: int | None,
    revision: str | None,
) -> CostBreakdown:
    """Return the cost of a configuration by phase, under the best plan of an engine for a goal.

    Args:
        pricer: of ``pricer_for`` with this engine.
        goal: None for ordinary modules; of a compiled step, ``memory`` recomputes the feed-forward blocks.
        samples: sequences of an epoch; None for a single step.

    Raises:
        BadInput: as ``device_plans`` and ``cost_breakdown``; without torch for priming, or what can't be compiled.
        MissingResource: for a compiled step without the extra ``onnx``.
    """
    plans = device_plans(pricer, goal if engine == "torch" else None, optimizer, micro_batch_size)
    if engine == "torch":
        return cost_breakdown(pricer, config, plans, goal, samples)
    from farsearch.bundle.onnx import check_packages

    check_packages()
    from farsearch.graph.price import price_compiled

    if pricer.prime_on_device and config.priming_epochs:
        raise BadInput("priming needs torch; leave out `prime_on_device`, or choose the `engine` torch")
    settings = _config_of(model, revision, None)
    wanted = dataclasses.replace(plans[0], feed_forward="recompute" if goal == "memory" else "store")
    plan = for_engine(wanted, engine, layout_of(settings))
    cost = price_compiled(pricer, settings, pricer.head, config, plan)
    steps = 1 if samples is None else steps_in(samples, pricer.batch_size, config.epochs)
    return CostBreakdown(cost, plan, {"training": steps}, {"training": cost})


def sweep(
    device: str,
    model: str,
    space: str = "default",
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    classes: int = 2,
    samples: int | None = None,
    rows: OwnRows | None = None,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    micro_batch_size: int | None = None,
    prime_on_device: bool = False,
    configurations: int = 10_000,
    seed: int = 0,
    revision: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Sweep:
    """Price a whole space on a device under all its exact step plans and ordinary modules.

    Args:
        space: name of a space, or path of its file.
        samples: rows of one epoch, each at full length; None for a single step.
        rows: as in ``estimate``.
        configurations: number of seeded draws from the space, beside its corners; duplicates are priced once.
        revision: branch, tag or commit of a hub model.
        progress: reports each step.

    Raises:
        BadInput: for an unknown device or space, or values that the model does not support.
        MissingResource: when the model's configuration can't be read.
    """
    # imported here: a single estimate needs no optuna, which takes a second
    from farsearch.study.random_configs import draw_configs
    from farsearch.study.space import load_space

    if prime_on_device and samples is None and rows is None:
        raise BadInput("priming on the device needs the number of rows of an epoch; give `samples`")
    layers = len(layout_of(_config_of(model, revision, progress)).layers)
    configs = draw_configs(load_space(space), layers, configurations, seed, priming=prime_on_device)
    pricer = pricer_for(
        device, model, batch_size=batch_size, max_length=max_length, classes=classes, samples=samples,
        prime_on_device=prime_on_device, revision=revision, progress=progress, rows=rows,
    )  # fmt: skip
    goals: tuple[Goal | None, ...] = (None, "time")
    plans = [plan for goal in goals for plan in device_plans(pricer, goal, optimizer, micro_batch_size)]
    return price_space(pricer, configs, list(dict.fromkeys(plans)), progress or (lambda _: None))


def pricer_for(
    device: str,
    model: str,
    *,
    batch_size: int | None,
    max_length: int | None,
    classes: int,
    samples: int | None,
    prime_on_device: bool,
    revision: str | None,
    progress: Callable[[str], None] | None,
    rows: OwnRows | None,
    engine: Engine = "torch",
) -> Pricer:
    """Return the cost model of ``estimate``, with its arguments and errors."""
    settings = _config_of(model, revision, progress)
    limit, head = max_length_of(settings), Head(outputs=classes) if rows is None else rows.head
    batch_size = rows.batch_size if rows is not None else batch_size or _BATCH_SIZE
    max_length = rows.max_length if rows is not None else max_length or _MAX_LENGTH
    if max_length > limit:
        raise BadInput(f"`max_length` is {max_length}; {model} takes at most {limit} tokens")
    equal = None if samples is None else [max_length] * samples
    return Pricer(
        settings,
        head,
        batch_size,
        max_length,
        find_engine_profile(find_profile(device, HOME, progress), engine, HOME),
        lengths=equal if rows is None else rows.lengths,
        device_samples=None if rows is None else features_of(samples, rows),
        prime_on_device=prime_on_device,
        priming_optimizer="sgd",
        tables=shared_tables(settings, head),
    )


def features_of(samples: int | None, rows: OwnRows | None) -> int | None:
    """Return the sequences of an epoch of ``samples`` rows, by default all of ``rows``; None for a single step."""
    return samples if rows is None else rows.features(rows.count if samples is None else samples)


def _config_of(model: str, revision: str | None, note: Callable[[str], None] | None) -> Any:
    return load_config(resolve_model(model, revision=revision, note=note), with_known=True)


def frozen_config(model: str, frozen: Mapping[str, Any], revision: str | None = None) -> FarConfig:
    """Return the configuration of ``estimate``'s ``frozen`` arguments for a model.

    Raises:
        BadInput: for fractions of another number of layers.
    """
    frozen = dict(frozen)
    layers = len(layout_of(_config_of(model, revision, None)).layers)
    frozen.setdefault("frozen_fraction", 0.0)
    for key, field in PER_LAYER.items():
        if key not in frozen:
            continue
        given = frozen.pop(key)
        shares = tuple(given) if isinstance(given, Sequence) else (given,)
        if len(shares) not in (1, layers):
            raise BadInput(f"{key} has {len(shares)} values; {model} has {layers} layers, give 1 or {layers}")
        frozen[field] = tuple(float(share) for share in shares) * (layers if len(shares) == 1 else 1)
    return FarConfig.from_dict({"learning_rate": 1e-4, "epochs": 1.0, **frozen})
