"""Calibration of this machine: it really runs, on a budget of a few seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from farsearch.devices import Profile, local_profile
from farsearch.devices.machine import this_machine
from farsearch.devices.workloads import Pool, attention_cases, median_rates, product_cases, stream_cases, traffic

BUDGET_S = 2.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that calibrations of this file are stored in."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def local(cache: Path) -> Profile:
    """This machine, calibrated once for the whole file."""
    return local_profile(cache, seconds=BUDGET_S)


def test_calibration_measures_this_machine(local: Profile) -> None:
    """Rates and memory are measured here and say when and with what; they are those of a possible machine."""
    machine = this_machine()
    assert (local.name, local.basis, local.kind) == ("local", "calibrated", machine.kind)
    assert local.torch == torch.__version__
    for key, figure in local.figures().items():
        if key.split(".")[0] == "compute":
            assert figure.basis == "measured", key
            assert f"torch {torch.__version__}, {machine.threads} threads" in figure.source, key
    assert 0.1 < local.gemm_gflops.value < 1e6
    assert 0.01 < local.bandwidth_gbs.value < 1e5
    assert local.time_factor.low <= 0.85
    assert local.time_factor.high >= 1.15
    low, high = local.available_mib
    assert 0 < low < high <= local.visible_mib.value
    # a process with torch takes more than 50 MiB, and fits this machine
    assert 50 < local.process_mib.value < local.visible_mib.value


def test_second_call_reads_the_file(cache: Path, local: Profile) -> None:
    """The same profile, digest for digest, comes back without measuring."""
    start = time.perf_counter()
    assert local_profile(cache) == local
    assert time.perf_counter() - start < 1
    assert [file.name for file in cache.iterdir()] == [f"local-{this_machine().identity}.toml"]


@pytest.fixture(scope="module")
def after_cut(cache: Path, local: Profile) -> tuple[Profile, list[str], torch.Tensor]:
    """The profile after its file was cut in half, what was told, and a random number drawn next after seed 5."""
    path = cache / f"local-{this_machine().identity}.toml"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told: list[str] = []
    torch.manual_seed(5)
    profile = local_profile(cache, told.append, seconds=0.2)
    return profile, told, torch.rand(3)


def test_half_a_file_is_calibrated_anew(
    cache: Path, local: Profile, after_cut: tuple[Profile, list[str], torch.Tensor]
) -> None:
    """A file cut in half is told of and replaced by a whole one; the machine's memory is what it was."""
    again, told, _ = after_cut
    assert "calibrating anew" in told[0]
    assert again.visible_mib.value == local.visible_mib.value
    assert local_profile(cache) == again


def test_calibration_leaves_the_random_numbers_alone(after_cut: tuple[Profile, list[str], torch.Tensor]) -> None:
    """A training that follows draws the same numbers whether or not the machine was calibrated before."""
    torch.manual_seed(5)
    assert torch.equal(after_cut[2], torch.rand(3))


def test_work_of_cases_is_what_torch_counts() -> None:
    """The operations that a case claims are those of torch's own flop counter."""
    from torch.utils.flop_counter import FlopCounterMode

    pool = Pool(torch.device("cpu"))
    for case in [*product_cases()[:6], *attention_cases()]:
        counter = FlopCounterMode(display=False)
        with counter:
            case.prepare(pool)()
        assert counter.get_total_flops() == case.work, case.label


def test_traffic_counts_arguments_and_results() -> None:
    """An addition reads two tensors and writes one; in place it reads two and writes one; a view moves nothing."""
    x, y = torch.rand(10, 10), torch.rand(10, 10)
    assert traffic(lambda: x + y) == 1200
    assert traffic(lambda: x.add_(y)) == 1200
    assert traffic(lambda: torch.addcmul(x, y, y)) == 1200
    assert traffic(lambda: x.t().unsqueeze(0)) == 0


def test_stream_work_grows_with_the_rows() -> None:
    """The bytes counted on a few rows and scaled are those of the whole operation, parameters of a few bytes aside."""
    pool = Pool(torch.device("cpu"))
    for case in stream_cases(pool)[:7]:
        assert traffic(case.prepare(pool)) == pytest.approx(case.work, rel=1e-3), case.label


def test_a_spent_budget_still_times_one_case() -> None:
    """However short the time, a rate comes out, and soon."""
    pool = Pool(torch.device("cpu"))
    start = time.perf_counter()
    rates = median_rates(attention_cases(), pool, 0.0, 0.0)
    assert len(rates) == 1
    assert all(seconds > 0 and rate > 0 for seconds, rate in rates.values())
    assert time.perf_counter() - start < 5
