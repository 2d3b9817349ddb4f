"""The profile of one device in one power mode, and its TOML file.

A file has ``schema_version = 2``, a description of the device, and the sections ``[compute]``, ``[memory]``,
``[software]`` and ``[power]``. Every figure is a table ``{ value, low, high, basis, source }``. A calibrated profile
also has ``[rates]``: measured rates for each kind of operation, and the conditions of the measurement.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from farsearch.devices.rates import PRODUCTS, STREAMS, ProductRate, Rates, StreamRate
from farsearch.errors import ProfileError
from farsearch.far.display import shown, shown_text
from farsearch.files import MADE_BY, write_text
from farsearch.runtime.near_names import did_you_mean
from farsearch.runtime.records import json_reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # only there on Python 3.10

__all__ = ["SCHEMA_VERSION", "Figure", "Profile", "check_name", "parse_profile", "read_profile", "write_profile"]

SCHEMA_VERSION = 2
"""Version of the file's layout, raised if an old file could be misread; version 1 is still read."""

Attention = Literal["eager", "math", "fused"]
"""Attention of ordinary modules: their own products and softmax, torch's function composed of such, or its kernel that
saves no probabilities."""

Basis = Literal["read", "derived", "measured", "assumed"]
"""Origin of a value: read in a data sheet or report, derived from such by arithmetic, measured on the device, or
assumed."""

_HEAD = ("name", "title", "basis", "kind", "note")
_SECTIONS = {
    "compute": (
        "gemm_gflops", "bmm_gflops", "bandwidth_gbs", "launch_us", "step_us", "token_us", "peak_gflops", "time_factor",
    ),
    "memory": ("visible_mib", "os_mib", "process_mib"),
    "software": (
        "torch", "attention", "foreach", "allocator_block_bytes", "workspace_mib", "dropout_mask_bytes",
    ),
    "power": ("power_w", "power_mode"),
}  # fmt: skip
_PLAIN: dict[str, type] = {
    "torch": str, "attention": str, "power_mode": str, "foreach": bool, **dict.fromkeys(_HEAD, str),
}  # fmt: skip
"""Fields that are not figures, with their types."""
_MAY_BE_ZERO = ("launch_us", "step_us", "token_us", "os_mib", "process_mib", "workspace_mib")
_WHOLE = ("allocator_block_bytes", "dropout_mask_bytes")
_OPTIONAL = ("power_w",)
_FIGURE_KEYS = ("value", "low", "high", "basis", "source")
_HELD_SHARE = 0.3
"""Memory that torch's caching allocator may hold beside the tensors on CUDA, as a share of them, without a measurement.
Published peaks on boards are up to 0.28 of the tensors above the sum of tensors and process (docs/devices.md)."""
_KINDS = {str: "text in quotes", bool: "true or false", float: "a number"}


@dataclass(frozen=True)
class Figure:
    """One number of a profile.

    Attributes:
        low, high: the likely range of the number.
        source: of ``value`` and its range; with the arithmetic of a derived value.

    Raises:
        ProfileError: for a value that is negative or not finite, or outside its range.
    """

    value: float
    low: float
    high: float
    source: str
    basis: Basis

    def __post_init__(self) -> None:
        for key in ("value", "low", "high"):
            number = getattr(self, key)
            _check(math.isfinite(number), f"{key} is {number}; it must be a finite number")
            _check(number >= 0, f"{key} is {number:g}; it must be at least 0")
        _check(self.low <= self.value, f"low is {self.low:g}; it must be at most the value {self.value:g}")
        _check(self.high >= self.value, f"high is {self.high:g}; it must be at least the value {self.value:g}")
        _check(
            self.basis in get_args(Basis), f"basis is {shown(self.basis)}; it must be one of {_listed(get_args(Basis))}"
        )
        _check(bool(self.source.strip()), "source is empty; it must name the source of the value")


