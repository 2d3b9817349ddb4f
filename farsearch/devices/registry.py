"""Find a profile: shipped with the package, the user's own, a file, or this machine calibrated."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from farsearch.devices.profile import Profile, read_profile, write_profile
from farsearch.errors import ProfileError

__all__ = ["LOCAL", "list_profiles", "load_profile", "local_profile"]

LOCAL = "local"
"""Name of the profile of this machine, which is calibrated and not read from a shipped file."""

_SUFFIX = ".toml"
_SHIPPED = Path(__file__).with_name("profiles")


def list_profiles(user_dir: Path | None = None) -> tuple[str, ...]:
    """Names of the shipped profiles and of those in ``user_dir``, sorted; ``local`` is not among them."""
    return tuple(sorted({*_folder(_SHIPPED), *_folder(user_dir)}))


def load_profile(name_or_path: str | Path, user_dir: Path | None = None) -> Profile:
    """The profile of a name, or in a file whose path ends in ``.toml``.

    Args:
        user_dir: folder of the user's own profiles, ``NAME.toml``. One with a shipped name goes before the shipped
            one, so that a calibration made on the board takes the place of the data sheet's.

    Raises:
        ProfileError: for an unknown name, naming the closest, or a file that is no profile.
    """
    text = str(name_or_path)
    if text.endswith(_SUFFIX):
        return read_profile(Path(name_or_path))
    path = {**_folder(_SHIPPED), **_folder(user_dir)}.get(text)
    if path is None:
        raise _unknown(text, list_profiles(user_dir))
    profile = read_profile(path)
    if profile.name != text:
        raise ProfileError(f"{path}: name is {profile.name!r}; it must be the file's name {text!r}")
    return profile


def local_profile(
    cache_dir: Path, progress: Callable[[str], None] | None = None, seconds: float | None = None
) -> Profile:
    """The profile of this machine: calibrated at first use, then read from ``cache_dir``.

    Args:
        progress: told in a few words what goes on.
        seconds: time for the measurements, by default that of `farsearch.devices.calibrate.calibrate`, with
            which the whole takes less than 60 s.

    A stored file that can't be read as a profile is replaced by a new calibration.

    Raises:
        MissingResource: when ``cache_dir`` can't be written.
    """
    # torch takes seconds to import, and only this function of the package needs it
    from farsearch.devices.calibrate import DEFAULT_SECONDS, calibrate
    from farsearch.devices.machine import this_machine

    tell = progress or (lambda _: None)
    machine = this_machine()
    path = cache_dir / f"{LOCAL}-{machine.identity}{_SUFFIX}"
    stored = _stored(path, tell)
    if stored is None:
        fresh = calibrate(machine, DEFAULT_SECONDS if seconds is None else seconds, tell)
        # another process may have been faster: its file stands, so that both price alike
        stored = _stored(path, lambda _: None)
        if stored is None:
            write_profile(fresh, path)
            stored = read_profile(path)
    return stored


def _folder(folder: Path | None) -> dict[str, Path]:
    if folder is None or not folder.is_dir():
        return {}
    return {file.stem: file for file in folder.iterdir() if file.suffix == _SUFFIX}


def _stored(path: Path, tell: Callable[[str], None]) -> Profile | None:
    if not path.exists():
        return None
    try:
        return read_profile(path)
    except ProfileError as error:
        tell(f"{error}; calibrating anew")
        return None


def _unknown(name: str, known: tuple[str, ...]) -> ProfileError:
    names = (*known, LOCAL)
    if name == LOCAL:
        return ProfileError("'local' has no shipped profile; it is calibrated on this machine with local_profile")
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ProfileError(
        f"unknown device {name!r}; {hint}known are {', '.join(names)}, or give the path of a file that ends in .toml"
    )
