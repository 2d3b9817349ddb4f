"""Rules for the entries of a search space, checked one parameter at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from farsearch.errors import BadInput, SpaceError
from farsearch.far.display import shown
from farsearch.records import PER_LAYER, FarConfig
from farsearch.runtime.near_names import did_you_mean

__all__ = [
    "BY_SIZE",
    "COUNTS",
    "DEFAULTS",
    "FLAGS",
    "FLOATS",
    "KEYS",
    "LAYER_BOUNDS",
    "check_entry",
    "check_key",
    "check_start",
    "check_value",
    "plain",
]

FLOATS = ("priming_epochs", "frozen_fraction", "learning_rate", "epochs", "frozen_heads")
COUNTS = ("frozen_attention_layers", "frozen_bottom_layers")
FLAGS = ("frozen_embeddings",)
KEYS = (*FLOATS, *COUNTS, *FLAGS)
"""All parameters; a space has each as searched or as fixed."""

DEFAULTS = {"frozen_heads": 0.0}
"""Fixed values of parameters that a space may leave out: spaces from before them are still read."""

LAYER_BOUNDS = {"layers": 0, "layers - 1": -1}
"""Upper bounds that depend on the model's depth, and their difference to it."""

BY_SIZE = "by_size"
"""Key in place of numbers that depend on the size of the model, for learning rates only."""

_SIZE_RATES = ("full", "frozen")
_CHOICE_KEYS = ("choices", "per_layer", "groups")
_RANGE_KEYS = ("low", "high", "step", "log", "per_layer", "groups")
_SIZE_KEYS = (BY_SIZE, "log")


