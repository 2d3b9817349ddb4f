"""The result file of a measurement, validated: it comes from another machine, and users edit it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from farsearch.calibration.engine_steps import STEPS
from farsearch.calibration.measure.cases import CASES, cases
from farsearch.calibration.measure.session import RESULT, RESULT_VERSION
from farsearch.calibration.measure.workloads import WORKLOADS
from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.json_records import UNLESS_DEFAULT, Record
from farsearch.records import Engine, Precision

__all__ = ["Calibration", "Course", "Launch", "Machine", "Memory", "Sample", "parse_result", "read_result"]

_SECONDS = (1e-9, 1e5)
"""Range of plausible seconds of a call; beyond it the arithmetic of a profile could overflow."""
_LEAST_MIB = 128.0
"""Least memory of a machine that runs torch."""
_MOST_TAKEN = 0.9
"""Largest share of the memory held by other programs during a measurement; the script reports no more."""
_MOST_SPEEDUP = 1000.0
_DIMS = frozenset(cases("products")) | frozenset(cases("streams"))
_NEEDED = {
    "matrix product": {"gemm_nt", "gemm_nn", "gemm_tn"},
    "batched product": {"bmm_nt", "bmm_nn", "bmm_tn"},
    "sum or copy": {"add", "scale", "clone", "split_heads"},
}
"""Cases of which at least one is needed for each of a profile's general figures."""


@dataclass(frozen=True)
class Machine(Record):
    """The measured machine, with the version of torch, or those of onnxruntime and numpy."""

    kind: Literal["cuda", "cpu"]
    processor: str
    cores: int
    threads: int
    python: str
    memory_gib: int
    torch: str = field(default="", metadata=UNLESS_DEFAULT)
    onnxruntime: str = field(default="", metadata=UNLESS_DEFAULT)
    numpy: str = field(default="", metadata=UNLESS_DEFAULT)

    @property
    def library(self) -> str:
        """Name and version of what computed."""
        return f"torch {self.torch}" if self.torch else f"onnxruntime {self.onnxruntime}"

    def __post_init__(self) -> None:
        _plain("machine", vars(self).items())
        for name in ("cores", "threads"):
            _check(getattr(self, name) >= 1, f"machine.{name} is {getattr(self, name)}; it must be at least 1")
        one = bool(self.torch or self.onnxruntime)
        _check(one, "machine lacks the key 'torch'; it needs torch, or onnxruntime and numpy")
        name = "onnxruntime" if self.onnxruntime else "torch"
        version = getattr(self, name)
        right = re.match(r"\d+\.\d+", version) is not None
        _check(right, f"machine.{name} is {shown(version)}; it must be a version such as '1.10.2'")
        _check(not (self.torch and self.onnxruntime), "machine has torch and onnxruntime; only one of them computed")

    def conditions(self) -> dict[str, str]:
        """Return the conditions of a profile."""
        names = ("processor", "cores", "threads", "torch", "onnxruntime", "numpy", "python")
        return {name: str(getattr(self, name)) for name in names if getattr(self, name) != ""}


@dataclass(frozen=True)
class Memory(Record):
    """MiB of visible memory, of other programs, and of a bare process; None if not measured."""

    visible_mib: float
    others_mib: float | None
    process_mib: float | None
    visible_is: str
    own: str

    def __post_init__(self) -> None:
        _plain("memory", vars(self).items())
        for name, least, most, rule in (
            ("visible_mib", _LEAST_MIB, 2.0**40, f"at least {_LEAST_MIB:g}"),
            ("others_mib", 0.0, _MOST_TAKEN * self.visible_mib, f"between 0 and {_MOST_TAKEN:g} of visible_mib"),
            ("process_mib", 0.0, 2.0**40, "at least 0"),
        ):
            value = getattr(self, name)
            right = value is None or least <= value <= most
            _check(right, f"memory.{name} is {value}; it must be a number of MiB, {rule}")


