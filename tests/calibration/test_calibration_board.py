"""Measurements of a bundle on a board: validation, adjusted profiles, import into the study."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.calibration.board import BoardFile, adjusted, is_measurement, read_measurement
from farsearch.cost.pricer import Pricer
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import load_profile
from farsearch.devices.profile import read_profile, write_profile
from farsearch.errors import BadInput
from farsearch.models.heads import Head
from farsearch.records import FarConfig, Measurement
from farsearch.runtime.measurement import MEASUREMENT, SCHEMA_VERSION
from farsearch.tracking import open_tracking
from tests.factories import make_measurement
from tests.journey import call, chdir, read_study
from tests.tiny import make_config

Data = dict[str, Any]


def board_file(measured: Measurement, study: str = "tiny") -> Data:
    """Return the data of the file that ``train.py`` writes."""
    return {
        "what": MEASUREMENT,
        "schema_version": SCHEMA_VERSION,
        "study": study,
        "device": "jetson-nano",
        "bundle": "5e" * 32,
        "losses": [0.7, 0.6],
        "measured": measured.to_dict(),
    }


def written(folder: Path, data: Data, name: str = "measurement.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_valid_file_is_read_completely(tmp_path: Path) -> None:
    path = written(tmp_path, board_file(make_measurement(3)))
    file = read_measurement(path)
    assert is_measurement(path)
    assert file.to_dict() == board_file(make_measurement(3))
    assert file.measured == make_measurement(3)


def put(key: str, value: Any) -> Callable[[Data], None]:
    """Return a change of one value, by a path such as ``measured.rows``."""

    def change(data: Data) -> None:
        *path, last = key.split(".")
        for part in path:
            data = data[part]
        data[last] = value

    return change


def without(key: str) -> Callable[[Data], None]:
    """Return a change that removes a key."""

    def change(data: Data) -> None:
        *path, last = key.split(".")
        for part in path:
            data = data[part]
        del data[last]

    return change


BROKEN: tuple[tuple[Callable[[Data], None], str], ...] = (
    (put("what", "a poem"), "is no measurement of a bundle; give the measurement.json that train.py wrote"),
    (without("what"), "is no measurement of a bundle"),
    (put("schema_version", 99), "schema_version is 99; this farsearch reads 1"),
    (put("schema_version", True), "schema_version is True"),
    (without("schema_version"), "schema_version is None"),
    (put("studdy", "x"), "has the unknown key 'studdy'; known are what, schema_version, study"),
    (without("measured.rows"), "lacks the key 'rows'"),
    (put("measured", []), "measured is []; it must be a table of its fields"),
    (put("measured.peak_memory_mib", "many"), "measured.peak_memory_mib is 'many'; it must be of type float"),
    (put("measured.peak_memory_mib", 0), "measured.peak_memory_mib is 0.0; it must be a number from 1e-06"),
    (put("measured.wall_time_s", -4.0), "measured.wall_time_s is -4.0; it must be a number from 1e-06"),
    (put("measured.predicted_time_s", math.nan), "measured.predicted_time_s is nan"),
    (put("measured.predicted_time_s", 5e-324), "measured.predicted_time_s is 5e-324"),
    (put("measured.predicted_memory_mib", math.inf), "measured.predicted_memory_mib is inf"),
    (put("measured.step_time_s", 10**400), "measured.step_time_s is an integer of more than 63 bits"),
    (put("measured.epochs", -1.0), "measured.epochs is -1.0"),
    (put("measured.rows", 0), "measured.rows is 0; it must be from 1"),
    (put("measured.steps", True), "measured.steps is True; it must be of type int"),
    (put("measured.trial", -1), "measured.trial is -1; it must be from 0"),
    (put("measured.metric", math.nan), "metric is nan; it must be a finite number"),
    (put("losses", [0.5, math.inf]), "losses[1] is inf; it must be a finite number"),
    (put("study", "a\nb"), r"study is 'a\nb'; it must be one line of at most 200 characters"),
    (put("measured.machine", "Nano\x1b[2J"), r"measured.machine is 'Nano\x1b[2J'; it must be one line"),
    (put("measured.machine", "N" * 201), "it must be one line of at most 200 characters"),
    (put("measured.created", "2026\n[power]"), r"measured.created is '2026\n[power]'; it must be one line"),
    (put("measured.software", {"a\nb": "1"}), r"measured.software['a\nb'] is 'a\nb 1'; it must be one line"),
    (put("measured.software", {"\ud800": "1"}), r"measured.software['\ud800'] is '\ud800 1'"),
    (put("measured.software", {"torch": 1.1}), "measured.software.torch is 1.1; it must be of type str"),
)


@pytest.mark.parametrize(("change", "fragment"), BROKEN, ids=[fragment[:40] for _, fragment in BROKEN])
def test_broken_file_is_reported_with_file_key_and_rule(
    tmp_path: Path, change: Callable[[Data], None], fragment: str
) -> None:
    """Both commands report one line, and neither stores anything."""
    data = copy.deepcopy(board_file(make_measurement(3)))
    change(data)
    path = written(tmp_path, data)
    with pytest.raises(BadInput) as caught:
        read_measurement(path)
    assert fragment in str(caught.value)
    done = call(tmp_path, "sync", "--measurement", path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert fragment in done.err
    assert path.name in done.err
    if is_measurement(path):
        done = call(tmp_path, "devices", "import", path, "--name", "x")
        assert (done.code, done.err.count("\n")) == (2, 1)
    assert not (tmp_path / ".farsearch").exists()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "is not JSON"),
        (json.dumps(board_file(make_measurement(3))).encode()[:-40], "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "is no measurement of a bundle"),
        (None, "No such file"),
    ],
    ids=["empty", "cut", "bytes", "deep", "list", "missing"],
)
def test_unreadable_file_is_reported_in_one_line(tmp_path: Path, content: bytes | None, fragment: str) -> None:
    """The file is truncated, binary, deeply nested, of another kind, or missing."""
    path = tmp_path / "m.json"
    if content is not None:
        path.write_bytes(content)
    assert not is_measurement(path)
    with pytest.raises(BadInput) as caught:
        read_measurement(path)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


# Adjusted profiles.


def _pricer(device: Any) -> Pricer:
    config = make_config("bert")
    return Pricer(config, Head(), 16, 32, device, lengths=[12] * 320, seed=0, tables=shared_tables(config, Head()))


def _measured_by(factor: float, beyond_mib: float, device: str = "jetson-nano") -> tuple[Measurement, FarConfig]:
    """Return a run that took ``factor`` times the predicted time, and so many MiB more."""
    config = FarConfig((0.5, 0.75), 1e-4, 1.0)
    cost = _pricer(load_profile(device)).price(config)
    measured = dataclasses.replace(
        make_measurement(3),
        predicted_memory_mib=cost.peak_memory_mib,
        predicted_time_s=cost.wall_time_s,
        peak_memory_mib=cost.peak_memory_mib + beyond_mib,
        wall_time_s=cost.wall_time_s * factor,
    )
    return measured, config


@given(st.floats(0.05, 40.0), st.floats(-300.0, 300.0))
def test_adjusted_profile_predicts_the_measured_run(factor: float, beyond: float) -> None:
    """Time and peak agree up to rounding and lie in their ranges; other figures are unchanged."""
    profile = load_profile("jetson-nano")
    measured, config = _measured_by(factor, beyond)
    mine = adjusted(profile, BoardFile.from_dict(board_file(measured)), "mine")
    cost = _pricer(mine).price(config)
    assert cost.wall_time_s == pytest.approx(measured.wall_time_s, rel=1e-9)
    assert cost.peak_memory_mib == pytest.approx(measured.peak_memory_mib, rel=1e-9)
    low, high = cost.wall_time_range_s
    assert low < cost.wall_time_s < high
    low, high = cost.peak_memory_range_mib
    assert low < cost.peak_memory_mib < high
    changed = {"name", "title", "note", "time_factor", "process_mib"}
    fields = {field.name for field in dataclasses.fields(profile)} - changed
    assert all(getattr(mine, name) == getattr(profile, name) for name in fields)


def test_process_memory_is_never_negative(tmp_path: Path) -> None:
    """A peak below the predicted tensors gives a process of 0 MiB and a valid profile."""
    measured, _ = _measured_by(1.0, -5.0)
    small = dataclasses.replace(measured, peak_memory_mib=1.0)
    mine = adjusted(load_profile("jetson-nano"), BoardFile.from_dict(board_file(small)), "mine")
    assert (mine.process_mib.value, mine.process_mib.low) == (0.0, 0.0)
    write_profile(mine, tmp_path / "mine.toml")
    assert read_profile(tmp_path / "mine.toml") == mine


def test_a_run_without_torch_adjusts_the_figures_of_its_engine() -> None:
    """Those of torch are not touched; a profile without figures of the engine is refused."""
    run = make_measurement(1)
    without = dataclasses.replace(
        run, software={"onnxruntime": "1.31.1", "numpy": "2.4.6"}, wall_time_s=2 * run.predicted_time_s,
        peak_memory_mib=run.predicted_memory_mib + 20.0,
    )  # fmt: skip
    file, board = BoardFile.from_dict(board_file(without)), load_profile("raspberry-pi-4")
    mine = adjusted(board, file, "mine")
    assert (mine.time_factor, mine.process_mib) == (board.time_factor, board.process_mib)
    assert mine.onnx is not None
    assert board.onnx is not None
    assert mine.onnx.time_factor.value == pytest.approx(2 * board.onnx.time_factor.value)
    assert mine.onnx.process_mib.value == pytest.approx(board.onnx.process_mib.value + 20.0)
    assert mine.onnx.process_mib.basis == "measured"
    with pytest.raises(BadInput, match="without torch"):
        adjusted(load_profile("jetson-nano"), file, "mine")


def test_devices_import_writes_an_adjusted_profile(tmp_path: Path) -> None:
    """The profile differs from the bundle's in two measured figures, names its run, and works with ``estimate``."""
    measured = make_measurement(3)
    path = written(tmp_path, board_file(measured))
    done = call(tmp_path, "devices", "import", path, "--name", "my-nano")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "use it with --device my-nano"
    mine, shipped = read_profile(tmp_path / ".farsearch" / "devices" / "my-nano.toml"), load_profile("jetson-nano")
    assert mine.time_factor.value == pytest.approx(0.8 * shipped.time_factor.value)
    assert mine.process_mib.value == pytest.approx(shipped.process_mib.value + 30)
    assert {mine.time_factor.basis, mine.process_mib.basis} == {"measured"}
    for source in (mine.time_factor.source, mine.process_mib.source):
        assert "a bundle of tiny, trial 3, on NVIDIA Jetson Nano Developer Kit, 2026-11-20" in source
    command = ["estimate", "--model", "google/bert_uncased_L-2_H-128_A-2", "--batch-size", 4, "--json", "--device"]
    here, there = (call(tmp_path, *command, device).json for device in ("my-nano", "jetson-nano"))
    assert here["step_time_s"] == pytest.approx(0.8 * there["step_time_s"])
    assert here["peak_memory_mib"] == pytest.approx(there["peak_memory_mib"] + 30)
    again = call(tmp_path, "devices", "import", path, "--name", "my-nano")
    assert again.code == 2
    assert "give another --name, or --force" in again.err


