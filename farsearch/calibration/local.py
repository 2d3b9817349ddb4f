"""The profile of this machine: calibrated at first use, then read from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from farsearch.calibration.fit import fit_engine, fit_profile
from farsearch.calibration.measure.command import measure
from farsearch.calibration.measure.machine import machine
from farsearch.calibration.measure.session import RESULT_VERSION
from farsearch.calibration.result import Calibration, Machine, parse_result
from farsearch.devices.profile import Profile, read_profile, write_profile
from farsearch.devices.registry import LOCAL, load_profile
from farsearch.errors import BadInput, ProfileError
from farsearch.records import Engine

__all__ = [
    "calibrated_here", "find_engine_profile", "find_profile", "local_path", "local_profile", "measure_here",
    "this_machine",
]  # fmt: skip

_FIRST_USE_S = 45.0
"""Time of the measurements before a search. ``devices calibrate`` takes longer."""


def this_machine() -> Machine:
    """Return the machine of this process: CUDA if torch supports it, otherwise the CPU."""
    return Machine.from_dict(machine())


def measure_here(seconds: float, report: Callable[[str], None], engine: Engine = "torch") -> Calibration:
    """Measure this machine with an engine, and restore the state of torch's generator afterwards."""

    def note(text: str) -> None:
        report(f"calibrating: {text}")

    with torch.random.fork_rng():
        if engine == "torch":
            return parse_result(measure(seconds, note), "this machine")
        # imported here: it needs the extra onnx
        from farsearch.calibration.measure.onnx_command import measure_engine
        from farsearch.calibration.payload import engine_payload

        note("compiling what is measured")
        return parse_result(measure_engine(engine_payload(), seconds, note), "this machine")


def local_path(cache_dir: Path) -> Path:
    """Return the file of this machine's profile; the name depends on everything that affects the figures."""
    key = json.dumps([RESULT_VERSION, this_machine().to_dict()], sort_keys=True)
    return cache_dir / f"{LOCAL}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.toml"


def find_profile(name: str, home: Path, progress: Callable[[str], None] | None = None) -> Profile:
    """Return a profile by name or path; ``local`` is calibrated at first use.

    Args:
        home: folder of the user's own profiles, ``devices``, and of the cache.
    """
    if name == LOCAL:
        return local_profile(home / "cache" / "devices", progress)
    return load_profile(name, home / "devices")


def find_engine_profile(profile: Profile, engine: Engine, home: Path) -> Profile:
    """Return a profile with the figures of an engine.

    Where it has none, a CPU's gets those that shipped profiles assume, and that of the board's CPU, ``NAME-cpu``,
    replaces a GPU's.

    Raises:
        ProfileError: if neither has them.
    """
    if engine in profile.engines:
        return profile.for_engine(engine)
    if profile.kind == "cpu":
        return _with_assumed(profile).for_engine(engine)
    try:
        beside = find_profile(f"{profile.name}-cpu", home)
    except ProfileError:
        return profile.for_engine(engine)  # names what is missing
    return beside.for_engine(engine)


def _with_assumed(profile: Profile) -> Profile:
    """Return a CPU's profile with figures of the engine onnx as shipped profiles assume them."""
    shipped, factor = load_profile("raspberry-pi-4").onnx, profile.time_factor
    assert shipped is not None
    wide = replace(
        factor, low=0.5 * factor.low, high=1.5 * factor.high, basis="assumed",
        source=f"that of torch with a wider range, for nothing is measured with this engine: {factor.source}",
    )  # fmt: skip
    return replace(profile, onnx=replace(shipped, time_factor=wide, rates=None))


def local_profile(
    cache_dir: Path, progress: Callable[[str], None] | None = None, seconds: float | None = None
) -> Profile:
    """Return the profile of this machine: calibrated at first use, then read from ``cache_dir``.

    A stored file that is no valid profile is replaced by a new calibration.

    Args:
        progress: called with messages.
        seconds: time of the measurements, by default 45 s.

    Raises:
        MissingResource: if ``cache_dir`` can't be written.
    """
    report = progress or (lambda _: None)
    path = local_path(cache_dir)
    stored = _stored(path, report)
    if stored is None:
        report("calibrating this machine once, less than 2 min; leave it alone meanwhile")
        fresh = fit_profile(measure_here(_FIRST_USE_S if seconds is None else seconds, report), LOCAL)
        # another process may have been faster: its file is used, so that both predict the same
        stored = _stored(path, lambda _: None)
        if stored is None:
            write_profile(fresh, path)
            stored = read_profile(path)
    return stored


def calibrated_here(
    cache_dir: Path, name: str, engine: Engine, seconds: float, report: Callable[[str], None]
) -> Profile:
    """Return a profile of this machine with newly measured figures of an engine, and those of the other as stored.

    Figures of torch are measured first if none are stored.

    Args:
        cache_dir: with the profile ``local``.
        name: of the returned profile.
        seconds: time of the measurements.

    Raises:
        BadInput: for ``onnx``, where torch has a GPU.
    """
    if engine == "torch":
        stored = _stored(local_path(cache_dir), report)
        fresh = fit_profile(measure_here(seconds, report), name)
        return fresh if stored is None else replace(fresh, onnx=stored.onnx)
    base = replace(local_profile(cache_dir, report), name=name)
    if base.kind != "cpu":
        raise BadInput(
            "the profile of this machine is of its GPU, and the engine 'onnx' runs on the CPU; start the command with "
            "CUDA_VISIBLE_DEVICES= to calibrate the CPU"
        )
    return fit_engine(measure_here(seconds, report, engine), base)


def _stored(path: Path, report: Callable[[str], None]) -> Profile | None:
    if not path.exists():
        return None
    try:
        return read_profile(path)
    except ProfileError as error:
        report(f"{error}; calibrating anew")
        return None
