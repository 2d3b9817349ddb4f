"""The profile record, its file and the errors of files that are wrong."""

from __future__ import annotations

import copy
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from farsearch.devices.profile import Figure, Profile, parse_profile, read_profile, write_profile
from farsearch.errors import MissingResource, ProfileError

SPECIMEN = Path(__file__).with_name("assets") / "profile_v1.toml"
SPECIMEN_DIGEST = "35d297d52b70f10442d6b6f6ae90e5f949ee99fb107dc43f043d89766b686093"


@pytest.fixture
def data() -> dict[str, Any]:
    """The specimen in the layout of its file, to be changed at will."""
    return copy.deepcopy(read_profile(SPECIMEN).to_dict())


def test_specimen_of_version_1_loads_as_it_always_did() -> None:
    """An old file loads with the same digest; ends of a range that are not given are the value."""
    profile = read_profile(SPECIMEN)
    assert profile.digest == SPECIMEN_DIGEST
    assert profile.launch_us == Figure(30.0, 30.0, 30.0, "no published figure", "assumed")
    assert (profile.workspace_mib.low, profile.workspace_mib.high) == (0.0, 8.0)
    assert profile.power_w is not None
    assert profile.power_w.value == 10


def test_available_memory_takes_the_system_away_end_by_end() -> None:
    """The low end is the least that is visible without the most that others take, and the other way round."""
    assert read_profile(SPECIMEN).available_mib == (3773 - 512, 3965 - 286)


def test_digest_is_of_what_prices_a_job(data: dict[str, Any]) -> None:
    """Words and sources may change under the same digest; no figure, torch version or kind may."""
    digest = Profile.from_dict(data).digest
    words = copy.deepcopy(data)
    words.update(title="another", note="another", name="another", basis="calibrated")
    words["compute"]["gemm_gflops"].update(source="another", basis="measured")
    words["compute"] = dict(reversed(words["compute"].items()))
    assert Profile.from_dict(words).digest == digest

    digests = {digest}
    changes = 0
    for key in Profile.from_dict(data).figures():
        if key != "compute.time_factor":
            section, name = key.split(".")
            changed = copy.deepcopy(data)
            changed[section][name]["value"] += 1
            changed[section][name]["high"] += 2
            digests.add(Profile.from_dict(changed).digest)
            changes += 1
    for section, name, value in (("software", "torch", "1.11"), ("software", "foreach", True)):
        changed = copy.deepcopy(data)
        changed[section][name] = value
        digests.add(Profile.from_dict(changed).digest)
    digests.add(Profile.from_dict({**data, "kind": "cpu"}).digest)
    assert len(digests) == 1 + changes + 3


def _figures(least: float = 1e-3) -> st.SearchStrategy[Figure]:
    ends = st.lists(st.floats(least, 1e6), min_size=3, max_size=3).map(sorted)
    source = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))
    return st.builds(
        lambda ends, source, basis: Figure(ends[1], ends[0], ends[2], source, basis),
        ends,
        source,
        st.sampled_from(["read", "derived", "measured", "assumed"]),
    )


@st.composite
def _profiles(draw: st.DrawFn) -> Profile:
    start = read_profile(SPECIMEN)
    rates = {name: draw(_figures()) for name in ("gemm_gflops", "bmm_gflops", "bandwidth_gbs", "peak_gflops")}
    shares = {name: draw(_figures(0)) for name in ("launch_us", "process_mib", "workspace_mib")}
    return dataclasses.replace(
        start,
        **rates,
        **shares,
        title=draw(st.text(st.characters(blacklist_categories=["Cs"]))),
        kind=draw(st.sampled_from(["cuda", "cpu"])),
        foreach=draw(st.booleans()),
        power_w=draw(st.none() | _figures()),
    )


@settings(deadline=None)  # a busy machine is no failure
@given(_profiles())
def test_round_trip_through_toml_is_the_identity(profile: Profile) -> None:
    """Whatever a profile holds, its file says it and nothing else."""
    text = tomli_w.dumps(profile.to_dict())
    assert parse_profile(text, "x.toml") == profile
    assert Profile.from_dict(profile.to_dict()).digest == profile.digest


