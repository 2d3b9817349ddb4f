"""Shipped profiles, and the lookup of profiles."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from farsearch.devices import Profile, list_profiles, load_profile
from farsearch.devices.profile import Figure, write_profile
from farsearch.errors import ProfileError


class Facts(NamedTuple):
    """Figures of data sheets, board reports and NVIDIA's power modes.

    ``mhz`` is the clock of the computing unit, ``cpu_mhz`` that of the core that starts operations, ``flops`` are those
    of one core per cycle.
    """

    cores: int
    mhz: float
    cpu_mhz: float
    gbs: float
    visible: float
    watts: float
    soldered_gib: int
    torch: str
    flops: int = 2


FACTS = {
    "jetson-nano": Facts(128, 922, 1479, 25.6, 3956, 10, 4, "1.10"),
    "jetson-nano-5w": Facts(128, 640, 918, 25.6, 3956, 5, 4, "1.10"),
    "jetson-nano-2gb": Facts(128, 922, 1479, 25.6, 1980, 10, 2, "1.10"),
    "jetson-nano-2gb-5w": Facts(128, 640, 918, 25.6, 1980, 5, 2, "1.10"),
    "jetson-tx2": Facts(256, 1300, 2035, 59.7, 7846, 15, 8, "1.10"),
    "jetson-tx2-15w": Facts(256, 1120, 1400, 51.2, 7846, 15, 8, "1.10"),
    "jetson-tx2-7.5w": Facts(256, 850, 1200, 42.6, 7846, 7.5, 8, "1.10"),
    "jetson-xavier-nx": Facts(384, 1100, 1420.8, 59.7, 6854, 20, 8, "2.1"),
    "jetson-xavier-nx-15w": Facts(384, 1100, 1420.8, 51.2, 6854, 15, 8, "2.1"),
    "jetson-xavier-nx-10w": Facts(384, 803.25, 1190.4, 51.2, 6854, 10, 8, "2.1"),
    "jetson-xavier-nx-16gb": Facts(384, 1100, 1420.8, 59.7, 15046, 20, 16, "2.1"),
    "jetson-xavier-nx-16gb-15w": Facts(384, 1100, 1420.8, 51.2, 15046, 15, 16, "2.1"),
    "jetson-xavier-nx-16gb-10w": Facts(384, 803.25, 1190.4, 51.2, 15046, 10, 16, "2.1"),
    "jetson-agx-xavier": Facts(512, 1377, 2265.6, 137, 15700, 30, 16, "2.1"),
    "jetson-agx-xavier-30w": Facts(512, 900, 1200, 102.4, 15700, 30, 16, "2.1"),
    "jetson-agx-xavier-15w": Facts(512, 670, 1200, 85.2, 15700, 15, 16, "2.1"),
    "jetson-agx-xavier-10w": Facts(256, 520, 1200, 68.2, 15700, 10, 16, "2.1"),
    "jetson-orin-nano": Facts(1024, 625, 1510.4, 68, 7475, 15, 8, "2.13"),
    "jetson-orin-nano-7w": Facts(512, 408, 960, 68, 7475, 7, 8, "2.13"),
    "jetson-orin-nano-4gb": Facts(512, 625, 1510.4, 34, 3558, 10, 4, "2.13"),
    "jetson-orin-nano-4gb-7w": Facts(512, 408, 806.4, 34, 3558, 7, 4, "2.13"),
    "jetson-orin-nano-super": Facts(1024, 1020, 1728, 102, 7475, 25, 8, "2.13"),
    "jetson-orin-nano-super-25w": Facts(1024, 918, 1344, 102, 7475, 25, 8, "2.13"),
    "jetson-orin-nano-super-15w": Facts(1024, 612, 1497.6, 68, 7475, 15, 8, "2.13"),
    "jetson-orin-nx": Facts(1024, 918, 1984, 102, 14486, 25, 16, "2.13"),
    "jetson-orin-nx-25w": Facts(1024, 408, 1497.6, 102, 14486, 25, 16, "2.13"),
    "jetson-orin-nx-15w": Facts(512, 612, 1651.2, 102, 14486, 15, 16, "2.13"),
    "jetson-orin-nx-10w": Facts(512, 612, 1190.4, 68, 14486, 10, 16, "2.13"),
    "jetson-agx-orin-32gb": Facts(1792, 930, 2201.6, 204.8, 30536, 40, 32, "2.13"),
    "jetson-agx-orin-32gb-40w": Facts(1792, 816, 1497.6, 204.8, 30536, 40, 32, "2.13"),
    "jetson-agx-orin-32gb-30w": Facts(1024, 612, 1728, 204.8, 30536, 30, 32, "2.13"),
    "jetson-agx-orin-32gb-15w": Facts(768, 408, 1113.6, 136.5, 30536, 15, 32, "2.13"),
    "jetson-agx-orin-64gb": Facts(2048, 1300, 2201.6, 204.8, 62841, 60, 64, "2.13"),
    "jetson-agx-orin-64gb-50w": Facts(2048, 816, 1497.6, 204.8, 62841, 50, 64, "2.13"),
    "jetson-agx-orin-64gb-30w": Facts(1024, 612, 1728, 204.8, 62841, 30, 64, "2.13"),
    "jetson-agx-orin-64gb-15w": Facts(768, 408, 1113.6, 136.5, 62841, 15, 64, "2.13"),
    "jetson-nano-cpu": Facts(4, 1430, 1430, 25.6, 3956, 10, 4, "1.10", 8),
    "jetson-nano-2gb-cpu": Facts(4, 1430, 1430, 25.6, 1980, 10, 2, "1.10", 8),
    "jetson-orin-nano-cpu": Facts(6, 1510.4, 1510.4, 68, 7475, 15, 8, "2.13", 16),
    "raspberry-pi-zero-2-w": Facts(4, 1000, 1000, 3.6, 417, 2.1, 1, "2.13", 8),
    "raspberry-pi-3b-plus": Facts(4, 1400, 1400, 4.0, 915, 5, 1, "2.13", 8),
    "raspberry-pi-4-1gb": Facts(4, 1500, 1500, 13.3, 915, 7.2, 1, "2.13", 8),
    "raspberry-pi-4": Facts(4, 1500, 1500, 13.3, 7550, 7.2, 8, "2.13", 8),
    "raspberry-pi-4-4gb": Facts(4, 1500, 1500, 13.3, 3789, 7.2, 4, "2.13", 8),
    "raspberry-pi-4-2gb": Facts(4, 1500, 1500, 13.3, 1894, 7.2, 2, "2.13", 8),
    "raspberry-pi-5": Facts(4, 2400, 2400, 12.4, 7550, 11, 8, "2.13", 16),
    "raspberry-pi-5-4gb": Facts(4, 2400, 2400, 12.4, 3775, 11, 4, "2.13", 16),
    "raspberry-pi-5-16gb": Facts(4, 2400, 2400, 12.4, 15100, 11, 16, "2.13", 16),
}
SHIPPED = tuple(sorted(FACTS))
PEAK_TFLOPS = {
    "jetson-nano": 0.236,
    "jetson-tx2": 0.67,
    "jetson-xavier-nx": 0.84,
    "jetson-agx-xavier": 1.4,
    "jetson-orin-nano": 1.28,
    "jetson-orin-nano-4gb": 0.64,
    "jetson-orin-nano-super": 2.1,
    "jetson-orin-nx": 1.88,
    "jetson-agx-orin-32gb": 3.3,
    "jetson-agx-orin-64gb": 5.3,
    "raspberry-pi-4": 0.048,
    "raspberry-pi-5": 0.154,
}
"""Figures of the data sheets for a board's fastest mode, rounded as there."""
MODES = (
    ("jetson-nano-5w", "jetson-nano"),
    ("jetson-nano-2gb-5w", "jetson-nano-2gb"),
    ("jetson-tx2-7.5w", "jetson-tx2-15w", "jetson-tx2"),
    ("jetson-xavier-nx-10w", "jetson-xavier-nx-15w", "jetson-xavier-nx"),
    ("jetson-xavier-nx-16gb-10w", "jetson-xavier-nx-16gb-15w", "jetson-xavier-nx-16gb"),
    ("jetson-agx-xavier-10w", "jetson-agx-xavier-15w", "jetson-agx-xavier-30w", "jetson-agx-xavier"),
    ("jetson-orin-nano-7w", "jetson-orin-nano"),
    ("jetson-orin-nano-4gb-7w", "jetson-orin-nano-4gb"),
    ("jetson-orin-nano-super-15w", "jetson-orin-nano-super-25w", "jetson-orin-nano-super"),
    ("jetson-orin-nx-10w", "jetson-orin-nx-15w", "jetson-orin-nx-25w", "jetson-orin-nx"),
    ("jetson-agx-orin-32gb-15w", "jetson-agx-orin-32gb-30w", "jetson-agx-orin-32gb-40w", "jetson-agx-orin-32gb"),
    ("jetson-agx-orin-64gb-15w", "jetson-agx-orin-64gb-30w", "jetson-agx-orin-64gb-50w", "jetson-agx-orin-64gb"),
)
"""Power modes of one board, from the least power to the most."""
MEMORY_SIZES = (
    ("jetson-nano-2gb", "jetson-nano"),
    ("jetson-orin-nano-4gb", "jetson-orin-nano"),
    ("jetson-xavier-nx", "jetson-xavier-nx-16gb"),
    ("jetson-agx-orin-32gb", "jetson-agx-orin-64gb"),
    ("jetson-nano-2gb-cpu", "jetson-nano-cpu"),
    ("raspberry-pi-zero-2-w", "raspberry-pi-3b-plus"),
    ("raspberry-pi-4-1gb", "raspberry-pi-4-2gb", "raspberry-pi-4-4gb", "raspberry-pi-4"),
    ("raspberry-pi-5-4gb", "raspberry-pi-5", "raspberry-pi-5-16gb"),
)
"""Boards that exist with several sizes of memory, from the least to the most."""
DOCS = Path(__file__).parents[2] / "docs" / "devices.md"


