"""Profiles that users measured and sent: what leaves their machine, and the rules by which the package takes it.

A contributed profile is a calibrated one without any text of its owner: title, note and sources are made from the
conditions of the measurement, of which only known ones are left. So a file is anonymous if ``anonymous`` does not
change it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from farsearch.devices.engines import EngineFigures
from farsearch.devices.figure import Figure, check, listed
from farsearch.devices.profile import Profile, check_name
from farsearch.devices.rates import PRODUCTS, Rates
from farsearch.errors import ProfileError
from farsearch.far.display import shown

__all__ = ["anonymous", "board_of", "check_contributed", "contributed_name", "is_unlike"]

_SUFFIX = "-measured"
_NUMBER, _VERSION = r"\d+(\.\d+)?", r"\d+\.\d+[\w.+-]*"
_LINE = r"(?!.*(^|[\s=:])(/\w|~|\w:\\))[^\x00-\x1f\x7f]{1,120}"
"""One line without the path of a file."""
_CONDITIONS = {
    "date": r"\d{4}-\d\d-\d\d", "busy_cores": _NUMBER, "cores": r"\d+", "threads": r"\d+", "python": _VERSION,
    "torch": _VERSION, "onnxruntime": _VERSION, "numpy": _VERSION, "processor": _LINE, "board": _LINE,
    "jetpack": _LINE, "power_mode": _LINE, "cpu_governor": _LINE, "cpu_khz": _LINE, "cpu_max_khz": _LINE,
    "gpu_hz": _LINE, "hottest_celsius": _LINE, "throttled": _LINE,
}  # fmt: skip
"""Conditions that a contributed profile may have, with the form of their values."""
_NEEDED = ("date", "busy_cores", "cores", "threads", "processor")

_BUSY_SHARE = 0.1
"""Largest share of the cores that other programs may have used. A profile for one's own machine may come from a busy
one, with a wider range; others can't know how busy."""
_BOUNDS = {
    "compute.gemm_gflops": (0.5, 2e5), "compute.bmm_gflops": (0.1, 2e5), "compute.bandwidth_gbs": (0.1, 2e4),
    "compute.launch_us": (0.0, 2e3), "compute.time_factor": (0.25, 4.0), "memory.visible_mib": (128.0, 2.0**22),
    "memory.process_mib": (16.0, 2.0**14),
}  # fmt: skip
"""Figures of machines from the smallest board to the largest accelerator, with room on both sides."""
_WIDEST_FACTOR = 4.0
"""High by low end of ``time_factor`` in derived profiles; a measurement has to be better than these."""
_ABOVE_PEAK = 1.1
_PRODUCT = (1024, 768, 768)
"""Rows, inner and outer dimension of a product of BERT-base's attention with 8 x 128 tokens."""
_OFF = 3.0

_Described = TypeVar("_Described", Profile, EngineFigures)


def contributed_name(board: str, number: int = 1) -> str:
    """Return the name of the first, second … contributed profile of a board."""
    check_name(board)
    return f"{board}{_SUFFIX}" + (f"-{number}" if number > 1 else "")


def board_of(name: str) -> str | None:
    """Return the board in the name of a contributed profile; None for another name."""
    match = re.fullmatch(rf"(.+){_SUFFIX}(-\d+)?", name)
    return None if match is None else match[1]


def anonymous(profile: Profile, name: str) -> Profile:
    """Return a calibrated profile as it may leave its machine: figures, rates, and texts made from its conditions.

    Raises:
        ProfileError: for a profile that is not calibrated, or lacks a condition, such as the cores kept busy by others.
    """
    rates = profile.rates
    if profile.basis != "calibrated" or rates is None:
        raise ProfileError(
            f"{profile.name} has no measured rates; give a profile that farsearch devices calibrate or import made of "
            "a calibration"
        )
    known = _known(rates, profile.name)
    model, busy = known.get("board", known["processor"]), known["busy_cores"]
    return replace(
        _with_sources(profile, known),
        name=name,
        title=f"{model}, {known['cores']} cores, measured {known['date']}",
        note=f"contributed by a user; other programs kept {busy} of {known['cores']} cores busy",
        power_mode=known.get("power_mode", "as found"),
        onnx=None if profile.onnx is None else _anonymous_engine(profile.onnx, known, profile.name),
    )


def _anonymous_engine(figures: EngineFigures, torch: Mapping[str, str], name: str) -> EngineFigures:
    return _with_sources(figures, torch if figures.rates is None else _known(figures.rates, name))


def _with_sources(part: _Described, known: Mapping[str, str]) -> _Described:
    """Return a part of a profile with new sources, and rates with the known conditions alone."""
    figures: dict[str, Any] = {
        key: _sourced(value, known) for key, value in vars(part).items() if isinstance(value, Figure)
    }
    rates = None if part.rates is None else replace(part.rates, conditions=known)
    return replace(part, **figures, rates=rates)


