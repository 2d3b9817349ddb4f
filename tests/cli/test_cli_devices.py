"""``farsearch devices``: list, script and result of a board, calibration of this machine, and checks of a profile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farsearch.calibration import local
from farsearch.calibration.measure.machine import machine
from farsearch.calibration.result import parse_result
from farsearch.calibration.script import board_script
from farsearch.devices import list_profiles, load_profile
from farsearch.devices.profile import read_profile
from farsearch.records import FarConfig, StepPlan
from tests.calibration.known import KnownMachine
from tests.journey import call, process

SMALL = "google/bert_uncased_L-2_H-128_A-2"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A working directory with the calibration result of a board with known rates."""
    (tmp_path / "board.json").write_text(json.dumps(KnownMachine().result()))
    return tmp_path


@pytest.fixture
def this_machine(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the calibration of this machine by a known one. Return the requested durations in seconds."""
    asked: list[float] = []

    def measure(seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
        asked.append(seconds)
        tell("overheads")
        return KnownMachine().result(machine=machine())

    monkeypatch.setattr(local, "measure", measure)
    return asked


def test_the_list_of_devices_fits_a_terminal(board: Path) -> None:
    """Each profile and ``local`` take one line of at most 100 columns."""
    assert call(board, "devices", "import", "board.json", "--name", "my-board").code == 0
    done = call(board, "devices", "list")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert lines[0].split() == ["name", "title", "memory,", "MiB", "GFLOP/s", "basis", "engines"]
    names = [line.split()[0] for line in lines[1:]]
    assert names == [*sorted([*list_profiles(), "my-board"]), "local"]
    nano = next(line for line in lines if line.startswith("jetson-nano "))
    low, high = load_profile("jetson-nano").available_mib
    assert nano.split()[-6:] == [f"{low:,.0f}", "to", f"{high:,.0f}", "130", "derived", "torch"]
    assert lines[1 + names.index("my-board")].endswith("  calibrated  torch")
    assert lines[1 + names.index("raspberry-pi-zero-2-w")].endswith("  derived     torch, onnx")


def test_the_list_as_json_has_every_figure_with_its_source(board: Path) -> None:
    """As in the profiles' files; an own profile without power has none."""
    assert call(board, "devices", "import", "board.json", "--name", "my-board").code == 0
    done = call(board, "devices", "list", "--json")
    assert (done.code, done.err, done.json["schema_version"]) == (0, "", 1)
    listed = {entry["name"]: entry for entry in done.json["devices"]}
    assert list(listed) == sorted([*list_profiles(), "my-board"])
    for name in list_profiles():
        profile = load_profile(name)
        for key in ("gemm_gflops", "bandwidth_gbs", "power_w"):
            figure = getattr(profile, key)
            assert listed[name][key] == {part: getattr(figure, part) for part in listed[name][key]}
            assert listed[name][key]["source"]
        assert listed[name]["available_mib_range"] == list(profile.available_mib)
    assert (listed["my-board"]["power_w"], listed["my-board"]["gemm_gflops"]["basis"]) == (None, "measured")


def test_rank_prices_every_device_as_estimate_does(tmp_path: Path) -> None:
    """The quickest that fits first, then what does not fit by its missing memory; energy is watts × seconds."""
    job = ("--model", SMALL, "--batch-size", 200, "--max-length", 64, "--samples", 2000, "--method", "lora4")
    done = call(tmp_path, "devices", "rank", *job, "--json")
    assert (done.code, done.err) == (0, "")
    ranked = done.json["devices"]
    assert sorted(one["device"] for one in ranked) == list(list_profiles())
    fitting = [one for one in ranked if one["fits"]]
    assert 0 < len(fitting) < len(ranked)
    assert ranked[: len(fitting)] == sorted(fitting, key=lambda one: one["wall_time_s"])
    missing = [one["peak_memory_mib_range"][1] - one["available_mib_range"][0] for one in ranked[len(fitting) :]]
    assert missing == sorted(missing)
    assert min(missing) > 0
    for one in (ranked[0], ranked[len(fitting) - 1], ranked[-1]):
        alone = call(tmp_path, "estimate", "--device", one["device"], *job, "--json").json
        assert {key: alone[key] for key in one if key in alone} == {key: one[key] for key in one if key in alone}
        power = load_profile(one["device"]).power_w
        assert power is not None
        assert one["energy_j"] == pytest.approx(power.value * one["wall_time_s"])
    text = call(tmp_path, "devices", "rank", *job).out.splitlines()
    assert f"fits {len(fitting)} of {len(ranked)} devices; one epoch of 2,000 rows in batches of 200 × 64" in text[0]
    assert [line.split()[0] for line in text[3:]] == [one["device"] for one in ranked]


def test_show_names_the_engines_and_their_figures(tmp_path: Path) -> None:
    """A figure of another engine than torch has the engine's name in front."""
    done = call(tmp_path, "devices", "show", "raspberry-pi-zero-2-w")
    assert done.code == 0
    assert "engines of the training step: torch, onnx" in done.out.splitlines()
    assert all(f"onnx: {figure} " in done.out for figure in ("process_mib", "time_factor"))
    assert "onnx" not in call(tmp_path, "devices", "show", "jetson-nano").out


def test_like_gives_a_calibrated_cpu_the_figures_of_other_engines(board: Path) -> None:
    """They are measured with torch alone; the profile of the same board knows the rest."""
    assert call(board, "devices", "import", "board.json", "--name", "mine", "--like", "raspberry-pi-4").code == 0
    profile = read_profile(board / ".farsearch" / "devices" / "mine.toml")
    assert profile.engines == (("torch", "onnx") if profile.kind == "cpu" else ("torch",))


def test_a_broken_profile_does_not_hide_the_others(board: Path) -> None:
    """It is reported in one line."""
    folder = board / ".farsearch" / "devices"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text("name = ")
    done = call(board, "devices", "list")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert "mine.toml: not valid TOML" in done.err
    assert len(done.out.splitlines()) == len(list_profiles()) + 2


def test_the_calibration_script_starts_without_farsearch(tmp_path: Path) -> None:
    """It is the module byte for byte, and needs no other file."""
    done = call(tmp_path, "devices", "calibrate", "--script", "calibrate.py")
    assert (done.code, done.err) == (0, "")
    assert "python3 calibrate.py --out result.json" in done.out
    assert (tmp_path / "calibrate.py").read_text(encoding="utf-8") == board_script()
    words = [sys.executable, "-I", "calibrate.py", "--help"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--seconds" in ran.stdout


@pytest.mark.slow
def test_the_result_of_the_calibration_script_becomes_a_profile(tmp_path: Path) -> None:
    """The profile prices steps and can be shown."""
    assert call(tmp_path, "devices", "calibrate", "--script", "calibrate.py").code == 0
    words = ["calibrate.py", "--out", "r.json", "--seconds", "5", "--threads", "1"]
    ran = subprocess.run(
        [sys.executable, "-I", *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    done = call(tmp_path, "devices", "import", "r.json", "--name", "x")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "use it with --device x"
    profile = read_profile(tmp_path / ".farsearch" / "devices" / "x.toml")
    assert (profile.name, profile.basis) == ("x", "calibrated")
    cost = call(tmp_path, "estimate", "--device", "x", "--model", SMALL, "--batch-size", 4, "--json").json
    assert cost["device"] == "x"
    assert 0 < cost["step_time_s"] < 100
    shown = call(tmp_path, "devices", "show", "x")
    assert shown.out.startswith(f"x: {profile.title} (calibrated)\n")
    assert "measured rates of " in shown.out


def test_like_copies_power_and_mode_of_another_profile(board: Path) -> None:
    """Without ``--like`` the power is unknown."""
    assert call(board, "devices", "import", "board.json", "--name", "plain").code == 0
    assert call(board, "devices", "import", "board.json", "--name", "nano", "--like", "jetson-nano").code == 0
    plain, nano = (read_profile(board / ".farsearch" / "devices" / f"{name}.toml") for name in ("plain", "nano"))
    other = load_profile("jetson-nano")
    assert plain.power_w is None
    assert (nano.power_w, nano.power_mode) == (other.power_w, other.power_mode)
    assert nano.rates == plain.rates
    done = call(board, "devices", "import", "board.json", "--name", "third", "--like", "jetson-nanno")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "did you mean 'jetson-nano'" in done.err
    assert not (board / ".farsearch" / "devices" / "third.toml").exists()


def test_import_warns_of_a_machine_that_is_unlike_the_named_device(board: Path) -> None:
    """Of another kind of processor, or with far more memory; a board's own profile has no warning."""
    done = call(board, "devices", "import", "board.json", "--name", "jetson-nano")
    assert done.code == 0
    assert "is unlike jetson-nano, NVIDIA Jetson Nano" in done.err
    assert call(board, "devices", "import", "board.json", "--name", "raspberry-pi-4").err == ""
    assert call(board, "devices", "import", "board.json", "--name", "mine").err == ""


def test_import_replaces_a_profile_only_with_force(board: Path) -> None:
    """The default name is that of the file."""
    path = board / ".farsearch" / "devices" / "board.toml"
    assert call(board, "devices", "import", "board.json").code == 0
    before = path.read_bytes()
    (board / "board.json").write_text(json.dumps(KnownMachine(us_per_mib=90.0).result()))
    done = call(board, "devices", "import", "board.json")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "board.toml exists; give another --name, or --force to replace it" in done.err
    assert path.read_bytes() == before
    assert call(board, "devices", "import", "board.json", "--force").code == 0
    assert path.read_bytes() != before


def test_import_makes_a_usable_name_of_any_file(board: Path) -> None:
    """Capitals, spaces and other alphabets are replaced; the last line has the name."""
    (board / "board.json").rename(board / "Моя плата 1.json")
    done = call(board, "devices", "import", "Моя плата 1.json")
    assert (done.code, done.out.splitlines()[-1]) == (0, "use it with --device moya-plata-1")


def test_submit_writes_an_anonymous_file_that_can_be_used(board: Path) -> None:
    """Its name is the board's; the file loads, and holds nothing that names the user's profile or folder."""
    assert call(board, "devices", "import", "board.json", "--name", "annas-board", "--like", "raspberry-pi-5").code == 0
    done = call(board, "devices", "submit", "annas-board", "--board", "raspberry-pi-5")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        "wrote raspberry-pi-5-measured.toml: a processor for tests, 4 cores, measured 2025-03-02"
    )
    text = (board / "raspberry-pi-5-measured.toml").read_text(encoding="utf-8")
    assert "anna" not in text
    assert str(board) not in text
    assert call(board, "devices", "show", "raspberry-pi-5-measured.toml").code == 0
    again = call(board, "devices", "submit", "raspberry-pi-5-measured.toml", "--board", "x", "--out", "x.toml")
    assert (again.code, "a new board is welcome" in again.out) == (0, True)


def test_submit_refuses_a_calibration_of_a_busy_machine(board: Path) -> None:
    """And what was never calibrated; nothing is written."""
    (board / "busy.json").write_text(json.dumps(KnownMachine().result(busy_cores=1.0)))
    assert call(board, "devices", "import", "busy.json").code == 0
    for name, message in (("busy", "busy_cores is 1 of 4"), ("raspberry-pi-5", "has no measured rates")):
        done = call(board, "devices", "submit", name, "--board", "raspberry-pi-5")
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert message in done.err
    assert not list(board.glob("*.toml"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "board.json", "--name", "My Board"), "name is 'My Board'; it must be lower-case letters"),
        (("import", "board.json", "--name", "../up"), "name is '../up'"),
        (("import", "board.json", "--name", "local"), "the name 'local' stands for the machine"),
        (("calibrate", "--out", "My Board.toml"), "name is 'My Board'"),
        (("calibrate", "--out", "local.toml"), "the name 'local' stands for the machine"),
        (("calibrate", "--out", "board"), "'board' has to end in .toml"),
        (("calibrate", "--out", "a.toml", "--script", "b.py"), "--out and --script: give one of them"),
        (("calibrate", "--seconds", "0"), "'0' is not a number above 0"),
        (("check", "jetson-nanno"), "unknown device 'jetson-nanno'; did you mean 'jetson-nano'"),
    ],
)
def test_bad_input_is_refused_before_calibration(
    board: Path, this_machine: list[float], words: tuple[str, ...], message: str
) -> None:
    """Exit code 2, one line, and nothing is written."""
    done = call(board, "devices", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert this_machine == []
    assert [path.name for path in board.iterdir()] == ["board.json"]


def test_calibrate_writes_a_profile_to_a_file(tmp_path: Path, this_machine: list[float]) -> None:
    """``--out`` names file and profile; ``--device`` accepts the path."""
    done = call(tmp_path, "devices", "calibrate", "--out", "mine.toml", "--seconds", 3)
    assert done.code == 0
    assert done.err == "calibrating: overheads\n"
    assert done.out.splitlines()[-1] == "use it with --device mine.toml"
    assert this_machine == [3.0]
    assert read_profile(tmp_path / "mine.toml").name == "mine"
    cost = call(tmp_path, "estimate", "--device", "mine.toml", "--model", SMALL, "--batch-size", 4, "--json").json
    assert cost["device"] == "mine.toml"


def test_calibrate_without_a_file_replaces_the_local_profile(tmp_path: Path, this_machine: list[float]) -> None:
    """``--device local`` uses the profile without another calibration."""
    done = call(tmp_path, "devices", "calibrate")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "use it with --device local"
    cost = call(tmp_path, "estimate", "--device", "local", "--model", SMALL, "--batch-size", 4, "--json").json
    assert cost["device"] == "local"
    assert this_machine == [200.0]
    assert call(tmp_path, "devices", "calibrate", "--seconds", 5).code == 0
    assert this_machine == [200.0, 5.0]


def test_check_compares_a_profile_with_real_steps(board: Path, tiny_bert: Path) -> None:
    """Memory is predicted to 0.5 %; a profile of another machine is reported."""
    call(board, "devices", "import", "board.json", "--name", "known")
    done = call(board, "devices", "check", "known", "--model", tiny_bert, "--json")
    assert done.code == 0, done.err
    assert "known was measured with processor a processor for tests, this machine has " in done.err
    data = done.json
    assert list(data) == ["schema_version", "device", "model", "memory_mean_error", "time_mean_error", "cases"]
    assert (data["schema_version"], data["device"], data["model"]) == (1, "known", str(tiny_bert))
    assert data["memory_mean_error"] < 0.005
    assert {(case["batch_size"], case["length"]) for case in data["cases"]} == {(4, 32), (8, 64), (8, 128)}
    for case in data["cases"]:
        assert list(case) == [
            "batch_size", "length", "config", "plan", "predicted_mib", "measured_mib", "predicted_s", "range_s",
            "measured_s",
        ]  # fmt: skip
        FarConfig.from_dict(case["config"])
        StepPlan.from_dict(case["plan"])
        assert case["predicted_mib"] == pytest.approx(case["measured_mib"], rel=0.005)
        assert case["range_s"][0] < case["predicted_s"] < case["range_s"][1]
        assert case["measured_s"] > 0


@pytest.mark.slow
def test_check_prints_a_table_without_messages_of_the_profiler(tmp_path: Path, tiny_bert: Path) -> None:
    """A row per step and a line with the errors; stderr has the profile's basis and a line per step."""
    shutil.copytree(tiny_bert, tmp_path / "model")
    done = process(tmp_path, "devices", "check", "raspberry-pi-4", "--model", "model")
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.strip()]
    assert lines[0].strip() == "model on raspberry-pi-4, tensors and seconds of a step"
    assert lines[-1].startswith("mean error: memory 0.")
    assert lines[-1].endswith(" times within their range")
    first, *steps = done.err.splitlines()
    assert first.startswith("raspberry-pi-4 is derived from data sheets")
    assert all(line.startswith("step ") for line in steps)
    assert len(steps) == len(lines) - 4


@pytest.fixture
def onnx_board(board: Path) -> Path:
    """The working directory of ``board``, with the result of the same board's engine without torch."""
    (board / "onnx.json").write_text(json.dumps(KnownMachine().compiled_result()))
    return board


def test_result_of_an_engine_needs_a_profile_for_the_rest(onnx_board: Path) -> None:
    """It has no figures of torch."""
    done = call(onnx_board, "devices", "import", "onnx.json", "--name", "zero")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "figures of the engine 'onnx' alone; give a profile of the same board with --like" in done.err


def test_results_of_both_engines_make_one_profile(onnx_board: Path) -> None:
    """The second import takes what the first has; list, show and estimate use the figures of either engine."""
    assert call(onnx_board, "devices", "import", "board.json", "--name", "both").code == 0
    done = call(onnx_board, "devices", "import", "onnx.json", "--name", "both", "--like", "both", "--force")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "use it with --device both --engine onnx"
    path = onnx_board / ".farsearch" / "devices" / "both.toml"
    profile = read_profile(path)
    assert profile.engines == ("torch", "onnx")
    assert profile.rates is not None
    assert profile.onnx is not None
    assert profile.onnx.rates is not None
    assert (profile.rates.conditions["torch"], profile.onnx.rates.conditions["onnxruntime"]) == ("2.4.0", "1.22.0")
    shown = call(onnx_board, "devices", "show", "both").out
    assert all(f"kinds of operations with {engine}: " in shown for engine in ("torch", "onnx"))
    assert "onnx: launch_us" in shown
    listed = call(onnx_board, "devices", "list").out.splitlines()
    assert next(line for line in listed if line.startswith("both ")).endswith("  calibrated  torch, onnx")
    # torch measured again: the engine's figures stay
    assert call(onnx_board, "devices", "import", "board.json", "--name", "both", "--like", "both", "--force").code == 0
    assert read_profile(path).onnx == profile.onnx


def test_like_a_gpu_an_engine_has_no_figures(onnx_board: Path) -> None:
    done = call(onnx_board, "devices", "import", "onnx.json", "--name", "nano", "--like", "jetson-nano")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "jetson-nano is of a GPU" in done.err


def test_calibrate_adds_an_engine_to_the_profile_of_this_machine(
    tmp_path: Path, this_machine: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is measured with torch first; a later measurement with torch keeps the engine's figures."""

    def measure_here(seconds: float, report: Callable[[str], None], engine: str = "torch") -> Any:
        known = KnownMachine()
        this_machine.append(seconds)
        return parse_result(known.result(machine=machine()) if engine == "torch" else known.compiled_result(), engine)

    monkeypatch.setattr(local, "measure_here", measure_here)
    done = call(tmp_path, "devices", "calibrate", "--engine", "onnx", "--seconds", 7)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "use it with --device local --engine onnx"
    assert this_machine == [45.0, 7.0]
    first = read_profile(local.local_path(tmp_path / ".farsearch" / "cache" / "devices"))
    assert first.engines == ("torch", "onnx")
    assert call(tmp_path, "devices", "calibrate").code == 0
    assert read_profile(local.local_path(tmp_path / ".farsearch" / "cache" / "devices")).onnx == first.onnx


@pytest.mark.slow
def test_check_runs_compiled_steps(tmp_path: Path, tiny_bert: Path) -> None:
    """Two plans of three batches each, with their memory and time."""
    done = call(tmp_path, "devices", "check", "raspberry-pi-4", "--model", tiny_bert, "--engine", "onnx", "--json")
    assert done.code == 0, done.err
    assert {(case["batch_size"], case["length"]) for case in done.json["cases"]} == {(4, 32), (8, 64), (8, 128)}
    assert {case["plan"]["feed_forward"] for case in done.json["cases"]} == {"store", "recompute"}
    for case in done.json["cases"]:
        assert case["plan"]["engine"] == "onnx"
        assert 0 < case["measured_mib"] < 200
        assert 0 < case["measured_s"] < 60