def ends(figure: Figure) -> tuple[float, float, float]:
    """Return low end, value and high end."""
    return figure.low, figure.value, figure.high


def test_shipped_profiles_are_the_documented_ones() -> None:
    assert tuple(name for name in list_profiles() if load_profile(name).basis == "derived") == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_has_a_source_for_each_value(name: str) -> None:
    """A derived value has its arithmetic or reason; no source is a path or link."""
    profile = load_profile(name)
    assert (profile.name, profile.basis, profile.rates) == (name, "derived", None)
    assert profile.note
    assert {key.split(".")[1] for key in profile.figures()} >= {"step_us", "token_us", "time_factor", "power_w"}
    figures = profile.figures()
    if profile.onnx is not None:
        figures |= {f"onnx.{name}": figure for name, figure in profile.onnx.figures().items()}
    for key, figure in figures.items():
        assert len(figure.source) >= 10, key
        assert not re.search(r"https?:|/\w+/|\.md", figure.source), key
        if figure.basis == "assumed" and not key.startswith("software."):
            assert figure.high > figure.low, key


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_figures_follow_from_the_sources(name: str) -> None:
    """Peak is cores x FLOP per cycle x clock, rates are shares of the maker's; memory and power are as published."""
    profile, facts = load_profile(name), FACTS[name]
    peak = facts.cores * facts.flops * facts.mhz / 1000
    # a data sheet's rounding, if its figure is used instead of the product
    assert math.isclose(profile.peak_gflops.value, peak, rel_tol=0.006)
    if profile.kind == "cuda":
        for figure, share in zip(ends(profile.bandwidth_gbs), (0.5, 0.7, 0.9), strict=True):
            assert math.isclose(figure, share * facts.gbs, rel_tol=0.006)
        # the TX2's own measured step leaves a narrower range than a share from another board
        shares = (0.516, 0.704, 0.824) if name.startswith("jetson-tx2") else (0.34, 0.55, 0.8)
        for figure, share in zip(ends(profile.gemm_gflops), shares, strict=True):
            assert math.isclose(figure, share * profile.peak_gflops.value, rel_tol=0.006)
    for figure, share in zip(ends(profile.bmm_gflops), (0.25, 0.5, 1), strict=True):
        assert math.isclose(figure, share * profile.gemm_gflops.value, rel_tol=0.006)
    assert profile.bandwidth_gbs.high <= facts.gbs
    assert profile.visible_mib.value == facts.visible
    assert profile.visible_mib.high <= 1024 * facts.soldered_gib
    assert profile.power_w is not None
    assert profile.power_w.value == facts.watts
    assert profile.torch == facts.torch


