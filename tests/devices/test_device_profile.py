"""The profile record, its file and the errors of invalid files."""

from __future__ import annotations

import copy
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from farsearch.devices.engines import COMPUTE, EngineFigures
from farsearch.devices.profile import (
    SCHEMA_VERSION,
    Attention,
    Figure,
    Profile,
    parse_profile,
    read_profile,
    write_profile,
)
from farsearch.devices.rates import PRODUCTS, STREAMS, ProductRate, Rates, StreamRate
from farsearch.errors import MissingResource, ProfileError

ASSETS = Path(__file__).with_name("assets")
OLD = ASSETS / "profile_v1.toml"
SPECIMEN = ASSETS / "profile_v2.toml"
OLD_DIGEST = "e5a406af33d01a2e482861eb7053ae3d0a0cd7e52000c15b7a3d3ee2dff46aef"
SPECIMEN_DIGEST = "2504f3b9a80574e25d821fc7f33a00368731c0e6f11a15ed8ac57014ad0e5391"


@pytest.fixture
def data() -> dict[str, Any]:
    """Return the specimen's data to be changed."""
    return copy.deepcopy(read_profile(SPECIMEN).to_dict())


def test_specimen_of_version_1_loads_unchanged() -> None:
    """The digest is pinned; missing ends of a range equal the value."""
    profile = read_profile(OLD)
    assert profile.digest == OLD_DIGEST
    assert profile.launch_us == Figure(30.0, 30.0, 30.0, "no published figure", "assumed")
    assert (profile.workspace_mib.low, profile.workspace_mib.high) == (0.0, 8.0)
    assert profile.power_w is not None
    assert profile.power_w.value == 10


def test_figures_missing_in_version_1_are_zero() -> None:
    """Loading and an optimizer's call cost nothing, and there are no measured rates."""
    profile = read_profile(OLD)
    for figure in (profile.step_us, profile.token_us):
        assert (figure.low, figure.value, figure.high, figure.basis) == (0, 0, 0, "assumed")
        assert "version 1" in figure.source
    assert profile.rates is None
    assert profile.to_dict()["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("torch", "attention"), [("1.10", "eager"), ("1.13.1", "eager"), ("2.0", "math"), ("2.13", "math")]
)
def test_attention_of_version_1_follows_its_torch(torch: str, attention: str) -> None:
    """Before 2.0 torch had no function for attention; from 2.0 on the one that saves more is assumed."""
    text = OLD.read_text().replace('torch = "1.10"', f'torch = "{torch}"')
    assert parse_profile(text, "old.toml").attention == attention


def test_specimen_of_version_2_loads_with_its_rates() -> None:
    """Measured rates are read by kind, integers as floats; the digest is pinned."""
    profile = read_profile(SPECIMEN)
    assert profile.digest == SPECIMEN_DIGEST
    assert profile.time_factor.value == 1.1
    assert (profile.attention, profile.foreach) == ("fused", True)
    assert profile.rates == Rates(
        {"date": "2025-01-31", "clocks": "locked"},
        2.5,
        {"gemm_nt": ProductRate(7.5, 0.05, 0.06, 0.1, 0.0, 4.0)},
        {"copy": StreamRate((0.1, 1.0, 16.0), (6.0, 50.0, 900.0)), "softmax": StreamRate((4.0,), (310.5,))},
    )


def test_available_memory_subtracts_the_system_end_by_end() -> None:
    """The low end is the least visible memory minus the most used by others, and vice versa."""
    assert read_profile(SPECIMEN).available_mib == (3773 - 512, 3965 - 286)


def test_metadata_does_not_change_the_digest(data: dict[str, Any]) -> None:
    """Names, notes, sources, power modes, conditions and the order of figures are not part of it."""
    digest = Profile.from_dict(data).digest
    data.update(title="another", note="another", name="another", basis="derived")
    data["compute"]["gemm_gflops"].update(source="another", basis="assumed")
    data["compute"] = dict(reversed(data["compute"].items()))
    data["power"]["power_mode"] = "another"
    data["rates"]["conditions"] = {"date": "another"}
    assert Profile.from_dict(data).digest == digest


