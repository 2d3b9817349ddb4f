"""Find profiles: shipped with the package, contributed by users, the user's own, or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from farsearch.devices.contributed import board_of, check_contributed
from farsearch.devices.profile import Profile, read_profile
from farsearch.errors import ProfileError
from farsearch.far.display import shown
from farsearch.runtime.near_names import did_you_mean

__all__ = ["LOCAL", "is_another_machine", "list_profiles", "load_profile", "load_profiles", "shipped_board"]

LOCAL = "local"
"""Name of this machine's profile, which is calibrated (farsearch.calibration.local) and not shipped."""

_SUFFIX = ".toml"
_SHIPPED = Path(__file__).with_name("profiles")
_CONTRIBUTED = Path(__file__).with_name("contributed")


def list_profiles(user_dir: Path | None = None) -> tuple[str, ...]:
    """Return the names of the shipped and contributed profiles and of those in ``user_dir``, sorted.

    ``local`` is not among them.
    """
    return tuple(sorted({*_folder(_SHIPPED), *_folder(_CONTRIBUTED), *_folder(user_dir)}))


def load_profile(name_or_path: str | Path, user_dir: Path | None = None) -> Profile:
    """Return the profile of a name, or in a file whose path ends in ``.toml``.

    Args:
        user_dir: folder of the user's own profiles, ``NAME.toml``. They take precedence over shipped profiles of the
            same name, so that a calibration of the board replaces the data sheet's figures.

    Raises:
        ProfileError: for an unknown name, with the closest known one, or a file that is no profile.
    """
    text = str(name_or_path)
    if text.endswith(_SUFFIX):
        return read_profile(Path(name_or_path))
    path = {**_folder(_SHIPPED), **_folder(_CONTRIBUTED), **_folder(user_dir)}.get(text)
    if path is None:
        raise _unknown(text, list_profiles(user_dir))
    profile = read_profile(path)
    if profile.name != text:
        raise ProfileError(f"{path}: name is {shown(profile.name)}; it must be the file's name {shown(text)}")
    if path.parent == _CONTRIBUTED:
        check_contributed(profile, shipped_board(board_of(text)))
    return profile


def shipped_board(name: str | None) -> Profile | None:
    """Return the shipped profile of a board, derived from data sheets; None if there is none of this name."""
    path = _folder(_SHIPPED).get(name or "")
    return None if path is None else read_profile(path)


def load_profiles(user_dir: Path, left_out: Callable[[str], None]) -> Iterator[Profile]:
    """Yield the profiles of ``list_profiles``, sorted by name, which groups the modes of a board.

    Args:
        left_out: is called with the error of each that can't be read.
    """
    for name in list_profiles(user_dir):
        try:
            yield load_profile(name, user_dir)
        except ProfileError as error:
            left_out(f"left out: {error}")


def is_another_machine(device: str, machine: str) -> bool:
    """Return whether a machine is certainly not the device of a shipped profile, from its self-description.

    Args:
        device: name of a profile; False for one that is not shipped.
        machine: ``Measurement.machine``: a board's has its family, a workstation's its processor or GPU.
    """
    family = device.partition("-")[0]
    return device in list_profiles() and family not in machine.lower()


def _folder(folder: Path | None) -> dict[str, Path]:
    if folder is None or not folder.is_dir():
        return {}
    return {file.stem: file for file in folder.iterdir() if file.suffix == _SUFFIX}


def _unknown(name: str, known: tuple[str, ...]) -> ProfileError:
    if name == LOCAL:
        return ProfileError("'local' has no shipped profile; it is calibrated on this machine")
    hint = did_you_mean(name, (*known, LOCAL), cutoff=0.4)
    return ProfileError(
        f"unknown device {shown(name)}; {hint and hint + ' '}farsearch devices list names all {len(known)}, 'local' is "
        "this machine, and a "
        "path that ends in .toml is a profile of your own"
    )