@dataclass(frozen=True)
class Profile:
    """A device in one power mode. Units are in the names; ``_mib`` is 2^20 bytes, ``_gbs`` 10^9 bytes a second.

    Attributes:
        basis: ``derived`` from data sheets, or ``calibrated`` on the device.
        kind: ``cuda`` or ``cpu``.
        note: one line about uncertainties.
        gemm_gflops: achieved fp32 rate of large matrix products; an addition and a multiplication are 2 operations.
        bmm_gflops: the same for the batched products of the attention.
        bandwidth_gbs: achieved by element-wise operations; bytes are those of all tensors read and written.
        launch_us: overhead of one operation that computes (views are free), in addition to its roofline.
        step_us: overhead of one call of an optimizer's step, in addition to its operations.
        token_us: time per token of padding a batch and making it a tensor, on the device's CPU.
        peak_gflops: data sheet fp32 peak, for information.
        time_factor: factor of every predicted time, for sustained load compared with the sum of single operations. Low
            and high end determine the range of a predicted time.
        visible_mib: memory that the operating system reports (CUDA: that the device reports).
        os_mib: memory of everything but the training process.
        process_mib: memory of the training process outside its tensors: framework and CUDA context.
        torch: version on the device.
        attention: of ordinary modules; other step plans have their own attention.
        foreach: torch's default optimizer steps all tensors at once, with a temporary copy of the parameters.
        allocator_block_bytes: tensors are rounded up to this.
        workspace_mib: library workspace inside the allocator.
        dropout_mask_bytes: bytes of a dropout mask per element.
        power_w: power draw in this mode; None if unknown.
        rates: measured for each kind of operation; None if only general figures are known.

    Raises:
        ProfileError: for an invalid value, with its key.
    """

    name: str
    title: str
    basis: Literal["derived", "calibrated"]
    kind: Literal["cuda", "cpu"]
    note: str
    gemm_gflops: Figure
    bmm_gflops: Figure
    bandwidth_gbs: Figure
    launch_us: Figure
    step_us: Figure
    token_us: Figure
    peak_gflops: Figure
    time_factor: Figure
    visible_mib: Figure
    os_mib: Figure
    process_mib: Figure
    torch: str
    attention: Attention
    foreach: bool
    allocator_block_bytes: Figure
    workspace_mib: Figure
    dropout_mask_bytes: Figure
    power_w: Figure | None
    power_mode: str
    rates: Rates | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        for key, figure in self.figures().items():
            field = key.split(".")[1]
            for end, number in (("value", figure.value), ("low", figure.low)):
                _check(number > 0 or field in _MAY_BE_ZERO, f"{key}.{end} is {number:g}; it must be above 0")
            if field in _WHOLE:
                _check(figure.value.is_integer(), f"{key}.value is {figure.value:g}; it must be a whole number")
        low = self.available_mib[0]
        _check(low > 0, f"memory.os_mib.high is {self.os_mib.high:g}; it must be below the low end of visible_mib")

    @property
    def available_mib(self) -> tuple[float, float]:
        """Low and high end of the visible memory without that of the operating system, in MiB."""
        return self.visible_mib.low - self.os_mib.high, self.visible_mib.high - self.os_mib.low

    @property
    def held_share(self) -> float:
        """Memory held beside the tensors at the high end of a peak, as a share of them."""
        return _HELD_SHARE if self.kind == "cuda" and self.basis == "derived" else 0.0

    @property
    def budget_mib(self) -> float:
        """Largest central peak of a feasible configuration, in MiB.

        A configuration is feasible if the high end of its peak is at most the low end of ``available_mib``.
        """
        tensors = (self.available_mib[0] - self.process_mib.high) / (1 + self.held_share)
        return tensors + self.process_mib.value

    @property
    def digest(self) -> str:
        """SHA-256 over the values that predictions depend on: figures with ranges, kind and software; no texts."""
        figures = {key: (f.value, f.low, f.high) for key, f in self.figures().items()}
        rates = (
            None
            if self.rates is None
            else [_encode_rates(self.rates)[name] for name in ("bare_us", "products", "streams")]
        )
        text = json.dumps([self.kind, self.torch, self.attention, self.foreach, figures, rates], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def figures(self) -> dict[str, Figure]:
        """Return all figures by their keys in the file, such as ``compute.gemm_gflops``."""
        values = ((f"{section}.{name}", getattr(self, name)) for section, names in _SECTIONS.items() for name in names)
        return {key: value for key, value in values if isinstance(value, Figure)}

    def to_dict(self) -> dict[str, Any]:
        """Return the profile in the layout of its file, with the schema version. A missing ``power_w`` is left out."""
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **{name: getattr(self, name) for name in _HEAD}}
        for section, names in _SECTIONS.items():
            values = {name: getattr(self, name) for name in names}
            data[section] = {name: _encode(value) for name, value in values.items() if value is not None}
        if self.rates is not None:
            data["rates"] = _encode_rates(self.rates)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "profile") -> Profile:
        """Return the profile in ``data``, in the layout of the file; ``where`` names the file in errors.

        Raises:
            ProfileError: for an unknown or missing key, or an invalid value: one line with file and key.
        """
        try:
            return _decode(data)
        except ProfileError as error:
            raise ProfileError(f"{where}: {error}") from None