def plain(key: str, value: Any) -> Any:
    """Return ``value`` in the type of the parameter, so that ``1`` and ``1.0`` have the same fingerprint."""
    if key not in FLOATS:
        return value
    if isinstance(value, Mapping):
        return {name: item if name == "groups" else plain(key, item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(key, item) for item in value]
    return float(value) if _is_number(value) else value


def check_key(where: str, key: Any) -> None:
    """Raise ``SpaceError`` for an unknown parameter, naming the nearest."""
    if key not in KEYS:
        hint = did_you_mean(key, KEYS) or f"known are {', '.join(KEYS)}"
        raise SpaceError(f"{where}: the parameter {shown(key)} is unknown; {hint}")


def check_value(where: str, key: str, value: Any) -> None:
    """Raise ``SpaceError`` for a value that the parameter can't have."""
    if key in FLAGS and not isinstance(value, bool):
        raise SpaceError(f"{where}: {key} is {shown(value)}; it must be true or false")
    if key in COUNTS and not (_is_whole(value) and value >= 0):
        raise SpaceError(f"{where}: {key} is {shown(value)}; it must be a number of layers, 0 or more")
    if key in FLOATS:
        if not _is_number(value) or not math.isfinite(value):
            raise SpaceError(f"{where}: {key} is {shown(value)}; it must be a finite number")
        probe = {"frozen_fraction": 0.0, "frozen_heads": 0.0, "learning_rate": 1.0, "epochs": 1.0, key: value}
        fields = {PER_LAYER.get(name, name): [item] if name in PER_LAYER else item for name, item in probe.items()}
        try:
            FarConfig.from_dict(fields)
        except BadInput as error:
            # FarConfig names a layer, but a space may mean all layers
            raise SpaceError(f"{where}: {key}: {str(error).replace(' of layer 0', '')}") from error


def check_start(where: str, key: str, value: Any) -> None:
    """Raise ``SpaceError`` for a value that a start can't have; a rate may be named by the size of the model."""
    if not isinstance(value, Mapping) or key != "learning_rate":
        check_value(where, key, value)
    elif set(value) != {BY_SIZE} or value[BY_SIZE] not in _SIZE_RATES:
        raise SpaceError(
            f"{where}: {key} is {shown(dict(value))}; it must be a number, or "
            + " or ".join(f"{{{BY_SIZE}: {name}}}" for name in _SIZE_RATES)
        )


def check_entry(where: str, key: str, entry: Any) -> None:
    """Raise ``SpaceError`` for a searched parameter with wrong keys, types or bounds."""
    if not isinstance(entry, Mapping):
        raise SpaceError(f"{where}: {key} is {shown(entry)}; it must be a table of choices, or of low and high")
    allowed = next((keys for keys in (_CHOICE_KEYS, _SIZE_KEYS) if keys[0] in entry), _RANGE_KEYS)
    for name in entry:
        if name not in allowed:
            raise SpaceError(
                f"{where}: {key} has the key {shown(name)}; with {allowed[0]} it can have {', '.join(allowed)}"
            )
    for name in ("per_layer", "log", BY_SIZE):
        if not isinstance(entry.get(name, False), bool):
            raise SpaceError(f"{where}: {key} has {name} {shown(entry[name])}; it must be true or false")
    if entry.get("per_layer") and key not in PER_LAYER:
        raise SpaceError(f"{where}: {key} has per_layer; only {' and '.join(PER_LAYER)} can")
    if "groups" in entry:
        _check_groups(where, key, entry)
    if BY_SIZE in entry:
        _check_by_size(where, key, entry)
    elif "choices" in entry:
        _check_choices(where, key, entry["choices"])
    elif key in FLAGS:
        raise SpaceError(f"{where}: {key} has no choices; it is true or false, give choices of these")
    else:
        _check_range(where, key, entry)


def _check_groups(where: str, key: str, entry: Mapping[str, Any]) -> None:
    groups = entry["groups"]
    if not entry.get("per_layer"):
        raise SpaceError(f"{where}: {key} has groups, which are of layers; give per_layer: true too")
    if not _is_whole(groups) or groups < 1:
        raise SpaceError(
            f"{where}: {key} has groups {shown(groups)}; it must be a number of groups of layers, 1 or more"
        )


def _check_by_size(where: str, key: str, entry: Mapping[str, Any]) -> None:
    if key != "learning_rate":
        raise SpaceError(f"{where}: {key} has {BY_SIZE}; only learning_rate can")
    if not entry[BY_SIZE]:
        raise SpaceError(f"{where}: {key} has {BY_SIZE} false; leave it out, and give low and high")


def _check_choices(where: str, key: str, choices: Any) -> None:
    if not isinstance(choices, list) or not choices:
        raise SpaceError(f"{where}: {key} has the choices {shown(choices)}; they must be a list of at least one value")
    for i, value in enumerate(choices):
        check_value(where, key, value)
        if value in choices[:i]:
            raise SpaceError(f"{where}: {key} has the choice {shown(value)} twice; remove one")


def _check_range(where: str, key: str, entry: Mapping[str, Any]) -> None:
    for bound in ("low", "high"):
        if bound not in entry:
            raise SpaceError(f"{where}: {key} has no {bound}; a range needs low and high")
        if not (bound == "high" and _depends_on_depth(key, entry[bound])):
            check_value(f"{where}: {bound}", key, entry[bound])
    low, high = entry["low"], entry["high"]
    if _is_number(high) and low > high:
        raise SpaceError(f"{where}: {key} has low {low} above high {high}; swap them")
    if entry.get("log"):
        if key in COUNTS:
            raise SpaceError(f"{where}: {key} has log; layers are counted one by one, leave it out")
        if low <= 0:
            raise SpaceError(f"{where}: {key} has log and low {low}; a log range starts above 0")
        if "step" in entry:
            raise SpaceError(f"{where}: {key} has log and step; leave one out")
    if "step" in entry:
        _check_step(where, key, entry["step"], low, high)


def _check_step(where: str, key: str, step: Any, low: Any, high: Any) -> None:
    if not (_is_whole(step) if key in COUNTS else _is_number(step)) or not 0 < step < math.inf:
        kind = "whole number" if key in COUNTS else "number"
        raise SpaceError(f"{where}: {key} has step {shown(step)}; it must be a {kind} above 0")
    if _is_number(high):
        steps = (high - low) / step
        if abs(steps - round(steps)) > 1e-6:
            raise SpaceError(f"{where}: {key} has step {step}; from low {low} it must lead to high {high} exactly")


def _depends_on_depth(key: str, value: Any) -> bool:
    return key in COUNTS and isinstance(value, str) and value in LAYER_BOUNDS


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)
