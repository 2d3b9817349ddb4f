"""The profile of this machine: measured at first use, then read. The measurement is that of a known machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from farsearch.calibration import local
from farsearch.calibration.fit import fit_profile
from farsearch.calibration.local import local_path, local_profile, this_machine
from farsearch.calibration.result import parse_result
from farsearch.devices.profile import write_profile
from farsearch.errors import MissingResource
from tests.calibration.known import KnownMachine


class Measured:
    """Replaces the measurement: counts its calls, and draws random numbers as that does."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
        """The result of a known machine."""
        self.seconds.append(seconds)
        report("products, round 1 of at most 9")
        torch.rand(100)
        self.meanwhile()
        # another result each time, as of a real machine
        return KnownMachine(us_per_mib=200.0 + len(self.seconds)).result()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Replace the measurement."""
    stand_in = Measured()
    monkeypatch.setattr(local, "measure", stand_in)
    return stand_in


def test_the_first_use_measures_and_the_second_reads(measured: Measured, tmp_path: Path) -> None:
    """One file, whose profile has the same digest; progress is reported."""
    messages: list[str] = []
    first = local_profile(tmp_path, messages.append)
    assert (first.name, first.basis) == ("local", "calibrated")
    assert local_profile(tmp_path, messages.append) == first
    assert measured.seconds == [45.0]
    assert list(tmp_path.iterdir()) == [local_path(tmp_path)]
    assert len(messages) == 2
    assert "leave it alone" in messages[0]
    assert messages[1] == "calibrating: products, round 1 of at most 9"


def test_a_time_may_be_given(measured: Measured, tmp_path: Path) -> None:
    """It is that of the measurement."""
    local_profile(tmp_path, seconds=3.0)
    assert measured.seconds == [3.0]


@pytest.mark.parametrize("rest", [0.0, 0.5, 0.95])
def test_half_a_file_is_measured_anew(measured: Measured, tmp_path: Path, rest: float) -> None:
    """A truncated file is reported in one line and replaced."""
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


def test_another_process_may_be_faster(measured: Measured, tmp_path: Path) -> None:
    """A file written meanwhile is used, so that two simultaneous searches predict the same."""
    other = fit_profile(parse_result(KnownMachine(us_per_mib=77.0).result(), "another"), "local")
    measured.meanwhile = lambda: write_profile(other, local_path(tmp_path))
    assert local_profile(tmp_path) == other == local_profile(tmp_path)


def test_another_machine_has_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of processor, cores, threads, torch and memory is part of the name: a folder may be shared."""
    here = local.machine()
    paths = {local_path(tmp_path)}
    for key, value in here.items():
        if key != "kind":
            changed = {**here, key: value + 1 if isinstance(value, int) else f"{value}.1"}
            monkeypatch.setattr(local, "machine", lambda changed=changed: changed)
            paths.add(local_path(tmp_path))
    assert len(paths) == len(here)
    assert all(path.parent == tmp_path and path.suffix == ".toml" for path in paths)


def test_random_numbers_are_those_of_a_search_without_it(measured: Measured, tmp_path: Path) -> None:
    """A training that follows draws the same whether or not the machine was measured before."""
    before = torch.random.get_rng_state()
    local_profile(tmp_path)
    assert measured.seconds
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_folder_that_cannot_be_written_is_an_error(measured: Measured, tmp_path: Path) -> None:
    """A file has the path of the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingResource, match=r"local-.*\.toml can't be written"):
        local_profile(tmp_path / "file")


def test_this_machine_is_that_of_torch() -> None:
    """Its record is that of a result, equally validated."""
    machine = this_machine()
    assert machine.torch == torch.__version__
    assert machine.threads == torch.get_num_threads()
    assert machine.processor
    assert machine.conditions()["threads"] == str(machine.threads)