@dataclass(frozen=True)
class Launch(Record):
    """Overheads in seconds: of an operation alone, of a tiny training step, of an optimizer's call, of a batch.

    Attributes:
        graph: of the run of a graph, with the engine without torch, whose ``operation`` is one of numpy.
    """

    operation: float
    tiny_step: float
    optimizer_call: float
    batch_of_512_tokens: float
    graph: float | None = field(default=None, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        _seconds("launch", ((name, value) for name, value in vars(self).items() if value is not None))


@dataclass(frozen=True)
class Sample(Record):
    """Median seconds of one call of a case at some dimensions."""

    case: str
    dims: tuple[int, ...]
    seconds: float
    rounds: int

    def __post_init__(self) -> None:
        known = self.case in CASES
        _check(
            known,
            f"samples have the case {shown(self.case)}, unknown to this farsearch; write the script again",
        )
        # other dimensions would be traced too, at any cost
        right = (self.case, self.dims) in _DIMS
        _check(right, f"samples have {self.case} with the dims {list(self.dims)}, which the script does not measure")
        where = f"samples: {self.case} {list(self.dims)}"
        _seconds(where, [("seconds", self.seconds)])
        _check(self.rounds >= 1, f"{where}.rounds is {self.rounds}; it must be at least 1")


@dataclass(frozen=True)
class Course(Record):
    """Median seconds of a step of sustained load: overall, in the first third and in the last."""

    seconds: float
    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        _seconds("sustained", [(name, getattr(self, name)) for name in ("seconds", "first", "last")])
        _check(self.steps >= 1, f"sustained.steps is {self.steps}; it must be at least 1")


@dataclass(frozen=True)
class Calibration(Record):
    """Measurements of one machine.

    Attributes:
        busy_cores: used by other programs before or during the measurement; None if unknown.
        conditions: clocks, governors, power mode and temperatures ``before`` and ``after``.
        sustained: by workload.
        took_s: seconds of the whole measurement.
        half_speedups: rate of products with factors of ``bfloat16`` and ``float16``, by that of float32, where they are
            faster; None where they were not measured.
    """

    what: str
    schema_version: int
    date: str
    machine: Machine
    busy_cores: float | None
    conditions: Mapping[str, Mapping[str, str]]
    memory: Memory
    launch: Launch
    samples: tuple[Sample, ...]
    sustained: Mapping[str, Course]
    took_s: float
    half_speedups: Mapping[Precision, float] | None = field(default=None, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        for precision, speedup in (self.half_speedups or {}).items():
            right = precision in ("bfloat16", "float16") and 1 < speedup < _MOST_SPEEDUP
            _check(right, f"half_speedups.{shown(precision)} is {speedup}; it must be of bfloat16 or float16, above 1")
        _plain("result", [("date", self.date)])
        for name, states in self.conditions.items():
            _plain(f"conditions.{name}", [pair for key, text in states.items() for pair in (("key", key), (key, text))])
        _seconds("result", [("took_s", self.took_s)])
        busy = self.busy_cores
        right = busy is None or 0 <= busy < 1e6
        _check(right, f"busy_cores is {busy}; it must be a number of cores, at least 0")
        measured = {sample.case for sample in self.samples}
        for what, needed in _NEEDED.items():
            _check(bool(measured & needed), f"samples have no {what}; measure again with more --seconds")
        _check(bool(self.sustained), "sustained has no workload; measure again with more --seconds")
        compiled = self.engine == "onnx"
        _check(
            compiled == (self.launch.graph is not None),
            f"launch.graph is {self.launch.graph}; it is the overhead of a graph's run, of onnxruntime alone",
        )
        for name in self.sustained:
            known = name in (STEPS if compiled else WORKLOADS)
            _check(known, f"sustained has the workload {shown(name)}, unknown to this farsearch")

    @property
    def engine(self) -> Engine:
        """The engine of the training step that was measured."""
        return "onnx" if self.machine.onnxruntime else "torch"

    def merged_conditions(self) -> dict[str, str]:
        """Return the conditions by name; those that changed during the measurement with both values."""
        before, after = (self.conditions.get(name, {}) for name in ("before", "after"))
        merged = {}
        for key in sorted({*before, *after}):
            first, last = before.get(key, "unknown"), after.get(key, "unknown")
            merged[key] = first if first == last else f"{first}, then {last}"
        return merged


def read_result(path: Path) -> Calibration:
    """Return the measurements in a file.

    Raises:
        BadInput: one line with the file, the key and the rule.
    """
    try:
        # an integer of many digits would overflow as a float
        data = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give the file that the calibration script wrote") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is not JSON; give the file that the calibration script wrote, whole") from None
    return parse_result(data, str(path))


def parse_result(data: Any, where: str) -> Calibration:
    """Return the measurements in ``data``; ``where`` names their source in errors."""
    if not isinstance(data, Mapping) or data.get("what") != RESULT:
        raise BadInput(
            f"{where} is no result of a calibration; give the file that the calibration script wrote, or the "
            "measurement.json of a bundle"
        )
    version = data.get("schema_version")
    if type(version) is not int or version != RESULT_VERSION:
        raise BadInput(
            f"{where}: schema_version is {shown(version)}; this farsearch reads {RESULT_VERSION}, write the "
            "script again "
            "with farsearch devices calibrate --script"
        )
    try:
        return Calibration.from_dict(data)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else math.inf


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise BadInput(message)


def _seconds(where: str, values: Iterable[tuple[str, float]]) -> None:
    least, most = _SECONDS
    for name, value in values:
        right = least <= value <= most
        _check(right, f"{where}.{name} is {value}; it must be a number of seconds between {least:g} and {most:g}")


def _plain(where: str, values: Iterable[tuple[str, object]]) -> None:
    """Check texts, which are printed and written to a profile: one line without control characters or surrogates."""
    for name, value in values:
        right = not isinstance(value, str) or value.isprintable()
        _check(right, f"{where}.{name} is {shown(value)}; it must be one line of plain text")
