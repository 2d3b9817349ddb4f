"""Search spaces: strict YAML files, and their translation into Optuna's distributions and into ``FarConfig``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from farsearch.errors import BadInput, SpaceError
from farsearch.records import FarConfig

__all__ = ["Space", "list_spaces", "load_space", "space_text"]

_FLOATS = ("priming_epochs", "frozen_fraction", "learning_rate", "epochs")
_COUNTS = ("frozen_attention_layers", "frozen_bottom_layers")
_FLAGS = ("frozen_embeddings",)
KEYS = (*_FLOATS, *_COUNTS, *_FLAGS)
"""Everything that a space says, either as searched or as fixed."""

_LAYERS = {"layers": 0, "layers - 1": -1}
"""Bounds that depend on the model's depth."""


def _folder() -> Path:
    """Where the shipped spaces are: inside the installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def list_spaces() -> list[str]:
    """Names of the shipped spaces."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def space_text(name: str) -> str:
    """The YAML of a shipped space by name, or of one of the user's by a path that ends in .yaml.

    Raises:
        SpaceError: for an unknown name or an unreadable file.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name).expanduser()
    elif name in list_spaces():
        file = _folder() / f"{name}.yaml"
    else:
        close = difflib.get_close_matches(name, list_spaces(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SpaceError(
            f"the space {name!r} is unknown; known are {', '.join(list_spaces())}, or pass a path to a .yaml{hint}"
        )
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise SpaceError(f"the space file {name!r} can't be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise SpaceError(f"the space file {name!r} is no UTF-8 text; save it as UTF-8") from error


def load_space(name: str) -> Space:
    """A space by name or path, checked.

    Raises:
        SpaceError: for an unknown name, or a file that breaks a rule.
    """
    try:
        data = yaml.safe_load(space_text(name))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:160]
        raise SpaceError(f"the space file {name!r} is no valid YAML: {reason}; mend that line") from error
    return Space.from_dict(Path(name).stem, data)


@dataclass(frozen=True)
class Space:
    """What is searched, what is fixed, and what is tried first.

    Attributes:
        search: by key, either ``{choices: [...]}`` or ``{low, high[, step][, log]}``; ``frozen_fraction`` may have
            ``per_layer: true``. ``high`` may be ``layers`` or ``layers - 1``.
        fixed: value by key. Every key of a configuration is in exactly one of the two.
        start: complete settings of the searched keys by name, tried first where they fit.
    """

    name: str
    title: str
    search: Mapping[str, Mapping[str, Any]]
    fixed: Mapping[str, Any]
    start: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_dict(cls, name: str, data: Any) -> Space:
        """The space that a YAML file says, checked."""
        where = f"space {name!r}"
        if not isinstance(data, Mapping):
            raise SpaceError(f"{where} is no table; it needs search and fixed")
        known = ("schema_version", "title", "search", "fixed", "start")
        for key in data:
            if key not in known:
                raise SpaceError(f"{where} has the unknown key {key!r}; known are {', '.join(known)}")
        if data.get("schema_version") != 1:
            raise SpaceError(f"{where} has schema_version {data.get('schema_version')!r}; this farsearch reads 1")
        parts = {key: data.get(key) or {} for key in ("search", "fixed", "start")}
        for key, part in parts.items():
            if not isinstance(part, Mapping):
                raise SpaceError(f"{where} has {part!r} as {key}; it must be a table")
        space = cls(name, str(data.get("title", name)), parts["search"], parts["fixed"], parts["start"])
        space._check(where)
        return space

    def _check(self, where: str) -> None:
        for key in [*self.search, *self.fixed]:
            if key not in KEYS:
                close = difflib.get_close_matches(str(key), KEYS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(KEYS)}"
                raise SpaceError(f"{where} has the unknown parameter {key!r}{hint}")
        for key in KEYS:
            if (key in self.search) == (key in self.fixed):
                count = "both" if key in self.search else "neither"
                raise SpaceError(f"{where} has {key!r} in {count} of search and fixed; it must be in one")
        for key, value in self.fixed.items():
            _check_value(where, key, value)
        for key, entry in self.search.items():
            _check_entry(where, key, entry)
        for name, values in self.start.items():
            missing = set(self.search) ^ set(values)
            if missing:
                raise SpaceError(
                    f"{where} starts with {name!r}, which differs from search in {sorted(missing)[0]!r}; "
                    "a start says every searched parameter and no other"
                )

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON types: what a study remembers of it."""
        return {
            "name": self.name,
            "search": {key: dict(value) for key, value in self.search.items()},
            "fixed": dict(self.fixed),
        }

    def with_fixed(self, settings: Mapping[str, Any]) -> Space:
        """The space with some parameters fixed (``--set key=value``)."""
        for key, value in settings.items():
            if key not in KEYS:
                close = difflib.get_close_matches(key, KEYS, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(KEYS)}"
                raise SpaceError(f"--set {key}={value}: the parameter {key!r} is unknown; {hint}")
            _check_value("--set", key, value)
        return Space(
            self.name,
            self.title,
            {key: entry for key, entry in self.search.items() if key not in settings},
            {**self.fixed, **settings},
            {
                name: {key: value for key, value in values.items() if key not in settings}
                for name, values in self.start.items()
            },
        )

    def distributions(self, layers: int) -> dict[str, BaseDistribution]:
        """Optuna's distributions for a model of so many layers, per-layer parameters by layer."""
        found: dict[str, BaseDistribution] = {}
        for key, entry in self.search.items():
            names = [f"{key}_layer_{i}" for i in range(layers)] if entry.get("per_layer") else [key]
            for name in names:
                found[name] = _distribution(key, entry, layers)
        return found

    def config(self, params: Mapping[str, Any], layers: int) -> FarConfig:
        """The configuration that Optuna's parameters mean."""
        values = {**self.fixed, **params}
        fractions = values.pop("frozen_fraction", None)
        per_layer = tuple(values.pop(f"frozen_fraction_layer_{i}", fractions) for i in range(layers))
        # steps of 0.05 leave digits like 0.15000000000000002
        fractions_rounded = tuple(round(float(fraction), 6) for fraction in per_layer)
        return FarConfig.from_dict({**values, "frozen_fractions": fractions_rounded}).canonical()

    def starts(self, layers: int) -> dict[str, dict[str, Any]]:
        """Parameters of what is tried first, by name, that the space can express for this model."""
        distributions = self.distributions(layers)
        found = {}
        for name, values in self.start.items():
            params: dict[str, Any] = {}
            for key, value in values.items():
                per_layer = bool(self.search[key].get("per_layer"))
                params |= {f"{key}_layer_{i}": value for i in range(layers)} if per_layer else {key: value}
            if all(_allows(distributions[key], value) for key, value in params.items()):
                found[name] = params
        return found

    def size(self, layers: int) -> tuple[int, list[str]]:
        """Number of combinations of the discrete parameters, and the names of the continuous ones."""
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