def parse_profile(text: str, where: str) -> Profile:
    """Return the profile in the TOML ``text``; ``where`` names the file in errors.

    Raises:
        ProfileError: if it is not TOML, or not a profile.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = shown_text(json_reason(error), 160)
        raise ProfileError(f"{where}: not valid TOML: {reason}; correct it") from None
    return Profile.from_dict(data, where)


def read_profile(path: Path) -> Profile:
    """Return the profile in the file ``path``.

    Raises:
        ProfileError: if it can't be read, or is not a profile.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ProfileError(f"{path}: not UTF-8 text; a profile is a TOML file") from None
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}; give the path of a profile that can be read") from None
    return parse_profile(text, str(path))


def write_profile(profile: Profile, path: Path) -> None:
    """Write ``profile`` to ``path`` atomically.

    Raises:
        MissingResource: if the folder can't be made or written.
    """
    write_text(path, f"# {MADE_BY}\n{tomli_w.dumps(profile.to_dict())}")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ProfileError(message)


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def check_name(name: str) -> None:
    """Raise ProfileError if ``name`` is not a valid name of a profile."""
    right = re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name)
    _check(right is not None, f"name is {shown(name)}; it must be lower-case letters, digits and . _ -")


def _check_texts(profile: Profile) -> None:
    """Check the fields that are not figures."""
    check_name(profile.name)
    for key, value, choices in (
        ("basis", profile.basis, ("derived", "calibrated")),
        ("kind", profile.kind, ("cuda", "cpu")),
        ("software.attention", profile.attention, get_args(Attention)),
    ):
        _check(value in choices, f"{key} is {shown(value)}; it must be one of {_listed(choices)}")
    version = re.match(r"\d+\.\d+", profile.torch)
    _check(version is not None, f"software.torch is {shown(profile.torch)}; it must be a version such as '1.10'")
    _check(
        profile.attention == "eager" or not profile.torch.startswith(("0.", "1.")),
        f"software.attention is {shown(profile.attention)}; it must be 'eager' with torch {profile.torch}, "
        "for torch has a "
        "function for attention since 2.0",
    )


def _encode(value: Any) -> Any:
    return {key: getattr(value, key) for key in _FIGURE_KEYS} if isinstance(value, Figure) else value


def _encode_rates(rates: Rates) -> dict[str, Any]:
    products = {kind: dict(vars(rate)) for kind, rate in rates.products.items()}
    streams = {kind: {"mib": list(rate.mib), "us": list(rate.us)} for kind, rate in rates.streams.items()}
    return {
        "conditions": dict(rates.conditions), "bare_us": rates.bare_us, "products": products, "streams": streams,
    }  # fmt: skip


def _upgraded(data: Any) -> Any:
    """Convert version 1 to the current layout: it had no time of loading and of an optimizer's call."""
    if not isinstance(data, Mapping) or data.get("schema_version") != 1:
        return data
    zero = {"value": 0.0, "basis": "assumed", "source": "not known to version 1 of the profile's layout"}
    upgraded = {**data, "schema_version": SCHEMA_VERSION}
    compute, software = data.get("compute"), data.get("software")
    if isinstance(compute, Mapping):
        upgraded["compute"] = {"step_us": zero, "token_us": zero, **compute}
    if isinstance(software, Mapping):
        # the most expensive attention that its torch may have: what fitted still fits
        attention = "eager" if re.match(r"[01]\.", str(software.get("torch"))) else "math"
        upgraded["software"] = {"attention": attention, **software}
    return upgraded


