"""Predicted memory and time of a training on a device, on all devices, or of a whole search space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from farsearch.api import HOME
from farsearch.api.cost_query import CostQuery, layers_of, pricer_for, query_of
from farsearch.api.own_rows import OwnRows
from farsearch.cost.breakdown import device_plans
from farsearch.cost.largest import largest_batch as largest_fitting
from farsearch.cost.pricer import Price
from farsearch.cost.sweep import Sweep, price_space
from farsearch.devices import Profile, load_profiles
from farsearch.errors import BadInput, ProfileError
from farsearch.goals import Goal
from farsearch.records import Engines, FarConfig, StepPlan

__all__ = ["RankedDevice", "estimate", "largest_batch", "largest_of", "rank_devices", "ranked", "sweep"]


def estimate(
    device: str,
    model: str,
    config: FarConfig | None = None,
    *,
    method: str | None = None,
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
    revision: str | None = None,
    progress: Callable[[str], None] | None = None,
    **frozen: Any,
) -> Price:
    """Predict the memory and time of fine-tuning on a device. Needs no weights, and no network for known models.

    Args:
        device: name of a profile, or path of a profile's file.
        config: the configuration; None for one made of ``frozen``: ``frozen_fraction`` and ``frozen_heads`` (one
            number each, or one a layer), the other frozen parts of ``FarConfig``, and ``priming_epochs``.
        method: a baseline instead: ``full``, ``far10``, ``ffn-frozen``, ``bitfit``, or LoRA of any rank, ``lora8``.
        batch_size, max_length: None for 16 rows of 128 tokens; those of ``rows`` are used instead.
        classes: outputs of the head, where there are no ``rows``.
        samples: rows of one epoch, each at full length; None for a single step.
        rows: your own, by ``read_own_rows``: their head, lengths and number, unless ``samples`` is another number.
        plan: goal of the step plan; None for ordinary modules.
        micro_batch_size: rows of one forward pass; None for the whole batch.
        prime_on_device: include the priming, with gradient descent in micro-batches.
        engine: ``torch``, ``onnx`` without torch on the board's CPU, or the better one of ``any``.
        revision: branch, tag or commit of a hub model.
        progress: reports the calibration of the device ``local``.

    Raises:
        BadInput: for an unknown device, or values that the model or the engine does not support.
        MissingResource: when the model's configuration can't be read.
    """
    job = {
        "batch_size": batch_size, "max_length": max_length, "classes": classes, "samples": samples, "rows": rows,
        "plan": plan, "optimizer": optimizer, "micro_batch_size": micro_batch_size,
        "prime_on_device": prime_on_device, "engine": engine, "revision": revision,
    }  # fmt: skip
    query = query_of(model, config, method, {**job, **frozen})
    return query.breakdown(query.pricer(device, progress)).cost


def largest_batch(
    device: str,
    model: str,
    config: FarConfig | None = None,
    *,
    method: str | None = None,
    progress: Callable[[str], None] | None = None,
    **job: Any,
) -> int:
    """Return the largest batch whose training fits a device; 0 where not even a batch of one row does.

    Args:
        device, model, config, method, progress: as in ``estimate``.
        job: the other arguments of ``estimate``, but for ``batch_size`` and ``micro_batch_size``. With ``samples`` or
            ``rows`` a batch has at most the rows of an epoch.

    Raises:
        BadInput, MissingResource: as ``estimate``.
    """
    return largest_of(query_of(model, config, method, job), device, progress)


def largest_of(query: CostQuery, device: str, progress: Callable[[str], None] | None = None) -> int:
    """Return the largest batch of a query, as ``largest_batch``."""
    if query.micro_batch_size is not None:
        raise BadInput("`micro_batch_size` bounds the memory of any batch; leave it out to find the largest")
    # what fits under any of a goal's plans fits under the one with the least memory
    least = query if query.plan is None else dataclasses.replace(query, plan="memory")

    def price(rows: int) -> Price:
        sized = least.with_batch(rows)
        return sized.breakdown(sized.pricer(device, progress)).cost

    return largest_fitting(price, query.features)


@dataclass(frozen=True)
class RankedDevice:
    """The cost of a training on one of all devices, under a plan whose engine may run on the board's CPU."""

    profile: Profile
    plan: StepPlan
    cost: Price


def rank_devices(
    model: str,
    config: FarConfig | None = None,
    *,
    method: str | None = None,
    progress: Callable[[str], None] | None = None,
    **job: Any,
) -> list[RankedDevice]:
    """Return the cost of a training on every shipped device and on your own, the quickest that fits first.

    Those that it does not fit follow, the least missing memory first.

    Args:
        model, config, method: as in ``estimate``.
        progress: is called with the profiles that can't be read.
        job: the other arguments of ``estimate``.

    Raises:
        BadInput, MissingResource: as ``estimate``.
    """
    return ranked(query_of(model, config, method, job), progress)


def ranked(query: CostQuery, progress: Callable[[str], None] | None = None) -> list[RankedDevice]:
    """Return the devices for a query, as ``rank_devices``."""

    def missing(one: RankedDevice) -> float:
        return one.cost.peak_memory_range_mib[1] - one.cost.available_range_mib[0]

    found = []
    for profile in load_profiles(HOME / "devices", progress or (lambda _: None)):
        try:
            pricer = query.pricer(profile.name)
        except ProfileError:
            continue  # no figures of the query's engine
        priced = query.breakdown(pricer)
        found.append(RankedDevice(profile, priced.plan, priced.cost))
    fitting = sorted((one for one in found if one.cost.fits), key=lambda one: one.cost.wall_time_s)
    return fitting + sorted((one for one in found if not one.cost.fits), key=missing)


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
    engine: Engines = "any",
    revision: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Sweep:
    """Price a whole space on a device under all its exact step plans and ordinary modules.

    Args:
        space: name of a space, or path of its file.
        samples: rows of one epoch, each at full length; None for a single step.
        rows: as in ``estimate``.
        engine: whose plans are priced; ``any`` for those that the device's profile has figures of.
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
    layers = layers_of(model, revision, progress)
    configs = draw_configs(load_space(space), layers, configurations, seed, priming=prime_on_device)
    pricer = pricer_for(
        device, model, batch_size=batch_size, max_length=max_length, classes=classes, samples=samples,
        prime_on_device=prime_on_device, revision=revision, progress=progress, rows=rows, engine=engine,
    )  # fmt: skip
    goals: tuple[Goal | None, ...] = (None, "time")
    plans = [plan for goal in goals for plan in device_plans(pricer, goal, optimizer, micro_batch_size)]
    return price_space(pricer, configs, list(dict.fromkeys(plans)), progress or (lambda _: None))
