"""The profile of this machine: calibrated at first use, then read from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from farsearch.calibration.fit import fit_profile
from farsearch.calibration.measure import SCHEMA_VERSION, machine, measure
from farsearch.calibration.result import Calibration, Machine, parse_result
from farsearch.devices.profile import Profile, read_profile, write_profile
from farsearch.devices.registry import LOCAL, load_profile
from farsearch.errors import ProfileError

__all__ = ["find_profile", "local_path", "local_profile", "measure_here", "this_machine"]

_FIRST_USE_S = 45.0
"""Time for the measurements where someone waits for a search to begin. ``devices calibrate`` takes longer."""


def this_machine() -> Machine:
    """The machine that this process runs on: CUDA where torch has it, otherwise the CPU."""
    return Machine.from_dict(machine())


def measure_here(seconds: float, tell: Callable[[str], None]) -> Calibration:
    """Measure this machine; what is drawn at random afterwards is what would have been drawn without."""
    with torch.random.fork_rng():
        return parse_result(measure(seconds, lambda text: tell(f"calibrating: {text}")), "this machine")


def local_path(cache_dir: Path) -> Path:
    """The file of this machine's profile: its name depends on all that the figures depend on."""
    key = json.dumps([SCHEMA_VERSION, this_machine().to_dict()], sort_keys=True)
    return cache_dir / f"{LOCAL}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.toml"


def find_profile(name: str, home: Path, progress: Callable[[str], None] | None = None) -> Profile:
    """A profile by name or path; ``local`` is calibrated at first use.

    Args:
        home: folder of the user's own profiles, ``devices``, and of the cache.
    """
    if name == LOCAL:
        return local_profile(home / "cache" / "devices", progress)
    return load_profile(name, home / "devices")


def local_profile(
    cache_dir: Path, progress: Callable[[str], None] | None = None, seconds: float | None = None
) -> Profile:
    """The profile of this machine: calibrated at first use, then read from ``cache_dir``.

    Args:
        progress: told in a few words what goes on.
        seconds: time for the measurements, by default 45 s.

    A stored file that can't be read as a profile is replaced by a new calibration.

    Raises:
        MissingResource: when ``cache_dir`` can't be written.
    """
    tell = progress or (lambda _: None)
    path = local_path(cache_dir)
    stored = _stored(path, tell)
    if stored is None:
        tell("calibrating this machine once, less than 2 min; leave it alone meanwhile")
        fresh = fit_profile(measure_here(_FIRST_USE_S if seconds is None else seconds, tell), LOCAL)
        # another process may have been faster: its file stands, so that both price alike
        stored = _stored(path, lambda _: None)
        if stored is None:
            write_profile(fresh, path)
            stored = read_profile(path)
    return stored


def _stored(path: Path, tell: Callable[[str], None]) -> Profile | None:
    if not path.exists():
        return None
    try:
        return read_profile(path)
    except ProfileError as error:
        tell(f"{error}; calibrating anew")
        return None