def test_everything_that_affects_prices_changes_the_digest(data: dict[str, Any]) -> None:
    """Each end of each figure, kind, torch and its features, and each measured rate."""
    changes: list[tuple[str, Any]] = []
    for key, figure in Profile.from_dict(data).figures().items():
        changes += [(f"{key}.high", figure.high + 1), (f"{key}.low", figure.low / 2 or 1)]
        if key.split(".")[1] not in ("allocator_block_bytes", "dropout_mask_bytes"):
            changes.append((f"{key}.value", figure.value * 0.99))
    changes += [
        ("kind", "cpu"),
        ("software.torch", "2.2"),
        ("software.foreach", False),
        ("software.attention", "math"),
        ("rates.bare_us", 2.6),
        ("rates.products.gemm_nt.us_per_call", 5.0),
        ("rates.streams.copy.us", [6.0, 50.0, 901.0]),
        ("rates.streams.copy.mib", [0.1, 1.0, 17.0]),
    ]
    digests = {Profile.from_dict(data).digest}
    for key, value in changes:
        changed = copy.deepcopy(data)
        if key.endswith(".value"):
            _put(changed, key.replace(".value", ".low"), min(value, _get(data, key.replace(".value", ".low"))))
        _put(changed, key, value)
        digests.add(Profile.from_dict(changed).digest)
    without = {key: value for key, value in data.items() if key != "rates"}
    digests.add(Profile.from_dict(without).digest)
    assert len(digests) == 1 + len(changes) + 1


def _figures(least: float = 1e-3) -> st.SearchStrategy[Figure]:
    ends = st.lists(st.floats(least, 1e6), min_size=3, max_size=3).map(sorted)
    source = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))
    return st.builds(
        lambda ends, source, basis: Figure(ends[1], ends[0], ends[2], source, basis),
        ends,
        source,
        st.sampled_from(["read", "derived", "measured", "assumed"]),
    )


_TEXT = st.text(st.characters(blacklist_categories=["Cs"]))
_NUMBERS = st.floats(0, 1e6)


def _product_rates() -> st.SearchStrategy[ProductRate]:
    return st.builds(ProductRate, st.floats(1e-6, 1e6), *[_NUMBERS] * 5)


@st.composite
def _stream_rates(draw: st.DrawFn) -> StreamRate:
    sizes = draw(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5, unique=True).map(sorted))
    times = draw(st.lists(st.floats(1e-6, 1e9), min_size=len(sizes), max_size=len(sizes)))
    return StreamRate(tuple(sizes), tuple(times))


def _rates() -> st.SearchStrategy[Rates]:
    return st.builds(
        Rates,
        st.dictionaries(_TEXT, _TEXT, max_size=3),
        _NUMBERS,
        st.dictionaries(st.sampled_from(PRODUCTS), _product_rates(), max_size=3),
        st.dictionaries(st.sampled_from(STREAMS), _stream_rates(), max_size=3),
    )


def _engine_figures() -> st.SearchStrategy[EngineFigures]:
    rates, overheads = (st.none() | _figures(least) for least in (1e-3, 0.0))
    return st.builds(EngineFigures, _figures(0), _figures(), st.none() | _rates(), *[rates] * 3, *[overheads] * 3)


@st.composite
def _profiles(draw: st.DrawFn) -> Profile:
    start = read_profile(SPECIMEN)
    speeds: dict[str, Any] = {
        name: draw(_figures()) for name in ("gemm_gflops", "bmm_gflops", "bandwidth_gbs", "time_factor")
    }
    overheads: dict[str, Any] = {
        name: draw(_figures(0)) for name in ("launch_us", "step_us", "token_us", "process_mib")
    }
    # the features of torch depend on its version
    versions: list[tuple[str, Attention]] = [
        ("1.10", "eager"), ("2.0", "eager"), ("2.1.0+cu118", "fused"), ("2.13", "math")
    ]  # fmt: skip
    torch, attention = draw(st.sampled_from(versions))
    kinds: list[Literal["cuda", "cpu"]] = ["cuda", "cpu"]
    kind = draw(st.sampled_from(kinds))
    return dataclasses.replace(
        start,
        **speeds,
        **overheads,
        title=draw(_TEXT),
        basis=draw(st.sampled_from(["derived", "calibrated"])),
        kind=kind,
        torch=torch,
        attention=attention,
        foreach=draw(st.booleans()),
        power_w=draw(st.none() | _figures()),
        rates=draw(st.none() | _rates()),
        onnx=draw(st.none() | _engine_figures()) if kind == "cpu" else None,
    )


@settings(deadline=None)  # a busy machine is no failure
@given(_profiles())
def test_round_trip_through_toml_is_the_identity(profile: Profile) -> None:
    """The file of a profile has all its values and nothing else."""
    text = tomli_w.dumps(profile.to_dict())
    assert parse_profile(text, "x.toml") == profile
    assert Profile.from_dict(profile.to_dict()).digest == profile.digest


