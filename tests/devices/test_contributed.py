"""Profiles of users: nothing of their owner leaves the machine, and implausible ones are refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import tomli_w

from farsearch.calibration.fit import fit_engine, fit_profile
from farsearch.calibration.result import parse_result
from farsearch.devices import Figure, Profile, list_profiles, load_profile
from farsearch.devices.contributed import anonymous, board_of, check_contributed, contributed_name
from farsearch.devices.registry import shipped_board
from farsearch.errors import ProfileError
from tests.calibration.known import KnownMachine

NAME = "raspberry-pi-5-measured"


@cache
def calibrated(busy_cores: float | None = 0.1) -> Profile:
    """Return the profile of a known machine with figures of both engines."""
    known = KnownMachine()
    profile = fit_profile(parse_result(known.result(busy_cores=busy_cores), "a test"), "mine")
    return with_engine(profile, busy_cores)


def with_engine(profile: Profile, busy_cores: float | None) -> Profile:
    """Return a profile with figures of the engine without torch, whose known steps all take as long as predicted."""
    result = parse_result(KnownMachine().compiled_result(busy_cores=busy_cores), "a test")
    fitted = fit_engine(result, profile)
    assert fitted.onnx is not None
    return replace(fitted, onnx=replace(fitted.onnx, time_factor=profile.time_factor))


def times(figure: Figure, factor: float) -> Figure:
    """Return a figure with its range, multiplied."""
    return replace(figure, value=figure.value * factor, low=figure.low * factor, high=figure.high * factor)


def conditioned(profile: Profile, **conditions: str) -> Profile:
    """Return a profile with other conditions of torch's measurement."""
    assert profile.rates is not None
    return replace(profile, rates=replace(profile.rates, conditions={**profile.rates.conditions, **conditions}))


def test_contributed_profiles_of_the_package_load() -> None:
    """The loader checks each; its name is that of a board."""
    for name in list_profiles():
        assert load_profile(name).basis == ("derived" if board_of(name) is None else "calibrated")


def test_names_are_those_of_the_board() -> None:
    assert [contributed_name("jetson-nano", number) for number in (1, 2)] == [
        "jetson-nano-measured", "jetson-nano-measured-2",
    ]  # fmt: skip
    assert [board_of(name) for name in ("jetson-nano-measured", "jetson-nano-measured-2", "jetson-nano")] == [
        "jetson-nano", "jetson-nano", None,
    ]  # fmt: skip


def test_no_text_of_the_owner_is_left() -> None:
    """Title, note, sources and unknown conditions are theirs; figures and rates stay."""
    mine = conditioned(calibrated(), host="annas-desk", serial="1420422099")
    mine = replace(
        mine, title="Anna's board", note="in /home/anna", gemm_gflops=replace(mine.gemm_gflops, source="by anna"),
        power_w=Figure(7.0, 6.0, 8.0, "anna's meter", "measured"), power_mode="anna's mode",
    )  # fmt: skip
    sent = anonymous(mine, NAME)
    text = tomli_w.dumps(sent.to_dict()).lower()
    assert not any(word in text for word in ("anna", "/home", "1420422099", "mine"))
    assert sent.digest == mine.digest
    assert sent.engines == mine.engines
    assert anonymous(sent, NAME) == sent
    check_contributed(sent, shipped_board("raspberry-pi-5"))


def test_a_profile_with_another_text_is_refused() -> None:
    sent = anonymous(calibrated(), NAME)
    with pytest.raises(ProfileError, match="has texts of its owner"):
        check_contributed(replace(sent, note="call me"), None)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"processor": "a cpu in /home/anna"}, "processor of mine is 'a cpu in /home/anna'"),
        ({"date": "2025-03-02T10:11:12"}, "date of mine is"),
        ({"torch": "mine"}, "torch of mine is 'mine'"),
    ],
)
def test_a_condition_that_no_calibration_writes_is_refused(conditions: dict[str, str], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        anonymous(conditioned(calibrated(), **conditions), NAME)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (load_profile("raspberry-pi-5"), "has no measured rates"),
        (calibrated(None), "lacks the condition 'busy_cores'"),
    ],
)
def test_a_profile_without_a_measurement_of_the_load_is_refused(profile: Profile, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        anonymous(profile, NAME)


def _changes() -> list[tuple[dict[str, Any], str]]:
    one = calibrated()
    assert one.rates is not None
    few = {kind: rate for kind, rate in one.rates.products.items() if kind != "bmm_nt"}
    return [
        ({"bandwidth_gbs": times(one.bandwidth_gbs, 1e-3)}, "compute.bandwidth_gbs is"),
        ({"time_factor": replace(one.time_factor, low=0.3, high=1.9)}, "compute.time_factor is 0.3 to 1.9"),
        ({"gemm_gflops": times(one.gemm_gflops, 50.0)}, "both must be of one measurement"),
        ({"gemm_gflops": times(one.gemm_gflops, 2.2)}, "the peak of raspberry-pi-5 is"),
        ({"visible_mib": times(one.visible_mib, 4.0)}, "was the right machine measured"),
        ({"rates": replace(one.rates, products=few)}, "rates.products lacks bmm_nt"),
    ]


@pytest.mark.parametrize(("changes", "message"), _changes())
def test_an_implausible_profile_is_refused(changes: dict[str, Any], message: str) -> None:
    sent = anonymous(replace(calibrated(), **changes), NAME)
    with pytest.raises(ProfileError, match=message):
        check_contributed(sent, shipped_board("raspberry-pi-5"))


def test_the_load_during_the_measurement_of_each_engine_counts() -> None:
    """A tenth of the cores is the most; the engine without torch was measured at another time."""
    for profile in (calibrated(0.5), with_engine(calibrated(), 0.5)):
        with pytest.raises(ProfileError, match=r"busy_cores is 0\.5 of 4"):
            check_contributed(anonymous(profile, NAME), None)
