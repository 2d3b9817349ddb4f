"""What is asked of the cost model: one way to train a model on rows, to be priced on any device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from farsearch.api import HOME
from farsearch.api.own_rows import OwnRows
from farsearch.baselines import Method, method_named
from farsearch.calibration.local import engine_profiles, find_profile
from farsearch.cost.breakdown import CostBreakdown, cost_breakdown, device_plans, prepared_breakdown
from farsearch.cost.pricer import Pricer
from farsearch.cost.traced_model import shared_tables
from farsearch.errors import BadInput
from farsearch.goals import Goal
from farsearch.models.config import load_config
from farsearch.models.families import layout_of, max_length_of
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.records import PER_LAYER, Engines, FarConfig

__all__ = ["CostQuery", "features_of", "layers_of", "pricer_for", "query_of"]

_BATCH_SIZE, _MAX_LENGTH = 16, 128
"""Of a batch without rows of its own."""


@dataclass(frozen=True)
class CostQuery:
    """A training whose cost is asked.

    Attributes:
        trained: a configuration, or a method that has none.
        others: as the arguments of ``farsearch.estimate``.
    """

    model: str
    trained: FarConfig | Method
    batch_size: int = _BATCH_SIZE
    max_length: int = _MAX_LENGTH
    classes: int = 2
    samples: int | None = None
    rows: OwnRows | None = None
    plan: Goal | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    micro_batch_size: int | None = None
    prime_on_device: bool = False
    engine: Engines = "torch"
    revision: str | None = None

    @property
    def features(self) -> int | None:
        """Sequences of an epoch; None for a single step."""
        return features_of(self.samples, self.rows)

    def with_batch(self, batch_size: int) -> CostQuery:
        """Return the query with batches of so many rows."""
        rows = None if self.rows is None else dataclasses.replace(self.rows, batch_size=batch_size)
        return dataclasses.replace(self, batch_size=batch_size, rows=rows)

    def pricer(self, device: str, progress: Callable[[str], None] | None = None) -> Pricer:
        """Return the cost model of the query on a device, with the errors of ``farsearch.estimate``."""
        return pricer_for(
            device, self.model, batch_size=self.batch_size, max_length=self.max_length, classes=self.classes,
            samples=self.samples, prime_on_device=self.prime_on_device, revision=self.revision, progress=progress,
            rows=self.rows, engine=self.engine,
        )  # fmt: skip

    def breakdown(self, pricer: Pricer) -> CostBreakdown:
        """Return the cost by phase, under the best plan of the pricer's engines for the query's goal.

        Raises:
            BadInput: as ``device_plans`` and ``cost_breakdown``, for a model that can't be compiled, and for a plan of
                a method that is executed in one way only.
        """
        if isinstance(self.trained, FarConfig):
            plans = device_plans(pricer, self.plan, self.optimizer, self.micro_batch_size)
            return cost_breakdown(pricer, self.trained, plans, self.plan, self.features)
        asked = {
            "plan": self.plan, "optimizer": self.optimizer != "adamw", "micro_batch_size": self.micro_batch_size,
            "engine": "torch" not in pricer.engines,
        }  # fmt: skip
        for name in (name for name, value in asked.items() if value):
            raise BadInput(
                f"`{name}` is for FAR; {self.trained.title} is priced as it is usually run, in whole batches with "
                "ordinary modules of torch and AdamW: leave it out"
            )
        assert self.trained.prepare is not None
        return prepared_breakdown(pricer, self.trained.prepare, self.features)


def query_of(model: str, config: FarConfig | None, method: str | None, given: Mapping[str, Any]) -> CostQuery:
    """Return a query from the arguments of ``farsearch.estimate``.

    Args:
        given: fields of ``CostQuery``, None for their defaults; and of the configuration, where neither ``config`` nor
            ``method`` is given.

    Raises:
        BadInput: for two specifications of what is trained, and for values that break a rule.
    """
    known = {field.name for field in dataclasses.fields(CostQuery)}
    asked = {name: value for name, value in given.items() if name in known and value is not None}
    frozen = {name: value for name, value in given.items() if name not in known}
    deciding = [name for name, value in (("method", method), ("config", config)) if value is not None]
    if deciding and len([*deciding, *frozen]) > 1:
        one, other, *_ = (*deciding, *frozen)
        raise BadInput(f"`{one}` decides what is trained, and so does `{other}`; give one of them")
    revision = asked.get("revision")
    if method is None:
        return CostQuery(model, config or _frozen_config(model, frozen, revision), **asked)
    chosen = method_named(method)
    far = chosen.far_config(layers_of(model, revision), chosen.learning_rates[0], 1.0)
    return CostQuery(model, far or chosen, **asked)


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
        tables=shared_tables(settings, head),
    )


def features_of(samples: int | None, rows: OwnRows | None) -> int | None:
    """Return the sequences of an epoch of ``samples`` rows, by default all of ``rows``; None for a single step."""
    return samples if rows is None else rows.features(rows.count if samples is None else samples)


def layers_of(model: str, revision: str | None = None, note: Callable[[str], None] | None = None) -> int:
    """Return the number of a model's layers."""
    return len(layout_of(_config_of(model, revision, note)).layers)


def _config_of(model: str, revision: str | None, note: Callable[[str], None] | None) -> Any:
    return load_config(resolve_model(model, revision=revision, note=note), with_known=True)


def _frozen_config(model: str, given: Mapping[str, Any], revision: str | None) -> FarConfig:
    """Return the configuration of ``estimate``'s ``frozen`` arguments for a model.

    Raises:
        BadInput: for fractions of another number of layers.
    """
    frozen = {"frozen_fraction": 0.0, **given}
    layers = layers_of(model, revision)
    for key, field in PER_LAYER.items():
        if key not in frozen:
            continue
        given_shares = frozen.pop(key)
        shares = tuple(given_shares) if isinstance(given_shares, Sequence) else (given_shares,)
        if len(shares) not in (1, layers):
            raise BadInput(f"{key} has {len(shares)} values; {model} has {layers} layers, give 1 or {layers}")
        frozen[field] = tuple(float(share) for share in shares) * (layers if len(shares) == 1 else 1)
    return FarConfig.from_dict({"learning_rate": 1e-4, "epochs": 1.0, **frozen})
