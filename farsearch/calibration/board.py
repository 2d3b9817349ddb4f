"""The measurement of a bundle on a board, validated, and the profile adjusted to it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.devices.profile import Figure, Profile
from farsearch.errors import BadInput
from farsearch.far.display import shown, shown_seconds
from farsearch.json_records import Record
from farsearch.records import Measurement
from farsearch.runtime.measurement import MEASUREMENT, SCHEMA_VERSION

__all__ = ["BoardFile", "adjusted", "is_measurement", "read_measurement"]

_TIME_SPREAD = 1.25
"""Factor by which a time predicted from one run may be off, either way, for other sizes and temperatures. The published
steps of two boards are predicted within 6 % so (docs/cost_model.md)."""

_MEMORY_SPREAD = 0.05
"""Share of a measured peak by which the peak of another run may differ."""

_POSITIVE = (
    "epochs", "peak_memory_mib", "process_memory_mib", "step_time_s", "wall_time_s", "predicted_memory_mib",
    "predicted_time_s",
)  # fmt: skip
_BOUNDS = (1e-6, 1e9)
"""Range of plausible values; beyond it the arithmetic of a profile could overflow."""
_LINE = 200
"""Most characters of a name or a version, which appear in a profile and a report."""


@dataclass(frozen=True)
class BoardFile(Record):
    """The file that ``train.py`` writes.

    Attributes:
        device: profile for which the bundle was made.
        bundle: digest of the bundle.
        losses: of the timed steps.
    """

    what: str
    schema_version: int
    study: str
    device: str
    bundle: str
    losses: tuple[float, ...]
    measured: Measurement

    def __post_init__(self) -> None:
        one = self.measured
        lines = {name: getattr(self, name) for name in ("study", "device", "bundle")}
        lines |= {f"measured.{name}": getattr(one, name) for name in ("machine", "created")}
        # with the keys, which may be unprintable too
        lines |= {f"measured.software[{shown(key)}]": f"{key} {version}" for key, version in one.software.items()}
        for name, line in lines.items():
            right = line.isprintable() and len(line) <= _LINE
            _check(right, f"{name} is {shown(line[:_LINE])}; it must be one line of at most {_LINE} characters")
        low, high = _BOUNDS
        for name in _POSITIVE:
            value = getattr(one, name)
            _check(low <= value <= high, f"measured.{name} is {value}; it must be a number from {low:g} to {high:g}")
        for name, least in (("trial", 0), ("rows", 1), ("steps", 1)):
            value = getattr(one, name)
            _check(least <= value <= high, f"measured.{name} is {value}; it must be from {least} to {high:g}")
        numbers = {"metric": one.metric, "predicted_process_mib": one.predicted_process_mib}
        for name, number in {**numbers, **{f"losses[{i}]": loss for i, loss in enumerate(self.losses)}}.items():
            _check(number is None or math.isfinite(number), f"{name} is {number}; it must be a finite number")

    @property
    def without_torch(self) -> bool:
        """Whether the engine ``onnx`` ran."""
        return "onnxruntime" in self.measured.software


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise BadInput(message)


def is_measurement(path: Path) -> bool:
    """Return whether a file is marked as a bundle's measurement."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, Mapping) and data.get("what") == MEASUREMENT


def read_measurement(path: Path) -> BoardFile:
    """Return the measurement in a file.

    Raises:
        BadInput: one line with the file, the key and the rule.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give the measurement.json that train.py wrote") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is not JSON; give the measurement.json that train.py wrote, whole") from None
    if not isinstance(data, Mapping) or data.get("what") != MEASUREMENT:
        raise BadInput(f"{path} is no measurement of a bundle; give the measurement.json that train.py wrote")
    version = data.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BadInput(
            f"{path}: schema_version is {shown(version)}; this farsearch reads {SCHEMA_VERSION}, export the "
            "bundle again"
        )
    try:
        return BoardFile.from_dict(data)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def adjusted(profile: Profile, file: BoardFile, name: str) -> Profile:
    """Return a profile whose time factor and process memory match the measurement of a board.

    They are those of the engine that ran: without torch, the figures of the engine ``onnx``.

    Args:
        profile: for which the bundle was made.
        name: of the new profile.

    Raises:
        BadInput: for a run without torch, if the profile has no figures of its engine.
    """
    one = file.measured
    run = f"a bundle of {file.study}, trial {one.trial}, on {one.machine}, {one.created.partition('T')[0]}"
    described = dataclasses.replace(
        profile,
        name=name,
        title=f"{one.machine}, by its own run"[:120],
        note=f"{profile.name} with time and process memory as measured by {run}"[:400],
    )
    if not file.without_torch:
        factor, process = _measured(profile.time_factor, profile.process_mib, one, run)
        return dataclasses.replace(described, time_factor=factor, process_mib=process)
    own = profile.onnx
    if own is None:
        raise BadInput(
            f"the bundle ran without torch, and {profile.name} has no figures of that engine; import it for a profile "
            "that has them (farsearch devices list)"
        )
    factor, process = _measured(own.time_factor, own.process_mib, one, run)
    return dataclasses.replace(described, onnx=dataclasses.replace(own, time_factor=factor, process_mib=process))


def _measured(time_factor: Figure, process_mib: Figure, one: Measurement, run: str) -> tuple[Figure, Figure]:
    """The time factor and the process memory with which the predictions were those measured."""
    ratio, beyond = one.wall_time_s / one.predicted_time_s, one.peak_memory_mib - one.predicted_memory_mib
    factor, process = time_factor.value * ratio, max(0.0, process_mib.value + beyond)
    reach = _MEMORY_SPREAD * one.peak_memory_mib
    return (
        Figure(
            factor, factor / _TIME_SPREAD, factor * _TIME_SPREAD,
            f"{run}: {shown_seconds(one.wall_time_s)} for {shown_seconds(one.predicted_time_s)} predicted, "
            f"{time_factor.value:g} x {ratio:.3f}; within a factor of {_TIME_SPREAD:g} (assumed)",
            "measured",
        ),
        Figure(
            process, max(0.0, process - reach), process + reach,
            f"{run}: a peak of {one.peak_memory_mib:.0f} MiB for {one.predicted_memory_mib:.0f} MiB predicted, "
            f"{process_mib.value:g} {beyond:+.0f}; within {_MEMORY_SPREAD:.0%} of the peak (assumed)",
            "measured",
        ),
    )  # fmt: skip
