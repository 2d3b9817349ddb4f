"""Search spaces: strict YAML files, and their translation into Optuna's distributions and into ``FarConfig``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from farsearch.errors import SpaceError
from farsearch.far.display import PATH, shown
from farsearch.records import PER_LAYER, FarConfig
from farsearch.study.groups import layer_groups, name_of
from farsearch.study.optuna_adapter import allows
from farsearch.study.parameter_rules import (
    BY_SIZE,
    COUNTS,
    DEFAULTS,
    KEYS,
    LAYER_BOUNDS,
    check_entry,
    check_key,
    check_start,
    check_value,
    plain,
)
from farsearch.study.sizes import Size
from farsearch.study.space_files import read_yaml, retired_text, space_text, yaml_text

__all__ = ["Space", "load_space", "retired_space"]

_SCHEMA = 1
_METHOD_INDEPENDENT = ("learning_rate", "epochs")
"""Parameters that do not change the method of a start: full fine-tuning may have any learning rate."""


_INEXACT = {"learning_rate", "priming_epochs"}
"""Parameters whose nearest value stands for one that the space does not have."""


def load_space(name: str) -> Space:
    """Load and check a space by name or path.

    Raises:
        SpaceError: for an unknown name, or a file that breaks a rule.
    """
    data = read_yaml(f"space {shown(name, PATH)}", space_text(name))
    return Space.from_dict(Path(name).stem, data, f"space {shown(name, PATH)}")


def retired_space(name: str) -> Space | None:
    """Return what the shipped space of a name was in earlier versions; None where it was the same."""
    text = retired_text(name)
    return None if text is None else Space.from_dict(name, read_yaml(f"space {shown(name, PATH)}", text))


@dataclass(frozen=True)
class Space:
    """The searched parameters, the fixed ones, and the settings tried first.

    Attributes:
        search: by key, either ``{choices: [...]}`` or ``{low, high[, step][, log]}``. ``high`` may be ``layers`` or
            ``layers - 1``. ``frozen_fraction`` and ``frozen_heads`` may have ``per_layer: true``, and ``groups``, an
            upper bound of the values per model. ``learning_rate`` may have ``by_size: true`` in place of low and high.
        fixed: value by key. Every key is in exactly one of ``search`` and ``fixed``, or, with a default, in neither.
        start: complete settings of the searched keys by name, tried first where they fit. A ``learning_rate`` of
            ``{by_size: full}`` or ``{by_size: frozen}`` depends on the model's size.
    """

    name: str
    title: str
    search: Mapping[str, Mapping[str, Any]]
    fixed: Mapping[str, Any]
    start: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_dict(cls, name: str, data: Any, where: str | None = None) -> Space:
        """Check and read a space from parsed YAML. ``where`` names it in messages.

        Raises:
            SpaceError: naming the space, the key and the rule.
        """
        where = where or f"space {shown(name, PATH)}"
        if not isinstance(data, Mapping):
            raise SpaceError(f"{where} is no table; it needs schema_version, search and fixed")
        known = ("schema_version", "title", "search", "fixed", "start")
        for key in data:
            if key not in known:
                raise SpaceError(f"{where} has the unknown key {shown(key)}; known are {', '.join(known)}")
        if data.get("schema_version") != _SCHEMA or data.get("schema_version") is True:
            raise SpaceError(f"{where} has schema_version {shown(data.get('schema_version'))}; it must be {_SCHEMA}")
        title = data.get("title", name)
        if not isinstance(title, str):
            raise SpaceError(f"{where} has the title {shown(title)}; it must be a text")
        parts = {key: data[key] if data.get(key) is not None else {} for key in ("search", "fixed", "start")}
        for key, part in parts.items():
            if not isinstance(part, Mapping):
                raise SpaceError(f"{where} has {shown(part)} as {key}; it must be a table")
        _check_parameters(where, parts["search"], parts["fixed"])
        _check_starts(where, parts["search"], parts["start"])
        return cls(
            name,
            title,
            {key: plain(key, entry) for key, entry in parts["search"].items()},
            {key: plain(key, value) for key, value in parts["fixed"].items()},
            {
                str(start): {key: plain(key, value) for key, value in values.items()}
                for start, values in parts["start"].items()
            },
        )

    @classmethod
    def from_settings(cls, data: Mapping[str, Any]) -> Space:
        """Read the space of a study's settings, from ``to_dict``, without starts: the study has enqueued them."""
        return cls.from_dict(
            data["name"], {"schema_version": _SCHEMA, "search": data["search"], "fixed": data["fixed"]}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON types that a study stores."""
        return {
            "name": self.name,
            "search": {key: dict(value) for key, value in self.search.items()},
            "fixed": dict(self.fixed),
        }

    def to_yaml(self) -> str:
        """Return the text of a file that ``load_space`` reads."""
        content = {"schema_version": _SCHEMA, "title": self.title, "search": self.search, "fixed": self.fixed}
        return yaml_text({**content, "start": self.start} if self.start else content)

    def with_fixed(self, settings: Mapping[str, Any]) -> Space:
        """Return the space with fixed parameters (``--set key=value``).

        Starts that the settings turn into another method are removed: full fine-tuning, with a fixed frozen fraction.

        Raises:
            SpaceError: for an unknown parameter, or a value that it can't have.
        """
        for key, value in settings.items():
            check_key(f"--set {key}={value}", key)
            check_value("--set", key, value)
        values = {key: plain(key, value) for key, value in settings.items()}
        starts = {
            name: {key: value for key, value in start.items() if key not in values}
            for name, start in self.start.items()
            if all(
                {**DEFAULTS, **self.fixed, **start}[key] == value
                for key, value in values.items()
                if key not in _METHOD_INDEPENDENT
            )
        }
        search = {key: entry for key, entry in self.search.items() if key not in values}
        return Space(self.name, self.title, search, {**self.fixed, **values}, starts)

    def for_model(self, layers: int, size: Size) -> Space:
        """Return the space for a model of so many layers and that size, idempotently.

        Entries by size become numbers, and ``groups`` is removed where every layer is a group.
        """
        search = {}
        for key, entry in self.search.items():
            entry = {name: value for name, value in entry.items() if name != "groups" or value < layers}
            if entry.pop(BY_SIZE, False):
                entry = {"low": size.learning_rate.low, "high": size.learning_rate.high, **entry}
            search[key] = entry
        start = {
            name: {key: _in_numbers(value, size) for key, value in values.items()}
            for name, values in self.start.items()
        }
        return dataclasses.replace(self, search=search, start=start)

    def distributions(self, layers: int) -> dict[str, BaseDistribution]:
        """Return Optuna's distributions for a model of so many layers, per-layer parameters by group of layers.

        The space must have numbers for entries by size, see ``for_model``.

        Raises:
            SpaceError: for more layers than the model has.
        """
        for key in COUNTS:
            if self.fixed.get(key, 0) > layers:
                raise SpaceError(f"space {shown(self.name)}: {key} is {self.fixed[key]}; the model has {layers} layers")
        distributions: dict[str, BaseDistribution] = {}
        for key, entry in self.search.items():
            for name in self._names(key, layers):
                distributions[name] = _distribution(self.name, key, entry, layers)
        return distributions

    def groups(self, layers: int, key: str = "frozen_fraction") -> list[range]:
        """Return the layers of a model, from the bottom, by the value of a per-layer parameter that they share."""
        entry = self.search.get(key, {})
        return layer_groups(layers, entry.get("groups") if entry.get("per_layer") else 1)

    def _names(self, key: str, layers: int) -> list[str]:
        """Return Optuna's parameters of a searched key."""
        per_layer = self.search[key].get("per_layer")
        return [name_of(key, group) for group in self.groups(layers, key)] if per_layer else [key]

    def config(self, params: Mapping[str, Any], layers: int) -> FarConfig:
        """Return the configuration that Optuna's parameters describe."""
        values = {**DEFAULTS, **self.fixed, **params}
        per_layer: dict[str, tuple[float, ...]] = {}
        for key, field in PER_LAYER.items():
            common = values.pop(key, None)
            shares = [(values.pop(name_of(key, group), common), len(group)) for group in self.groups(layers, key)]
            # steps of 0.05 leave digits like 0.15000000000000002
            per_layer[field] = tuple(round(float(share), 6) for share, count in shares for _ in range(count))
        return FarConfig.from_dict({**values, **per_layer}).canonical()

    def params(self, config: FarConfig, layers: int) -> dict[str, Any] | None:
        """Return Optuna's parameters of a configuration; None where the space has no such method.

        The learning rate and the length of the priming, which do not change what is trained, are the nearest that the
        space has.
        """
        shares = {key: getattr(config, field) or (0.0,) * layers for key, field in PER_LAYER.items()}
        params: dict[str, Any] = {}
        for key, entry in self.search.items():
            for group in self.groups(layers, key):
                name = name_of(key, group) if entry.get("per_layer") else key
                params[name] = shares[key][group[0]] if key in shares else getattr(config, key)
        distributions = self.distributions(layers)
        for key in _INEXACT & params.keys():
            params[key] = _nearest(distributions[key], params[key])
        if not all(_allows(distributions[name], value) for name, value in params.items()):
            return None
        found, method = self.config(params, layers), config.canonical()
        same = found == dataclasses.replace(
            method, learning_rate=found.learning_rate, priming_epochs=found.priming_epochs
        )
        return params if same and (found.priming_epochs > 0) == (method.priming_epochs > 0) else None

    def starts(self, layers: int) -> dict[str, dict[str, Any]]:
        """Return the parameters of the starts, by name, that the space has for this model."""
        distributions = self.distributions(layers)
        starts = {}
        for name, values in self.start.items():
            params: dict[str, Any] = {}
            for key, value in values.items():
                params |= dict.fromkeys(self._names(key, layers), value)
            if all(_allows(distributions[key], value) for key, value in params.items()):
                starts[name] = params
        return starts

    def size(self, layers: int) -> tuple[int, list[str]]:
        """Return the number of combinations of the discrete parameters, and the names of the continuous ones."""
        count, continuous = 1, []
        for name, distribution in self.distributions(layers).items():
            if isinstance(distribution, CategoricalDistribution):
                count *= len(distribution.choices)
            elif isinstance(distribution, IntDistribution):
                count *= (distribution.high - distribution.low) // distribution.step + 1
            elif isinstance(distribution, FloatDistribution) and distribution.step:
                count *= round((distribution.high - distribution.low) / distribution.step) + 1
            else:
                continuous.append(name)
        return count, continuous


def _in_numbers(value: Any, size: Size) -> Any:
    """Return a start's value, with that of the model's size for one by size."""
    return getattr(size.learning_rate, value[BY_SIZE]) if isinstance(value, Mapping) else value


def _distribution(space: str, key: str, entry: Mapping[str, Any], layers: int) -> BaseDistribution:
    if "choices" in entry:
        if key in COUNTS and max(entry["choices"]) > layers:
            raise SpaceError(
                f"space {shown(space)}: {key} has the choice {max(entry['choices'])}; the model has {layers} layers"
            )
        return CategoricalDistribution(list(entry["choices"]))
    assert BY_SIZE not in entry, f"space {shown(space)}: for_model gives {key} its range"
    low, high = entry["low"], entry["high"]
    if key not in COUNTS:
        return FloatDistribution(low, high, step=entry.get("step"), log=entry.get("log", False))
    high = min(layers + LAYER_BOUNDS[high] if isinstance(high, str) else high, layers)
    if low > high:
        raise SpaceError(
            f"space {shown(space)}: {key} starts at {low}; this model of {layers} layers allows {high} at most"
        )
    step = entry.get("step", 1)
    return IntDistribution(low, high - (high - low) % step, step=step)


def _nearest(distribution: BaseDistribution, value: float) -> float:
    """Return the value of a distribution of numbers that is nearest to ``value``."""
    if isinstance(distribution, CategoricalDistribution):
        choices = [float(choice) for choice in distribution.choices if isinstance(choice, (int, float))]
        # a length of 0 is no priming, which is another method
        return min(choices, key=lambda choice: ((choice > 0) != (value > 0), abs(choice - value)))
    assert isinstance(distribution, FloatDistribution)
    return min(max(value, distribution.low), distribution.high)


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether the value is in the range and on the grid."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return allows(distribution, value)


def _check_parameters(where: str, search: Mapping[Any, Any], fixed: Mapping[Any, Any]) -> None:
    for key in [*search, *fixed]:
        check_key(where, key)
    for key in KEYS:
        if (key in search) == (key in fixed) and (key in search or key not in DEFAULTS):
            count = "both" if key in search else "neither"
            raise SpaceError(f"{where} has {shown(key)} in {count} of search and fixed; it must be in one")
    for key, value in fixed.items():
        check_value(where, key, value)
    for key, entry in search.items():
        check_entry(where, key, entry)


def _check_starts(where: str, search: Mapping[str, Any], starts: Mapping[Any, Any]) -> None:
    for name, values in starts.items():
        if not isinstance(values, Mapping):
            raise SpaceError(
                f"{where} has {shown(values)} as the start {shown(name, PATH)}; it must be a table of values"
            )
        differing = sorted(map(str, set(search) ^ set(values)))
        if differing:
            raise SpaceError(
                f"{where} starts with {shown(name, PATH)}, which differs from search in {shown(differing[0])}; "
                "a start has every searched parameter and no other"
            )
        for key, value in values.items():
            check_start(f"{where}: start {shown(name, PATH)}", key, value)