ONNX = {
    "process_mib": {"value": 58.0, "low": 44.0, "high": 116.0, "basis": "assumed", "source": "measured on x86"},
    "time_factor": {"value": 0.9, "low": 0.4, "high": 3.0, "basis": "assumed", "source": "no measurement"},
}


def test_engine_takes_its_own_process_and_times(data: dict[str, Any]) -> None:
    """All else is the device's; without rates of its own the engine has those of torch."""
    data.update(kind="cpu", engines={"onnx": ONNX})
    profile = Profile.from_dict(data)
    onnx = profile.for_engine("onnx")
    assert profile.engines == ("torch", "onnx")
    assert (onnx.process_mib.value, onnx.time_factor.high) == (58, 3)
    torch = profile.for_engine("torch")
    changed: dict[str, Any] = {"process_mib": onnx.process_mib, "time_factor": onnx.time_factor}
    assert dataclasses.replace(torch, **changed) == onnx
    assert onnx.digest != torch.digest
    data["engines"]["onnx"] = {**ONNX, "rates": {**data["rates"], "bare_us": 0.5}}
    own = Profile.from_dict(data).for_engine("onnx").rates
    assert own is not None
    assert own.bare_us == 0.5


@pytest.mark.parametrize("name", COMPUTE)
def test_engine_takes_what_is_measured_with_it(data: dict[str, Any], name: str) -> None:
    """Each of these figures replaces that of torch, for this engine alone."""
    figure = {"value": 3.25, "low": 3.0, "high": 4.0, "basis": "measured", "source": "calibrated on the board"}
    data.update(kind="cpu", engines={"onnx": {**ONNX, name: figure}})
    profile = Profile.from_dict(data)
    assert getattr(profile.for_engine("onnx"), name).value == 3.25
    assert getattr(profile.for_engine("torch"), name) == getattr(profile, name) != 3.25


def test_figures_of_another_engine_do_not_change_the_digest(data: dict[str, Any]) -> None:
    """Predictions for torch do not depend on them, so a study from before they were known is continued."""
    data["kind"] = "cpu"
    digest = Profile.from_dict(data).digest
    data["engines"] = {"onnx": ONNX}
    assert Profile.from_dict(data).digest == digest