def _distribution(key: str, entry: Mapping[str, Any], layers: int) -> BaseDistribution:
    if "choices" in entry:
        return CategoricalDistribution(list(entry["choices"]))
    high = entry["high"]
    high = layers + _LAYERS[high] if isinstance(high, str) else high
    if key in _COUNTS:
        return IntDistribution(entry["low"], min(high, layers), step=entry.get("step", 1))
    return FloatDistribution(entry["low"], high, step=entry.get("step"), log=entry.get("log", False))


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return bool(distribution.low <= value <= distribution.high)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_value(where: str, key: str, value: Any) -> None:
    if key in _FLAGS and not isinstance(value, bool):
        raise SpaceError(f"{where}: {key} is {value!r}; it must be true or false")
    if key in _COUNTS and not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        raise SpaceError(f"{where}: {key} is {value!r}; it must be a number of layers, 0 or more")
    if key in _FLOATS:
        if not _is_number(value):
            raise SpaceError(f"{where}: {key} is {value!r}; it must be a number")
        try:
            probe = {"frozen_fraction": 0.0, "learning_rate": 1.0, "epochs": 1.0, "priming_epochs": 0.0, key: value}
            FarConfig((probe["frozen_fraction"],), probe["learning_rate"], probe["epochs"], probe["priming_epochs"])
        except BadInput as error:
            raise SpaceError(f"{where}: {error}") from error


def _check_entry(where: str, key: str, entry: Any) -> None:
    """One searched parameter: its keys, types and bounds."""
    if not isinstance(entry, Mapping):
        raise SpaceError(f"{where}: {key} is {entry!r}; it must be a table of choices, or of low and high")
    allowed = ("choices", "low", "high", "step", "log", "per_layer")
    for name in entry:
        if name not in allowed:
            raise SpaceError(f"{where}: {key} has the unknown key {name!r}; known are {', '.join(allowed)}")
    if entry.get("per_layer") and key != "frozen_fraction":
        raise SpaceError(f"{where}: {key} has per_layer; only frozen_fraction can")
    if "choices" in entry:
        if not isinstance(entry["choices"], list) or not entry["choices"]:
            raise SpaceError(f"{where}: {key} has the choices {entry['choices']!r}; they must be a list")
        for value in entry["choices"]:
            _check_value(where, key, value)
        return
    for bound in ("low", "high"):
        value = entry.get(bound)
        if key in _COUNTS and bound == "high" and value in _LAYERS:
            continue
        if not _is_number(value):
            raise SpaceError(f"{where}: {key} has {bound} {value!r}; it must be a number")
        _check_value(where, key, value)
    if _is_number(entry["high"]) and entry["low"] > entry["high"]:
        raise SpaceError(f"{where}: {key} has low {entry['low']} above high {entry['high']}; swap them")
    if entry.get("log") and entry["low"] <= 0:
        raise SpaceError(f"{where}: {key} has log and low {entry['low']}; a log range starts above 0")
    if entry.get("log") and entry.get("step"):
        raise SpaceError(f"{where}: {key} has log and step; leave one out")