@pytest.mark.parametrize("name", PEAK_TFLOPS)
def test_peak_of_the_fastest_mode_agrees_with_the_data_sheet(name: str) -> None:
    """The product of cores and clock agrees with the TFLOP/s of the maker."""
    assert math.isclose(load_profile(name).peak_gflops.value, 1000 * PEAK_TFLOPS[name], rel_tol=0.011)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_figures_are_possible(name: str) -> None:
    """Achieved rates are below the peak, attention is below large products, and the process of an engine fits."""
    profile = load_profile(name)
    assert profile.gemm_gflops.high < profile.peak_gflops.value
    assert profile.bmm_gflops.value < profile.gemm_gflops.value
    assert profile.bmm_gflops.high <= profile.gemm_gflops.high
    assert profile.time_factor.value == 1
    low, high = profile.available_mib
    process = min(profile.for_engine(engine).process_mib.high for engine in profile.engines)
    assert process < low < high < profile.visible_mib.high
    # figures not measured on the board are no promise
    for figure in (profile.gemm_gflops, profile.bandwidth_gbs, profile.launch_us, profile.step_us, profile.token_us):
        assert figure.low < figure.value < figure.high


@pytest.mark.parametrize("name", SHIPPED)
def test_software_follows_the_torch_of_the_device(name: str) -> None:
    """CUDA since 2.0 has fused attention and steps all tensors at once by default; a CPU and 1.10 do not."""
    profile = load_profile(name)
    on_gpu, modern = profile.kind == "cuda", profile.torch != "1.10"
    assert profile.attention == (("fused" if on_gpu else "math") if modern else "eager")
    assert profile.foreach == (on_gpu and modern)
    assert profile.allocator_block_bytes.value == (512 if on_gpu else 64)
    assert profile.dropout_mask_bytes.value == (1 if on_gpu else 4)
    assert profile.workspace_mib.value == (8 if on_gpu else 0)