def test_engine_without_figures_is_refused(data: dict[str, Any]) -> None:
    """An old profile knows torch alone; the error names profile and section."""
    profile = Profile.from_dict(data)
    assert profile.engines == ("torch",)
    with pytest.raises(ProfileError, match=r"has no figures of the engine 'onnx'; add \[engines.onnx\]"):
        profile.for_engine("onnx")


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
    ("compute.gemm_gflops.source", " ", ["compute.gemm_gflops.source is empty", "name the source of the value"]),
    ("compute.gemm_gflops.unit", "x", ["compute.gemm_gflops has the unknown key 'unit'", "known are value"]),
    ("compute.bandwith_gbs", {}, ["compute has the unknown key 'bandwith_gbs'", "did you mean 'bandwidth_gbs'"]),
    ("compute.power_w", {}, ["compute has the unknown key 'power_w'"]),
    ("compute.time_factor.low", 0, ["compute.time_factor.low is 0", "above 0"]),
    ("compute.step_us.value", -1, ["compute.step_us.value is -1", "at least 0"]),
    ("compute.token_us.high", 0.1, ["compute.token_us.high is 0.1", "at least the value 0.8"]),
    ("compute", 3, ["compute is 3", "a table"]),
    ("memory.os_mib.low", -1.0, ["memory.os_mib.low is -1", "at least 0"]),
    ("memory.os_mib.high", 4000.0, ["memory.os_mib.high is 4000", "below the low end of visible_mib"]),
    ("memory", [], ["memory is []", "a table"]),
    ("software.allocator_block_bytes", {"value": 0.5, "basis": "read", "source": "x"}, ["0.5", "a whole number"]),
    ("software.torch", 1.1, ["software.torch is 1.1", "text in quotes"]),
    ("software.torch", "new", ["software.torch is 'new'", "a version"]),
    ("software.foreach", "no", ["software.foreach is 'no'", "true or false"]),
    ("software.foreach", 1, ["software.foreach is 1", "true or false"]),
    ("software.attention", "flash", ["software.attention is 'flash'", "eager, math, fused"]),
    ("software.attention", True, ["software.attention is True", "text in quotes"]),
    ("engines", 3, ["engines is 3", "a table"]),
    ("engines", {"onnx": {}}, ["engines.onnx lacks the key 'process_mib'"]),
    ("engines", {"onx": {}}, ["engines has the unknown key 'onx'", "did you mean 'onnx'"]),
    ("engines", {"onnx": ONNX}, ["engines.onnx is given and kind is 'cuda'", "runs on a CPU"]),
    (
        "engines",
        {"onnx": {**ONNX, "time_factor": {**ONNX["time_factor"], "low": 0}}},
        ["engines.onnx.time_factor.low is 0", "above 0"],
    ),
    (
        "engines",
        {"onnx": {**ONNX, "gemm_gflops": {**ONNX["process_mib"], "low": 0}}},
        ["engines.onnx.gemm_gflops.low is 0", "above 0"],
    ),
    ("engines", {"onnx": {**ONNX, "rates": {}}}, ["engines.onnx.rates lacks the key 'conditions'"]),
    ("schema_version", 3, ["schema_version is 3", "reads 1 to 2"]),
    ("schema_version", 0, ["schema_version is 0", "reads 1 to 2"]),
    ("schema_version", "2", ["schema_version is '2'", "reads 1 to 2"]),
    ("schema_version", 2.0, ["schema_version is 2.0", "reads 1 to 2"]),
    ("schema_version", True, ["schema_version is True", "reads 1 to 2"]),
    ("kind", "tpu", ["kind is 'tpu'", "cuda, cpu"]),
    ("basis", "guessed", ["basis is 'guessed'", "derived, calibrated"]),
    ("name", "My Board", ["name is 'My Board'", "lower-case"]),
    ("extra", {}, ["the file has the unknown key 'extra'"]),
    ("rates", [], ["rates is []", "a table"]),
    ("rates.product", {}, ["rates has the unknown key 'product'", "did you mean 'products'"]),
    ("rates.bare_us", -1.0, ["rates.bare_us is -1", "at least 0"]),
    ("rates.bare_us", math.nan, ["rates.bare_us is nan", "at least 0"]),
    ("rates.bare_us", "2", ["rates.bare_us is '2'", "a number"]),
    ("rates.conditions", "locked", ["rates.conditions is 'locked'", "a table"]),
    ("rates.conditions.clocks", 3, ["rates.conditions['clocks'] is 3", "text in quotes"]),
    ("rates.conditions.a\nb", 3, ["rates.conditions['a\\nb'] is 3", "text in quotes"]),
    ("rates.products", 1.0, ["rates.products is 1.0", "a table"]),
    (
        "rates.products.gemm",
        {},
        ["rates.products has the unknown key 'gemm'", "did you mean 'gemm_", "known are gemm_nn"],
    ),
    ("rates.products.gemm_nt", 7.5, ["rates.products.gemm_nt is 7.5", "a table"]),
    ("rates.products.gemm_nt.s_per_tflop", -7.5, ["gemm_nt.s_per_tflop is -7.5", "at least 0"]),
    ("rates.products.gemm_nt.s_per_tflop", math.nan, ["gemm_nt.s_per_tflop is nan", "at least 0"]),
    ("rates.products.gemm_nt.s_per_tflop", "7", ["gemm_nt.s_per_tflop is '7'", "a number"]),
    ("rates.products.gemm_nt.s_per_tflop", False, ["gemm_nt.s_per_tflop is False", "a number"]),
    ("rates.products.gemm_nt.us", 1.0, ["gemm_nt has the unknown key 'us'", "known are s_per_tflop"]),
    (
        "rates.products.gemm_nn",
        dict.fromkeys(ProductRate.__dataclass_fields__, 0),
        ["rates.products.gemm_nn.s_per_tflop is 0 like all others", "some time"],
    ),
    ("rates.streams.dropout", {}, ["rates.streams has the unknown key 'dropout'", "known are arithmetic"]),
    ("rates.streams.copy.mib", 1.0, ["rates.streams.copy.mib is 1.0", "a list of numbers"]),
    ("rates.streams.copy.mib", [0.1, "1", 16.0], ["rates.streams.copy.mib is '1'", "a number"]),
    ("rates.streams.copy.mib", [0.1, True, 16.0], ["rates.streams.copy.mib is True", "a number"]),
    ("rates.streams.copy.mib", [0.1, 16.0, 1.0], ["rates.streams.copy.mib is [0.1, 16.0, 1.0]", "must ascend"]),
    ("rates.streams.copy.mib", [0.1, 0.1, 1.0], ["rates.streams.copy.mib is [0.1, 0.1, 1.0]", "must ascend"]),
    ("rates.streams.copy.mib", [0.0, 0.1, 1.0], ["rates.streams.copy.mib has 0", "above 0"]),
    ("rates.streams.copy.mib", [0.1, 1.0], ["copy.mib has 2 numbers and us 3", "each size needs one time"]),
    ("rates.streams.copy", {"mib": [], "us": []}, ["copy.mib has 0 numbers and us 0", "one at least"]),
    ("rates.streams.copy.us", [6.0, -50.0, 900.0], ["rates.streams.copy.us has -50", "above 0"]),
    ("rates.streams.copy.us", [6.0, 50.0, math.nan], ["rates.streams.copy.us has nan", "finite"]),
    ("rates.streams.copy.us", [6.0, 50.0, 10**400], ["rates.streams.copy.us has inf", "finite"]),
]


