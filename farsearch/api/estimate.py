"""Predicted memory and time of a configuration, or of a whole search space, on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from farsearch.api import HOME
from farsearch.api.own_rows import OwnRows
from farsearch.calibration.local import engine_profiles, find_profile
from farsearch.cost.breakdown import CostBreakdown, cost_breakdown, device_plans
from farsearch.cost.pricer import Price, Pricer
from farsearch.cost.sweep import Sweep, price_space
from farsearch.cost.traced_model import shared_tables
from farsearch.errors import BadInput
from farsearch.goals import Goal
from farsearch.models.config import load_config
from farsearch.models.families import layout_of, max_length_of
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.records import PER_LAYER, Engines, FarConfig, Precision

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
    engine: Engines = "torch",
    precision: Precision = "float32",
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
        plan: goal of the step plan; None for ordinary modules, or, in 16 bits, the plan that saves most tensors.
        micro_batch_size: rows of one forward pass; None for the whole batch.
        prime_on_device: include the priming, with gradient descent in micro-batches.
        engine: ``torch``, ``onnx`` without torch on the board's CPU, or the better one of ``any``.
        precision: of the layers; ``bfloat16`` and ``float16`` are not exact, and need a device that has them.
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
        precision=precision,
    )  # fmt: skip
    return breakdown_of(pricer, config, plan, optimizer, micro_batch_size, features_of(samples, rows)).cost


def breakdown_of(
    pricer: Pricer,
    config: FarConfig,
    goal: Goal | None,
    optimizer: Literal["adamw", "sgd"],
    micro_batch_size: int | None,
    samples: int | None,
) -> CostBreakdown:
    """Return the cost of a configuration by phase, under the best plan of the pricer's engines for a goal.

    Args:
        goal: None for the plan of ``ordinary_plans``.
        samples: sequences of an epoch; None for a single step.

    Raises:
        BadInput: as ``device_plans`` and ``cost_breakdown``, and for a model that can't be compiled.
    """
    plans = device_plans(pricer, goal, optimizer, micro_batch_size)
    return cost_breakdown(pricer, config, plans, goal, samples)


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
    engine: Engines | None = None,
    precision: Precision = "float32",
    revision: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Sweep:
    """Price a whole space on a device under all its exact step plans and ordinary modules.

    Args:
        space: name of a space, or path of its file.
        samples: rows of one epoch, each at full length; None for a single step.
        rows: as in ``estimate``.
        engine: whose plans are priced; None for all that the device's profile has figures of and that have the
            precision.
        precision: as in ``estimate``.
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
    engine = engine or ("any" if precision == "float32" else "torch")
    pricer = pricer_for(
        device, model, batch_size=batch_size, max_length=max_length, classes=classes, samples=samples,
        prime_on_device=prime_on_device, revision=revision, progress=progress, rows=rows, engine=engine,
        precision=precision,
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
    engine: Engines = "torch",
    precision: Precision = "float32",
) -> Pricer:
    """Return the cost model of ``estimate``, with its arguments and errors."""
    settings = _config_of(model, revision, progress)
    limit, head = max_length_of(settings), Head(outputs=classes) if rows is None else rows.head
    batch_size = rows.batch_size if rows is not None else batch_size or _BATCH_SIZE
    max_length = rows.max_length if rows is not None else max_length or _MAX_LENGTH
    if max_length > limit:
        raise BadInput(f"`max_length` is {max_length}; {model} takes at most {limit} tokens")
    if engine == "onnx" and prime_on_device:
        raise BadInput("priming needs torch; leave out `prime_on_device`, or choose the `engine` torch")
    device_profile = find_profile(device, HOME, progress)
    equal = None if samples is None else [max_length] * samples
    return Pricer(
        settings,
        head,
        batch_size,
        max_length,
        device_profile,
        engines=engine_profiles(device_profile, engine, HOME),
        lengths=equal if rows is None else rows.lengths,
        device_samples=None if rows is None else features_of(samples, rows),
        prime_on_device=prime_on_device,
        priming_optimizer="sgd",
        precision=precision,
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
