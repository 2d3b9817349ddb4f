"""The profile of one device in one power mode, and its TOML file.

A file has ``schema_version = 2``, a description of the device, and the sections ``[compute]``, ``[memory]``,
``[software]`` and ``[power]``. Every figure is a table ``{ value, low, high, basis, source }``. A calibrated profile
also has ``[rates]``: measured rates for each kind of operation, and the conditions of the measurement. ``[engines]``
has what differs with another engine of the training step than torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from farsearch.devices.decoding import encode, encode_rates, read_figure, read_rates, read_table, typed
from farsearch.devices.engines import EngineFigures
from farsearch.devices.figure import Figure, check, listed
from farsearch.devices.rates import Rates
from farsearch.errors import ProfileError
from farsearch.far.display import shown, shown_text
from farsearch.files import MADE_BY, write_text
from farsearch.records.config import Engine, Precision
from farsearch.runtime.records import json_reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # only there on Python 3.10

__all__ = ["SCHEMA_VERSION", "Figure", "Profile", "check_name", "parse_profile", "read_profile", "write_profile"]

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SCHEMA_VERSION = 2
"""Version of the file's layout, raised if an old file could be misread; version 1 is still read."""

Attention = Literal["eager", "math", "fused"]
"""Attention of ordinary modules: their own products and softmax, torch's function composed of such, or its kernel that
saves no probabilities."""

_HEAD = ("name", "title", "basis", "kind", "note")
_SECTIONS = {
    "compute": (
        "gemm_gflops", "bmm_gflops", "bandwidth_gbs", "launch_us", "step_us", "token_us", "peak_gflops", "time_factor",
        "bfloat16_speedup", "float16_speedup",
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
_HALF = ("bfloat16_speedup", "float16_speedup")
_OPTIONAL = ("power_w", *_HALF)
_HELD_SHARE = 0.3
"""Memory that torch's caching allocator may hold beside the tensors on CUDA, as a share of them, without a measurement.
Published peaks on boards are up to 0.28 of the tensors above the sum of tensors and process (docs/devices.md)."""


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
        onnx: what differs with the engine ``onnx``, which runs on the CPU without torch; None if unknown. All other
            fields are of the engine ``torch``.
        bfloat16_speedup, float16_speedup: rate of products with factors of this type, by that of fp32; None where the
            device lacks the type, or it is unknown.

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
    onnx: EngineFigures | None = None
    bfloat16_speedup: Figure | None = None
    float16_speedup: Figure | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        for key, figure in self.figures().items():
            field = key.split(".")[1]
            for end, number in (("value", figure.value), ("low", figure.low)):
                check(number > 0 or field in _MAY_BE_ZERO, f"{key}.{end} is {number:g}; it must be above 0")
            if field in _WHOLE:
                check(figure.value.is_integer(), f"{key}.value is {figure.value:g}; it must be a whole number")
        check(
            self.onnx is None or self.kind == "cpu",
            f"engines.onnx is given and kind is {shown(self.kind)}; this engine runs on a CPU: make a profile of it",
        )
        low = self.available_mib[0]
        check(low > 0, f"memory.os_mib.high is {self.os_mib.high:g}; it must be below the low end of visible_mib")

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
    def engines(self) -> tuple[Engine, ...]:
        """Engines of the training step that the profile has figures for; ``torch`` is always the first."""
        return ("torch",) if self.onnx is None else ("torch", "onnx")

    def for_engine(self, engine: Engine) -> Profile:
        """Return the profile as the predictions for an engine need it: with the engine's figures in place of torch's.

        Raises:
            ProfileError: if the profile has no figures of the engine.
        """
        if engine == "torch":
            return replace(self, onnx=None)
        if self.onnx is None:
            raise ProfileError(
                f"{self.name} has no figures of the engine {shown(engine)}; add [engines.{engine}], as in the shipped "
                "profile raspberry-pi-4"
            )
        own: dict[str, Any] = {**self.onnx.figures()}
        if self.onnx.rates is not None:
            own["rates"] = self.onnx.rates
        return replace(self, **own, onnx=None)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Types in which the layers can be executed; ``float32`` is always the first."""
        return ("float32", *(name for name in _PRECISIONS[1:] if getattr(self, f"{name}_speedup") is not None))

    @property
    def digest(self) -> str:
        """SHA-256 over what predictions for torch depend on: figures with ranges, kind and software; no texts.

        That of another engine is the digest of ``for_engine``, that of another precision ``digest_in``.
        """
        return self.digest_in("float32")

    def digest_in(self, precision: Precision) -> str:
        """Return the ``digest`` of predictions for layers in a precision: with its speedup, without others'."""
        others = {f"compute.{name}" for name in _HALF if name != f"{precision}_speedup"}
        figures = {key: (f.value, f.low, f.high) for key, f in self.figures().items() if key not in others}
        rates = (
            None
            if self.rates is None
            else [encode_rates(self.rates)[name] for name in ("bare_us", "products", "streams")]
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
            data[section] = {name: encode(value) for name, value in values.items() if value is not None}
        if self.rates is not None:
            data["rates"] = encode_rates(self.rates)
        if self.onnx is not None:
            data["engines"] = {"onnx": self.onnx.to_dict()}
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


def check_name(name: str) -> None:
    """Raise ProfileError if ``name`` is not a valid name of a profile."""
    right = re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name)
    check(right is not None, f"name is {shown(name)}; it must be lower-case letters, digits and . _ -")


def _check_texts(profile: Profile) -> None:
    """Check the fields that are not figures."""
    check_name(profile.name)
    for key, value, choices in (
        ("basis", profile.basis, ("derived", "calibrated")),
        ("kind", profile.kind, ("cuda", "cpu")),
        ("software.attention", profile.attention, get_args(Attention)),
    ):
        check(value in choices, f"{key} is {shown(value)}; it must be one of {listed(choices)}")
    version = re.match(r"\d+\.\d+", profile.torch)
    check(version is not None, f"software.torch is {shown(profile.torch)}; it must be a version such as '1.10'")
    check(
        profile.attention == "eager" or not profile.torch.startswith(("0.", "1.")),
        f"software.attention is {shown(profile.attention)}; it must be 'eager' with torch {profile.torch}, "
        "for torch has a "
        "function for attention since 2.0",
    )


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
        check(
            type(version) is int and 1 <= version <= SCHEMA_VERSION,
            f"schema_version is {shown(version)}; this farsearch reads 1 to {SCHEMA_VERSION}, a newer file "
            "needs a newer",
        )
    table = read_table(_upgraded(data), "the file", ("schema_version", *_HEAD, *_SECTIONS), ("rates", "engines"))
    values = {name: typed(table[name], _PLAIN[name], name) for name in _HEAD}
    for section, names in _SECTIONS.items():
        optional = [name for name in names if name in _OPTIONAL]
        part = read_table(table[section], section, [name for name in names if name not in optional], optional)
        for name in names:
            key = f"{section}.{name}"
            if name in _PLAIN:
                values[name] = typed(part[name], _PLAIN[name], key)
            else:
                values[name] = read_figure(part[name], key) if name in part else None
    if "rates" in table:
        values["rates"] = read_rates(table["rates"])
    if "engines" in table:
        engines = read_table(table["engines"], "engines", (), ("onnx",))
        values["onnx"] = EngineFigures.from_dict(engines["onnx"], "engines.onnx") if "onnx" in engines else None
    return Profile(**values)