def _known(rates: Rates, name: str) -> dict[str, str]:
    found = {key: rates.conditions[key] for key in _CONDITIONS if key in rates.conditions}
    for key in _NEEDED:
        check(key in found, f"{name} lacks the condition {shown(key)}; measure again with this farsearch, on Linux")
    for key, text in found.items():
        right = re.fullmatch(_CONDITIONS[key], text) is not None
        check(right, f"the condition {key} of {name} is {shown(text)}; it must be as a calibration writes it")
    return found


def _sourced(figure: Figure, known: Mapping[str, str]) -> Figure:
    library = " ".join(f"{key} {known[key]}" for key in ("torch", "onnxruntime") if key in known)
    return replace(figure, source=f"{figure.basis}, calibration of {known['date']} with {library}")


def check_contributed(profile: Profile, board: Profile | None) -> None:
    """Check that a profile is anonymous, of an idle machine, and plausible.

    Args:
        board: the shipped profile of the same board and mode; None for a board that has none.

    Raises:
        ProfileError: one line with the figure, the rule and a suggestion.
    """
    right = board_of(profile.name) is not None
    check(right, f"name is {shown(profile.name)}; a contributed profile has the name of its board and {_SUFFIX!r}")
    check(anonymous(profile, profile.name) == profile, f"{profile.name} has texts of its owner; make it with submit")
    # without rates of its own an engine has only assumed figures, which the profile's rates can't confirm
    compiled = profile.onnx is not None and profile.onnx.rates is not None
    for one in (profile, *([profile.for_engine("onnx")] if compiled else [])):
        _check_idle(one)
        _check_figures(one)
        _check_rates(one)
    if board is not None:
        _check_board(profile, board)


def is_unlike(profile: Profile, shipped: Profile) -> bool:
    """Return whether a profile is of another kind of processor, or has far more or less memory, than a shipped one."""
    (low, high), (least, most) = profile.available_mib, shipped.available_mib
    return profile.kind != shipped.kind or low > 1.5 * most or 1.5 * high < least


def _check_idle(profile: Profile) -> None:
    assert profile.rates is not None
    busy, cores = (float(profile.rates.conditions[key]) for key in ("busy_cores", "cores"))
    check(
        busy <= _BUSY_SHARE * cores,
        f"busy_cores is {busy:g} of {cores:g}; it must be at most {_BUSY_SHARE:.0%} of them: measure again when no "
        "other program runs",
    )


def _check_figures(profile: Profile) -> None:
    figures = profile.figures()
    for key, (least, most) in _BOUNDS.items():
        value = figures[key].value
        check(least <= value <= most, f"{key} is {value:g}; plausible is {least:g} to {most:g}: measure again")
    factor = profile.time_factor
    check(
        factor.high <= _WIDEST_FACTOR * factor.low,
        f"compute.time_factor is {factor.low:g} to {factor.high:g}; its ends must be within a factor of "
        f"{_WIDEST_FACTOR:g}, that of derived profiles: measure again with more --seconds",
    )


def _check_rates(profile: Profile) -> None:
    assert profile.rates is not None
    missing = [kind for kind in PRODUCTS if kind not in profile.rates.products]
    check(not missing, f"rates.products lacks {listed(missing)}; measure again with more --seconds")
    m, k, n = _PRODUCT
    rate, figure = profile.rates.products["gemm_nt"], profile.gemm_gflops
    moved = rate.s_per_gb_left * m * k + rate.s_per_gb_right * k * n + rate.s_per_gb_out * m * n
    seconds = 2 * m * k * n * rate.s_per_tflop / 1e12 + 4 * moved / 1e9 + (rate.us_per_matrix + rate.us_per_call) / 1e6
    gflops = 2 * m * k * n / seconds / 1e9
    check(
        figure.low / _OFF <= gflops <= figure.high * _OFF,
        f"rates.products.gemm_nt gives {gflops:.3g} GFLOP/s for {m} x {k} x {n}; compute.gemm_gflops is {figure.low:g} "
        f"to {figure.high:g}: both must be of one measurement",
    )


def _check_board(profile: Profile, board: Profile) -> None:
    (low, high), (least, most) = profile.available_mib, board.available_mib
    check(
        not is_unlike(profile, board),
        f"{profile.name} is a {profile.kind} with {low:.0f} to {high:.0f} MiB for a process; {board.name} is a "
        f"{board.kind} with {least:.0f} to {most:.0f}: was the right machine measured?",
    )
    measured, peak = profile.gemm_gflops.value, board.peak_gflops.value
    check(
        measured <= _ABOVE_PEAK * peak,
        f"compute.gemm_gflops is {measured:g}; the peak of {board.name} is {peak:g}: give the profile of the board's "
        "power mode",
    )