@pytest.mark.parametrize("name", SHIPPED)
def test_cpus_have_figures_of_the_engine_without_torch(name: str) -> None:
    """Its process is smaller; its times have the same centre and a wider range, as nothing was measured."""
    profile = load_profile(name)
    assert profile.engines == (("torch", "onnx") if profile.kind == "cpu" else ("torch",))
    if profile.kind == "cpu":
        onnx = profile.for_engine("onnx")
        assert onnx.process_mib.high < profile.process_mib.low
        assert onnx.budget_mib > profile.budget_mib
        low, value, high = ends(onnx.time_factor)
        assert value == profile.time_factor.value == 1
        assert low < profile.time_factor.low < profile.time_factor.high < high


def test_torch_does_not_fit_on_the_smallest_board() -> None:
    """The Zero 2 W has less memory than the process of torch takes: its room is for the engine without torch."""
    board = load_profile("raspberry-pi-zero-2-w")
    assert board.available_mib[1] < board.process_mib.value
    assert board.budget_mib < board.process_mib.low
    onnx = board.for_engine("onnx")
    assert onnx.budget_mib > onnx.process_mib.high


@pytest.mark.parametrize("modes", MODES, ids=lambda modes: modes[-1])
def test_less_power_is_never_faster(modes: tuple[str, ...]) -> None:
    """With more power no rate falls, at least one rises, and memory and software are unchanged."""
    profiles = [load_profile(name) for name in modes]
    for slow, fast in itertools.pairwise(profiles):
        pairs = [
            (slow.peak_gflops, fast.peak_gflops),
            (slow.gemm_gflops, fast.gemm_gflops),
            (slow.bmm_gflops, fast.bmm_gflops),
            (slow.bandwidth_gbs, fast.bandwidth_gbs),
        ]
        for less, more in pairs:
            assert all(a <= b for a, b in zip(ends(less), ends(more), strict=True))
        assert any(less.value < more.value for less, more in pairs)
        assert slow.power_w is not None
        assert fast.power_w is not None
        assert slow.power_w.value <= fast.power_w.value
        same = ("visible_mib", "os_mib", "process_mib", "torch", "attention", "foreach", "kind")
        assert all(getattr(slow, field) == getattr(fast, field) for field in same)


