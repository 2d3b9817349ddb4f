"""Shipped profiles, and how a profile is found."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from farsearch.devices import Profile, list_profiles, load_profile
from farsearch.devices.profile import write_profile
from farsearch.errors import ProfileError

SHIPPED = ("jetson-nano", "jetson-orin-nano", "jetson-tx2", "jetson-xavier-nx", "raspberry-pi-4")
PEAK_TFLOPS = {
    "jetson-nano": 0.236,
    "jetson-tx2": 0.67,
    "jetson-xavier-nx": 0.84,
    "jetson-orin-nano": 1.28,
    "raspberry-pi-4": 0.048,
}
"""What the data sheets say, rounded as there."""
GIGABYTES = {"jetson-nano": 4, "jetson-tx2": 8, "jetson-xavier-nx": 8, "jetson-orin-nano": 8, "raspberry-pi-4": 8}


def test_shipped_profiles_are_these() -> None:
    """The devices that the README promises, and no other file."""
    assert list_profiles() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_says_where_each_value_comes_from(name: str) -> None:
    """Every value has a source; what was not read in one gives its arithmetic or its reason, and no path or link."""
    profile = load_profile(name)
    assert (profile.name, profile.basis) == (name, "derived")
    assert profile.note
    for key, figure in profile.figures().items():
        assert len(figure.source) >= 10, key
        assert not re.search(r"https?:|/\w+/|\.md", figure.source), key
        if figure.basis == "assumed" and not key.startswith("software."):
            assert figure.high > figure.low, key


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_figures_are_possible(name: str) -> None:
    """Achieved rates stay under the peak, attention under large products, visible memory under what is soldered on."""
    profile = load_profile(name)
    assert math.isclose(profile.peak_gflops.value, 1000 * PEAK_TFLOPS[name], rel_tol=0.01)
    assert profile.gemm_gflops.high < profile.peak_gflops.value
    assert profile.bmm_gflops.value < profile.gemm_gflops.value
    assert profile.visible_mib.high <= 1024 * GIGABYTES[name]
    low, high = profile.available_mib
    assert profile.process_mib.high < low < high < profile.visible_mib.high
    on_gpu = profile.kind == "cuda"
    assert profile.allocator_block_bytes.value == (512 if on_gpu else 64)
    assert profile.dropout_mask_bytes.value == (1 if on_gpu else 4)


def test_rates_of_the_boards_with_published_steps_agree_with_them() -> None:
    """A BERT-base step of 550.8 GFLOP took 1.70 s on the TX2 and 34.0 s on the Pi: products alone must be faster."""
    for name, seconds in (("jetson-tx2", 1.70), ("raspberry-pi-4", 34.0)):
        gemm = load_profile(name).gemm_gflops
        whole_step = 550.8 / seconds
        assert gemm.value > whole_step
        # and the rest of the step is a fifth of it at most
        assert whole_step / gemm.value > 0.8


def test_nano_leaves_tensors_what_other_accounts_say() -> None:
    """By the rule of feasibility about 2.2 GB are left for tensors on the 4 GB Nano, and surely 1.5 to 2.7."""
    nano = load_profile("jetson-nano")
    left_gb = (nano.available_mib[0] - nano.process_mib.high) * 2**20 / 1e9
    assert 1.5 < left_gb < 2.7
    assert abs(left_gb - 2.2) < 0.2


def _renamed(name: str) -> Profile:
    return dataclasses.replace(load_profile("jetson-nano"), name=name, title="my own", basis="calibrated")


def test_own_profiles_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    """A user's file is listed, loads by name and by path, and goes before a shipped one of its name."""
    for name in ("my-board", "jetson-nano"):
        write_profile(_renamed(name), tmp_path / f"{name}.toml")
    (tmp_path / "notes.txt").write_text("no profile")
    assert list_profiles(tmp_path) == tuple(sorted({*SHIPPED, "my-board"}))
    assert load_profile("my-board", tmp_path) == _renamed("my-board")
    assert load_profile(tmp_path / "my-board.toml") == _renamed("my-board")
    assert load_profile(str(tmp_path / "my-board.toml")) == _renamed("my-board")
    assert load_profile("jetson-nano", tmp_path).title == "my own"
    assert load_profile("jetson-nano").title != "my own"


def test_missing_user_folder_is_no_error(tmp_path: Path) -> None:
    """Without own profiles the shipped ones are there all the same."""
    assert list_profiles(tmp_path / "none") == SHIPPED
    assert load_profile("jetson-tx2", tmp_path / "none").name == "jetson-tx2"


def test_file_must_carry_its_name(tmp_path: Path) -> None:
    """A copied file whose name inside was forgotten would be two devices of one name: it is refused."""
    write_profile(_renamed("jetson-nano"), tmp_path / "my-board.toml")
    with pytest.raises(ProfileError, match=r"my-board\.toml: name is 'jetson-nano'; it must be the file's name"):
        load_profile("my-board", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "closest"), [("jetson-nanno", "jetson-nano"), ("Raspberry-Pi-4", "raspberry-pi-4"), ("locl", "local")]
)
def test_unknown_name_gets_the_known_and_the_closest(wrong: str, closest: str) -> None:
    """A misspelt name gets one line with the closest name and all that are known."""
    with pytest.raises(ProfileError) as caught:
        load_profile(wrong)
    message = str(caught.value)
    assert f"unknown device {wrong!r}; did you mean {closest!r}?" in message
    assert all(name in message for name in (*SHIPPED, "local"))
    assert "\n" not in message


def test_name_that_is_a_path_does_not_leave_the_folder(tmp_path: Path) -> None:
    """Only names are looked up in folders; a path must end in .toml."""
    write_profile(_renamed("my-board"), tmp_path / "my-board.toml")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ProfileError, match="unknown device"):
        load_profile("../my-board", tmp_path / "sub")


def test_local_is_not_a_file() -> None:
    """The name of this machine's profile is known, but it is calibrated and never read from the shipped ones."""
    with pytest.raises(ProfileError, match="calibrated"):
        load_profile("local")