def _get(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data[part]
    return data


def _put(data: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        data = data[part]
    data[last] = value


@pytest.mark.parametrize(("key", "value", "fragments"), WRONG)
def test_wrong_value_is_reported_with_file_key_and_rule(
    data: dict[str, Any], key: str, value: Any, fragments: list[str]
) -> None:
    """Each error is one line."""
    _put(data, key, value)
    with pytest.raises(ProfileError) as caught:
        Profile.from_dict(data, "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: ")
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_newer_version_is_reported_before_unknown_keys(data: dict[str, Any]) -> None:
    """A file of a later farsearch is distinguished from a misspelt one."""
    with pytest.raises(ProfileError, match=r"^new\.toml: schema_version is 3; this farsearch reads 1 to 2"):
        Profile.from_dict({**data, "schema_version": 3, "thermals": {}}, "new.toml")


def test_negative_bandwidth_is_reported_in_one_line(tmp_path: Path) -> None:
    """The message of a file has path, key, value and rule."""
    path = tmp_path / "mine.toml"
    path.write_text(SPECIMEN.read_text().replace("bandwidth_gbs = { value = 17.9", "bandwidth_gbs = { value = -17.9"))
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert str(caught.value) == f"{path}: compute.bandwidth_gbs.value is -17.9; it must be at least 0"


MISSING = [
    "schema_version",
    "name",
    "memory",
    "compute.launch_us",
    "compute.step_us",
    "compute.token_us",
    "software.torch",
    "software.attention",
    "memory.os_mib.source",
    "rates.conditions",
    "rates.bare_us",
    "rates.streams",
    "rates.products.gemm_nt.us_per_call",
    "rates.streams.copy.us",
]


@pytest.mark.parametrize("key", MISSING)
def test_missing_key_is_reported_with_file_and_table(data: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    table = data
    for part in path:
        table = table[part]
    del table[last]
    with pytest.raises(ProfileError, match=rf"^mine.toml: {'.'.join(path) or 'the file'} lacks the key '{last}'"):
        Profile.from_dict(data, "mine.toml")


def test_power_figure_is_optional(data: dict[str, Any]) -> None:
    """A device without a known power is a valid profile."""
    del data["power"]["power_w"]
    profile = Profile.from_dict(data)
    assert profile.power_w is None
    assert "power_w" not in profile.to_dict()["power"]


def test_unreadable_profile_is_named(tmp_path: Path) -> None:
    """A missing file, text that is not TOML and bytes that are not text each get one line with the path."""
    path = tmp_path / "mine.toml"
    for content, word in ((None, "No such file"), (b"name = ", "not valid TOML"), (b"\xff\xfe\x00", "not UTF-8")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ProfileError, match=word) as caught:
            read_profile(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_write_is_atomic(tmp_path: Path) -> None:
    """Writing twice leaves one file with the latest profile and no temporary file."""
    profile = read_profile(SPECIMEN)
    path = tmp_path / "new" / "mine.toml"
    write_profile(dataclasses.replace(profile, note="first"), path)
    write_profile(profile, path)
    assert read_profile(path) == profile
    assert [file.name for file in path.parent.iterdir()] == ["mine.toml"]


def test_folder_that_cannot_be_created_is_a_missing_resource(tmp_path: Path) -> None:
    """A file has the path of the folder; the error names the path and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingResource, match=r"mine\.toml can't be written: .+; check the folder's permissions"):
        write_profile(read_profile(SPECIMEN), tmp_path / "file" / "mine.toml")


def test_profiles_load_without_torch() -> None:
    """Listing and loading profiles does not import torch."""
    code = "import sys, farsearch.devices as d; d.load_profile('jetson-nano'); print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
