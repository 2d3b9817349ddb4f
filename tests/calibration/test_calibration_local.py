"""The profile of this machine: measured at first use, then read; a known machine replaces the measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from farsearch.calibration import local
from farsearch.calibration.fit import fit_profile
from farsearch.calibration.local import find_engine_profile, local_path, local_profile, this_machine
from farsearch.calibration.measure.machine import machine
from farsearch.calibration.result import parse_result
from farsearch.devices import load_profile
from farsearch.devices.profile import write_profile
from farsearch.errors import MissingResource, ProfileError
from tests.calibration.known import KnownMachine


class Measured:
    """Replace the measurement: count its calls, and consume random numbers as it does."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
        """Return the result of a known machine."""
        self.seconds.append(seconds)
        report("products, round 1 of at most 9")
        torch.rand(100)
        self.meanwhile()
        # different results each time, as on a real machine
        return KnownMachine(us_per_mib=200.0 + len(self.seconds)).result()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    stand_in = Measured()
    monkeypatch.setattr(local, "measure", stand_in)
    return stand_in


def test_first_use_measures_and_second_reads(measured: Measured, tmp_path: Path) -> None:
    """There is one file, whose profile has the same digest; progress is reported."""
    messages: list[str] = []
    first = local_profile(tmp_path, messages.append)
    assert (first.name, first.basis) == ("local", "calibrated")
    assert local_profile(tmp_path, messages.append) == first
    assert measured.seconds == [45.0]
    assert list(tmp_path.iterdir()) == [local_path(tmp_path)]
    assert len(messages) == 2
    assert "leave it alone" in messages[0]
    assert messages[1] == "calibrating: products, round 1 of at most 9"


def test_time_limit_is_passed_to_the_measurement(measured: Measured, tmp_path: Path) -> None:
    local_profile(tmp_path, seconds=3.0)
    assert measured.seconds == [3.0]


@pytest.mark.parametrize("rest", [0.0, 0.5, 0.95])
def test_truncated_file_is_measured_again(measured: Measured, tmp_path: Path, rest: float) -> None:
    """The file is reported in one line and replaced."""
    first = local_profile(tmp_path)
    path = local_path(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(rest * len(whole))])
    messages: list[str] = []
    again = local_profile(tmp_path, messages.append)
    assert messages[0].startswith(str(path))
    assert messages[0].endswith("; calibrating anew")
    assert again != first
    assert local_profile(tmp_path) == again
    assert len(measured.seconds) == 2


def test_file_of_a_faster_process_is_used(measured: Measured, tmp_path: Path) -> None:
    """Two simultaneous searches predict the same because the file written first is used."""
    other = fit_profile(parse_result(KnownMachine(us_per_mib=77.0).result(), "another"), "local")
    measured.meanwhile = lambda: write_profile(other, local_path(tmp_path))
    assert local_profile(tmp_path) == other == local_profile(tmp_path)


def test_each_machine_has_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor, cores, threads, torch and memory are part of the name, because a folder may be shared."""
    here = machine()
    paths = {local_path(tmp_path)}
    for key, value in here.items():
        if key != "kind":
            changed = {**here, key: value + 1 if isinstance(value, int) else f"{value}.1"}
            monkeypatch.setattr(local, "machine", lambda changed=changed: changed)
            paths.add(local_path(tmp_path))
    assert len(paths) == len(here)
    assert all(path.parent == tmp_path and path.suffix == ".toml" for path in paths)


def test_measurement_leaves_the_random_state_unchanged(measured: Measured, tmp_path: Path) -> None:
    """A training that follows draws the same numbers with and without a measurement."""
    before = torch.random.get_rng_state()
    local_profile(tmp_path)
    assert measured.seconds
    assert torch.equal(torch.random.get_rng_state(), before)


def test_unwritable_folder_is_an_error(measured: Measured, tmp_path: Path) -> None:
    """A file has the path of the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingResource, match=r"local-.*\.toml can't be written"):
        local_profile(tmp_path / "file")


def test_record_of_this_machine_is_valid() -> None:
    """It passes the validation of a result."""
    machine = this_machine()
    assert machine.torch == torch.__version__
    assert machine.threads == torch.get_num_threads()
    assert machine.processor
    assert machine.conditions()["threads"] == str(machine.threads)


def test_a_cpu_without_figures_of_an_engine_gets_assumed_ones(tmp_path: Path) -> None:
    """As a calibrated machine's: the process of a shipped profile, and torch's times with a wider range."""
    own = replace(load_profile("raspberry-pi-5"), onnx=None)
    found = find_engine_profile(own, "onnx", tmp_path)
    assert found.process_mib.value < own.process_mib.value
    assert found.time_factor.value == own.time_factor.value
    assert found.time_factor.basis == "assumed"
    assert found.time_factor.low < own.time_factor.low <= own.time_factor.high < found.time_factor.high


def test_a_gpu_without_figures_of_an_engine_is_replaced_by_its_boards_cpu(tmp_path: Path) -> None:
    assert find_engine_profile(load_profile("jetson-nano"), "onnx", tmp_path).name == "jetson-nano-cpu"
    assert find_engine_profile(load_profile("jetson-nano"), "torch", tmp_path).name == "jetson-nano"
    with pytest.raises(ProfileError, match=r"engines\.onnx"):
        find_engine_profile(load_profile("jetson-xavier-nx"), "onnx", tmp_path)