def test_missing_user_profile_is_named(tmp_path: Path) -> None:
    """A bundle for a user's own profile can't be adjusted without that profile."""
    path = written(tmp_path, {**board_file(make_measurement(3)), "device": "jetson-nanno"})
    done = call(tmp_path, "devices", "import", path, "--name", "x")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "jetson-nanno" in done.err


# Import into the study.


@pytest.fixture
def study(finished_study: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished study."""
    return Path(shutil.copytree(finished_study, tmp_path / "copy"))


def test_sync_imports_a_measurement_once(study: Path) -> None:
    """It appears in the study, in the trial's MLflow run, in ``show`` and in the report; a repeat changes nothing."""
    measured = make_measurement(0)
    path = written(study, board_file(measured))
    first, second = (call(study, "sync", "--measurement", path) for _ in range(2))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    line = "trial 0 on NVIDIA Jetson Nano Developer Kit: 1,030 MiB, predicted 1,000 MiB; 2.7 min, predicted 3.3 min"
    assert first.out.splitlines()[0] == line
    assert "1 updated" in first.out
    snapshot = read_study(study)
    assert snapshot.measurements == (measured,)
    with chdir(study):
        tracker = open_tracking("sqlite:///mlflow.db")
        assert tracker.differences(snapshot) == []
        held = tracker.trials("tiny")
    board = {name: value for name, value in held[0]["metrics"].items() if name.startswith("board/")}
    assert (board["board/peak_memory_mib"], board["board/wall_time_s"]) == (1030.0, 160.0)
    assert (board["board/wall_time_predicted_s"], board["board/accuracy"]) == (200.0, 0.83)
    assert not [name for name in held[1]["metrics"] if name.startswith("board/")]
    shown = re.sub(r"\s+", " ", call(study, "show", "--trial", 0).out)
    assert "measured on a board NVIDIA Jetson Nano Developer Kit: 1,030 MiB (predicted 1,000 MiB), 2.7 min" in shown
    assert call(study, "show", "--trial", 0, "--json").json["measurements"] == [measured.to_dict()]
    assert call(study, "report", "--out", "r.html").code == 0
    assert "NVIDIA Jetson Nano" in (study / "r.html").read_text(encoding="utf-8")


def test_second_run_is_stored_beside_the_first(study: Path) -> None:
    """All measurements of a trial are stored in order of import."""
    one = make_measurement(0)
    other = dataclasses.replace(one, created="2026-11-21T10:00:00+00:00", wall_time_s=170.0)
    for i, measured in enumerate((one, other)):
        assert call(study, "sync", "tiny", "--measurement", written(study, board_file(measured), f"{i}.json")).code == 0
    assert read_study(study).measurements == (one, other)


def test_measurement_of_another_machine_is_marked(study: Path) -> None:
    """A workstation's measurement is stored in a study for a Jetson, without a warning about the difference."""
    path = written(study, board_file(dataclasses.replace(make_measurement(0), machine="AMD EPYC 7B12")))
    done = call(study, "sync", "tiny", "--measurement", path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].startswith("predictions are for jetson-nano, which that machine is not")


@pytest.mark.parametrize(
    ("measured", "of", "options", "fragment"),
    [
        (make_measurement(77), "tiny", [], "of trial 77, which study tiny has not trained to its end"),
        (make_measurement(0), "tinny", [], "the study 'tinny' is not in"),
        (make_measurement(0), "tiny", ["other"], "is of the study 'tiny', not of 'other'"),
    ],
    ids=["trial", "study", "name"],
)
def test_measurement_of_another_study_is_refused(
    study: Path, measured: Measurement, of: str, options: list[str], fragment: str
) -> None:
    """Nothing is stored, and the error is one line with a suggestion."""
    path = written(study, board_file(measured, of))
    done = call(study, "sync", *options, "--measurement", path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert fragment in done.err
    assert read_study(study).measurements == ()