def _decode(data: Any) -> Profile:
    if isinstance(data, Mapping) and "schema_version" in data:
        # checked first, because a newer file may have any keys
        version = data["schema_version"]
        _check(
            type(version) is int and 1 <= version <= SCHEMA_VERSION,
            f"schema_version is {shown(version)}; this farsearch reads 1 to {SCHEMA_VERSION}, a newer file "
            "needs a newer",
        )
    table = _table(_upgraded(data), "the file", ("schema_version", *_HEAD, *_SECTIONS), ("rates",))
    values = {name: _typed(table[name], _PLAIN[name], name) for name in _HEAD}
    for section, names in _SECTIONS.items():
        optional = [name for name in names if name in _OPTIONAL]
        part = _table(table[section], section, [name for name in names if name not in optional], optional)
        for name in names:
            key = f"{section}.{name}"
            if name in _PLAIN:
                values[name] = _typed(part[name], _PLAIN[name], key)
            else:
                values[name] = _figure(part[name], key) if name in part else None
    if "rates" in table:
        values["rates"] = _rates(table["rates"])
    return Profile(**values)


def _rates(value: Any) -> Rates:
    table = _table(value, "rates", ("conditions", "bare_us", "products", "streams"))
    bare_us = _typed(table["bare_us"], float, "rates.bare_us")
    texts = _table(table["conditions"], "rates.conditions", (), _keys(table["conditions"]))
    conditions = {key: _typed(word, str, f"rates.conditions[{shown(key)}]") for key, word in texts.items()}
    products = {}
    for kind, rate in _table(table["products"], "rates.products", (), PRODUCTS).items():
        where = f"rates.products.{kind}"
        fields = _table(rate, where, tuple(ProductRate.__dataclass_fields__))
        numbers = {key: _typed(number, float, f"{where}.{key}") for key, number in fields.items()}
        products[kind] = _made(where, ProductRate, **numbers)
    streams = {}
    for kind, rate in _table(table["streams"], "rates.streams", (), STREAMS).items():
        where = f"rates.streams.{kind}"
        lists = {key: _numbers(part, f"{where}.{key}") for key, part in _table(rate, where, ("mib", "us")).items()}
        streams[kind] = _made(where, StreamRate, **lists)
    rates: Rates = _made("rates", Rates, conditions=conditions, bare_us=bare_us, products=products, streams=streams)
    return rates


def _keys(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Mapping) else ()


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    _check(isinstance(value, list), f"{where} is {shown(value)}; it must be a list of numbers")
    return tuple(_typed(number, float, where) for number in value)


def _made(where: str, kind: Callable[..., Any], **values: Any) -> Any:
    try:
        return kind(**values)
    except ProfileError as error:
        raise ProfileError(f"{where}.{error}") from None


def _table(value: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> Mapping[str, Any]:
    """Return ``value`` as a table with all ``required`` keys and no others than these and the ``optional``."""
    needed = list(required)
    known = [*needed, *optional]
    _check(isinstance(value, Mapping), f"{where} is {shown(value)}; it must be a table")
    for key in value:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ProfileError(
                f"{where} has the unknown key {shown(key)}; {hint and hint + ' '}known are {_listed(known)}"
            )
    for key in needed:
        _check(key in value, f"{where} lacks the key {shown(key)}; it needs {_listed(needed)}")
    table: Mapping[str, Any] = value
    return table


def _typed(value: Any, kind: type, where: str) -> Any:
    if kind is float and type(value) is int:
        # tomllib's integers are unbounded, floats are not
        return float(value) if abs(value) < 2**63 else math.inf
    _check(type(value) is kind, f"{where} is {shown(value)}; it must be {_KINDS.get(kind, kind.__name__)}")
    return value


def _figure(value: Any, where: str) -> Figure:
    table = _table(value, where, ("value", "basis", "source"), ("low", "high"))
    texts = {key: _typed(table[key], str, f"{where}.{key}") for key in ("basis", "source")}
    numbers = {key: _typed(table.get(key, table["value"]), float, f"{where}.{key}") for key in ("value", "low", "high")}
    figure: Figure = _made(where, Figure, **numbers, **texts)
    return figure