@pytest.mark.parametrize("modes", MODES, ids=lambda modes: modes[-1])
@pytest.mark.parametrize("field", ["launch_us", "step_us", "token_us"])
def test_overheads_follow_the_clock_of_the_cpu(modes: tuple[str, ...], field: str) -> None:
    """Python and dispatcher run on one core: their cycles are equal in all modes of a board."""
    top = modes[-1]
    for name in modes:
        here, there = (ends(getattr(load_profile(one), field)) for one in (name, top))
        for a, b in zip(here, there, strict=True):
            assert math.isclose(a * FACTS[name].cpu_mhz, b * FACTS[top].cpu_mhz, rel_tol=0.02)


def test_every_power_mode_is_compared_with_its_board() -> None:
    """No profile of a mode is left out of the comparisons above."""
    named = {name for name in SHIPPED if re.search(r"-[\d.]+w$", name)}
    assert named == {name for modes in MODES for name in modes[:-1]}


@pytest.mark.parametrize("sizes", MEMORY_SIZES, ids=lambda sizes: sizes[-1])
def test_larger_board_has_more_memory(sizes: tuple[str, ...]) -> None:
    """At each end of the range more is left for a job on the larger board."""
    for small, large in itertools.pairwise(load_profile(name) for name in sizes):
        assert small.available_mib[0] < large.available_mib[0]
        assert small.available_mib[1] < large.available_mib[1]


def test_rates_agree_with_published_steps() -> None:
    """A BERT-base step of 550.8 GFLOP took 1.70 s on the TX2 and 34.0 s on the Pi: products alone must be faster."""
    for name, seconds in (("jetson-tx2", 1.70), ("raspberry-pi-4", 34.0)):
        gemm = load_profile(name).gemm_gflops
        whole_step = 550.8 / seconds
        assert gemm.value > whole_step
        # and the rest of the step is a third of it at most
        assert whole_step / gemm.value > 0.67


def test_raspberry_pi_5_is_faster_in_proportion_to_hpl() -> None:
    """HPL is published for both boards, 11.9 and 30.2 GFLOP/s: the rate of products rises with it, end by end."""
    slow, fast = (ends(load_profile(name).gemm_gflops) for name in ("raspberry-pi-4", "raspberry-pi-5"))
    for a, b in zip(slow, fast, strict=True):
        assert math.isclose(b / a, 30.2 / 11.9, rel_tol=0.006)


def test_nano_memory_for_tensors_agrees_with_published_accounts() -> None:
    """By the feasibility rule about 2.2 GB are left for tensors on the 4 GB Nano, with a range within 1.5 to 2.7."""
    nano = load_profile("jetson-nano")
    left_gb = (nano.available_mib[0] - nano.process_mib.high) * 2**20 / 1e9
    assert 1.5 < left_gb < 2.7
    assert abs(left_gb - 2.2) < 0.2


def test_small_nano_has_too_little_memory_for_full_fine_tuning() -> None:
    """The 2 GB Nano leaves 0.3 to 0.6 GB for tensors: weights, gradients and AdamW of DistilBERT need more."""
    nano = load_profile("jetson-nano-2gb")
    left_gb = (nano.available_mib[0] - nano.process_mib.high) * 2**20 / 1e9
    assert 0.3 < left_gb < 0.6
    assert left_gb < 66e6 * 16 / 1e9