WRONG: list[tuple[str, Any, list[str]]] = [
    ("compute.bandwidth_gbs.value", -1.0, ["compute.bandwidth_gbs.value is -1", "at least 0"]),
    (
        "compute.bandwidth_gbs",
        {"value": -1, "basis": "read", "source": "x"},
        ["bandwidth_gbs.value is -1", "at least 0"],
    ),
    ("compute.bandwidth_gbs", {"value": 0, "basis": "read", "source": "x"}, ["bandwidth_gbs.value is 0", "above 0"]),
    ("compute.gemm_gflops.low", 0, ["compute.gemm_gflops.low is 0", "above 0"]),
    ("compute.gemm_gflops.low", -5.0, ["compute.gemm_gflops.low is -5", "at least 0"]),
    ("compute.gemm_gflops.low", 131.0, ["compute.gemm_gflops.low is 131", "at most the value 130"]),
    ("compute.gemm_gflops.high", 129.0, ["compute.gemm_gflops.high is 129", "at least the value 130"]),
    ("compute.gemm_gflops.value", math.nan, ["compute.gemm_gflops.value is nan", "finite"]),
    ("compute.gemm_gflops.high", math.inf, ["compute.gemm_gflops.high is inf", "finite"]),
    ("compute.gemm_gflops.high", 10**400, ["compute.gemm_gflops.high is inf", "finite"]),
    ("compute.gemm_gflops.value", "fast", ["compute.gemm_gflops.value is 'fast'", "a number"]),
    ("compute.gemm_gflops.value", True, ["compute.gemm_gflops.value is True", "a number"]),
    ("compute.gemm_gflops", 130.0, ["compute.gemm_gflops is 130.0", "a table"]),
    ("compute.gemm_gflops.basis", "guessed", ["compute.gemm_gflops.basis is 'guessed'", "read, derived"]),
    ("compute.gemm_gflops.source", " ", ["compute.gemm_gflops.source is empty", "where the value comes from"]),
    ("compute.gemm_gflops.unit", "x", ["compute.gemm_gflops has the unknown key 'unit'", "known are value"]),
    ("compute.bandwith_gbs", {}, ["compute has the unknown key 'bandwith_gbs'", "did you mean 'bandwidth_gbs'"]),
    ("compute.power_w", {}, ["compute has the unknown key 'power_w'"]),
    ("compute.time_factor.value", 1.5, ["compute.time_factor.value is 1.5", "must be 1"]),
    ("memory.os_mib.low", -1.0, ["memory.os_mib.low is -1", "at least 0"]),
    ("memory.os_mib.high", 4000.0, ["memory.os_mib.high is 4000", "below the low end of visible_mib"]),
    ("memory", [], ["memory is []", "a table"]),
    ("software.allocator_block_bytes", {"value": 0.5, "basis": "read", "source": "x"}, ["0.5", "a whole number"]),
    ("software.torch", 1.1, ["software.torch is 1.1", "text in quotes"]),
    ("software.torch", "new", ["software.torch is 'new'", "a version"]),
    ("software.foreach", "no", ["software.foreach is 'no'", "true or false"]),
    ("schema_version", 2, ["schema_version is 2", "reads 1"]),
    ("kind", "tpu", ["kind is 'tpu'", "cuda, cpu"]),
    ("basis", "guessed", ["basis is 'guessed'", "derived, calibrated"]),
    ("name", "My Board", ["name is 'My Board'", "lower-case"]),
    ("extra", {}, ["the file has the unknown key 'extra'"]),
]


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        data = data[part]
    data[last] = value


@pytest.mark.parametrize(("key", "value", "words"), WRONG)
def test_wrong_value_gets_one_line_with_file_key_and_rule(
    data: dict[str, Any], key: str, value: Any, words: list[str]
) -> None:
    """Each mistake is refused, and the one line that says so names the file, the key and the rule."""
    _put(data, key, value)
    with pytest.raises(ProfileError) as caught:
        Profile.from_dict(data, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("key", ["name", "memory", "compute.launch_us", "software.torch", "memory.os_mib.source"])
def test_missing_key_gets_one_line_with_file_and_key(data: dict[str, Any], key: str) -> None:
    """A key that lacks is named together with the table that needs it."""
    *path, last = key.split(".")
    table = data
    for part in path:
        table = table[part]
    del table[last]
    with pytest.raises(ProfileError, match=rf"^mine.toml: {'.'.join(path) or 'the file'} lacks the key '{last}'"):
        Profile.from_dict(data, "mine.toml")


def test_power_figure_may_lack(data: dict[str, Any]) -> None:
    """A device without a known power is a valid profile, and says so."""
    del data["power"]["power_w"]
    profile = Profile.from_dict(data)
    assert profile.power_w is None
    assert "power_w" not in profile.to_dict()["power"]


def test_file_that_is_no_profile_is_named(tmp_path: Path) -> None:
    """A missing file, text that is not TOML and bytes that are not text each get one line with the path."""
    path = tmp_path / "mine.toml"
    for content, word in ((None, "No such file"), (b"name = ", "not valid TOML"), (b"\xff\xfe\x00", "not UTF-8")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ProfileError, match=word) as caught:
            read_profile(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_write_replaces_in_one_step(tmp_path: Path) -> None:
    """Writing twice leaves one file with the latest profile, and no temporary one beside it."""
    profile = read_profile(SPECIMEN)
    path = tmp_path / "new" / "mine.toml"
    write_profile(dataclasses.replace(profile, note="first"), path)
    write_profile(profile, path)
    assert read_profile(path) == profile
    assert [file.name for file in path.parent.iterdir()] == ["mine.toml"]


def test_folder_that_cannot_be_made_is_missing_resource(tmp_path: Path) -> None:
    """Where a file stands in the way of the folder, the error names the path and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingResource, match=r"can't write .*mine\.toml: .+; free space or give another folder"):
        write_profile(read_profile(SPECIMEN), tmp_path / "file" / "mine.toml")


def test_package_imports_without_torch() -> None:
    """Listing and loading profiles costs no import of torch."""
    code = "import sys, farsearch.devices as d; d.load_profile('jetson-nano'); print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