def _table() -> str:
    lines = [
        "| profile | mode, W | peak, GFLOP/s | products, GFLOP/s | bandwidth, GB/s | left for a job, MiB | software |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in SHIPPED:
        profile = load_profile(name)
        low, high = profile.available_mib
        power = "" if profile.power_w is None else f", {profile.power_w.value:g}"
        gemm, bandwidth = (
            f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
            for figure, digits in ((profile.gemm_gflops, 0), (profile.bandwidth_gbs, 1))
        )
        lines.append(
            f"| {name} | {profile.power_mode}{power} | {profile.peak_gflops.value:.0f} | {gemm} | {bandwidth} "
            f"| {low:.0f} to {high:.0f} | torch {profile.torch}, {profile.attention} |"
        )
    return "\n".join(lines)


def test_documented_table_equals_the_files() -> None:
    """The docs list every shipped profile with its figures; on a difference the expected table is shown."""
    table = _table()
    assert table in DOCS.read_text(encoding="utf-8"), f"docs/devices.md needs this table:\n{table}"


def _renamed(name: str) -> Profile:
    return dataclasses.replace(load_profile("jetson-nano"), name=name, title="my own", basis="calibrated")


def test_user_profiles_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    """A user's file is listed, loads by name and by path, and overrides a shipped one of its name."""
    for name in ("my-board", "jetson-nano"):
        write_profile(_renamed(name), tmp_path / f"{name}.toml")
    (tmp_path / "notes.txt").write_text("no profile")
    assert list_profiles(tmp_path) == tuple(sorted({*list_profiles(), "my-board"}))
    assert load_profile("my-board", tmp_path) == _renamed("my-board")
    assert load_profile(tmp_path / "my-board.toml") == _renamed("my-board")
    assert load_profile(str(tmp_path / "my-board.toml")) == _renamed("my-board")
    assert load_profile("jetson-nano", tmp_path).title == "my own"
    assert load_profile("jetson-nano").title != "my own"


def test_missing_user_folder_is_no_error(tmp_path: Path) -> None:
    """The shipped profiles are still found."""
    assert list_profiles(tmp_path / "none") == list_profiles()
    assert load_profile("jetson-tx2", tmp_path / "none").name == "jetson-tx2"


def test_file_must_have_the_name_of_its_profile(tmp_path: Path) -> None:
    """A copied file with an unchanged name inside is refused, because two devices would have one name."""
    write_profile(_renamed("jetson-nano"), tmp_path / "my-board.toml")
    with pytest.raises(ProfileError, match=r"my-board\.toml: name is 'jetson-nano'; it must be the file's name"):
        load_profile("my-board", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "closest"), [("jetson-nanno", "jetson-nano"), ("Raspberry-Pi-4", "raspberry-pi-4"), ("locl", "local")]
)
def test_unknown_name_is_reported_with_the_closest(wrong: str, closest: str) -> None:
    """The error is one short line with the closest name and the command that lists all."""
    with pytest.raises(ProfileError) as caught:
        load_profile(wrong)
    message = str(caught.value)
    assert f"unknown device {wrong!r}; did you mean {closest!r}?" in message
    assert f"farsearch devices list names all {len(SHIPPED)}" in message
    assert "\n" not in message
    assert len(message) < 200


def test_name_that_is_a_path_does_not_leave_the_folder(tmp_path: Path) -> None:
    """Only names are looked up in folders; a path must end in .toml."""
    write_profile(_renamed("my-board"), tmp_path / "my-board.toml")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ProfileError, match="unknown device"):
        load_profile("../my-board", tmp_path / "sub")


def test_local_is_not_a_file() -> None:
    """The profile of this machine is calibrated and never read from the shipped ones."""
    with pytest.raises(ProfileError, match="calibrated"):
        load_profile("local")


@pytest.mark.parametrize(("published_gb", "predicted_gb"), [(4.29, 3.56), (2.62, 2.31)], ids=["full", "BitFit"])
def test_published_peaks_are_in_the_range(published_gb: float, predicted_gb: float) -> None:
    """FeS, RoBERTa-base on a Jetson TX2, compared with the central prediction of the same step."""
    profile = load_profile("jetson-tx2")
    mib = 1e9 / 2**20
    tensors = predicted_gb * mib - profile.process_mib.value
    low, high = tensors + profile.process_mib.low, tensors * (1 + profile.held_share) + profile.process_mib.high
    assert low < published_gb * mib < high


def test_held_share_is_zero_for_cpus_and_calibrated_profiles() -> None:
    """A CPU's allocator caches nothing, and a calibrated profile includes the cache."""
    tx2 = load_profile("jetson-tx2")
    assert tx2.held_share > 0
    assert load_profile("raspberry-pi-5").held_share == 0
    assert dataclasses.replace(tx2, basis="calibrated").held_share == 0
    # the budget is the central peak at which the high end just fits
    tensors = tx2.budget_mib - tx2.process_mib.value
    assert tensors * (1 + tx2.held_share) + tx2.process_mib.high == pytest.approx(tx2.available_mib[0])
