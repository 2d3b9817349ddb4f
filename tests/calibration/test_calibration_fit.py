"""Fit of a profile: for a machine with known rates, the profile has those rates."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farsearch.calibration.fit import fit_profile, workload_ratios
from farsearch.calibration.measure.workloads import WORKLOADS
from farsearch.calibration.result import parse_result
from farsearch.cost.operations import OPERATION_KINDS
from farsearch.cost.plans import exact_plans
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.timing import operation_seconds
from farsearch.devices.profile import Profile, read_profile, write_profile
from farsearch.devices.rates import PRODUCTS, STREAMS, ProductRate
from farsearch.models.heads import Head
from tests.calibration.known import LAUNCH_S, OVERHEAD_S, KnownMachine, Work, work_of
from tests.tiny import make_config

MACHINE = KnownMachine()


def fitted(known: KnownMachine = MACHINE, /, **changes: Any) -> Profile:
    """The profile of a known machine."""
    return fit_profile(parse_result(known.result(**changes), "a test"), "known")


@cache
def with_power(power: float = 1.0) -> Profile:
    """The profile of a machine whose streams follow this power of their bytes, made once."""
    return fitted(KnownMachine(power=power))


def predicted(profile: Profile, work: Work) -> float:
    """Seconds of an operation by a profile, without its overhead and without the factor."""
    left = work.left + work.moved
    kinds = np.array([OPERATION_KINDS.index(work.kind)])
    features = np.array([[work.flops, left, work.right, work.out, work.matrices]], dtype=float)
    return float(operation_seconds(kinds, features, profile)[0]) - profile.launch_us.value * 1e-6


@pytest.mark.parametrize("form", ["gemm_nt", "gemm_nn", "gemm_tn"])
def test_rates_of_products_are_found_again(form: str) -> None:
    """Each coefficient of the machine's linear law, to the four digits of the file."""
    profile = with_power()
    assert profile.rates is not None
    for name, value in vars(MACHINE.products[form]).items():
        assert getattr(profile.rates.products[form], name) == pytest.approx(value, rel=2e-3), name


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("size", [(32, 384, 24), (512, 768, 2000), (4096, 768, 3072)])
def test_products_that_were_not_measured_are_predicted(form: str, size: tuple[int, int, int]) -> None:
    """Between the measured sizes and beyond, also if the terms of the law are indistinguishable."""
    dims = size if form.startswith("gemm") else (24, 4 * size[0] // 32, 48)
    work = work_of(form, dims)
    assert predicted(with_power(), work) == pytest.approx(MACHINE.seconds(work), rel=5e-3)


def test_no_rate_is_negative_where_times_are_noise() -> None:
    """Times that follow no law still give rates that a profile may have."""
    result = MACHINE.result()
    draw = np.random.default_rng(0)
    for sample in result["samples"]:
        sample["seconds"] = float(10 ** draw.uniform(-6, -1))
    rates = fit_profile(parse_result(result, "a test"), "noise").rates
    assert rates is not None
    assert all(value >= 0 for rate in rates.products.values() for value in vars(rate).values())


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("power", [1.0, 0.7, 1.2])
def test_streams_are_found_again(kind: str, power: float) -> None:
    """At any number of bytes between the smallest and the largest: the time of the machine's power law."""
    machine, profile = KnownMachine(power=power), with_power(power)
    assert profile.rates is not None
    sizes = profile.rates.streams[kind].mib
    assert sizes[0] < 1
    assert sizes[-1] > 30
    for mib in np.geomspace(sizes[0], sizes[-1], 7):
        work = Work(kind, moved=int(mib * 2**20))
        assert predicted(profile, work) == pytest.approx(machine.seconds(work), rel=5e-3)


def test_overheads_are_those_of_the_machine() -> None:
    """Within autograd, outside it, of an optimizer's call and of a token."""
    profile = fitted()
    assert profile.rates is not None
    assert profile.launch_us.value == pytest.approx(LAUNCH_S * 1e6, rel=1e-3)
    assert profile.rates.bare_us == pytest.approx(OVERHEAD_S * 1e6, rel=1e-3)
    # two operations of it are priced beside the call
    assert profile.step_us.value == pytest.approx(90 - 2 * 2, rel=1e-3)
    assert profile.token_us.value == pytest.approx(256 / 512, rel=1e-3)


def test_an_overhead_never_takes_all_of_a_time() -> None:
    """If a short operation took less than the separately measured overhead, half of its time is attributed to it."""
    machine = dataclasses.replace(MACHINE, us_per_mib=1e-3)
    profile = fitted(machine)
    assert profile.rates is not None
    assert all(us > 0 for rate in profile.rates.streams.values() for us in rate.us)


RATIOS = {"narrow": 1.02, "wide": 0.8, "long": 1.3, "learners": 1.1}


def test_the_factor_is_what_whole_steps_take_beyond_their_operations() -> None:
    """It is the median of the workloads' ratios, and its range holds all of them."""
    machine = KnownMachine(ratios=RATIOS)
    result = parse_result(machine.result(), "a test")
    profile = fit_profile(result, "known")
    assert workload_ratios(profile, result) == pytest.approx(RATIOS, rel=5e-3)
    factor = profile.time_factor
    assert factor.value == pytest.approx((1.02 + 1.1) / 2, rel=5e-3)
    assert (factor.low, factor.high) == pytest.approx((0.8, 1.3), rel=5e-3)
    assert "wide 0.80" in factor.source


def test_a_calm_machine_still_has_a_range() -> None:
    """If all workloads agree the range is 20 % either way: machines vary from day to day."""
    factor = fitted(KnownMachine(ratios=dict.fromkeys(WORKLOADS, 1.5))).time_factor
    assert (factor.low / factor.value, factor.high / factor.value) == pytest.approx((0.8, 1.2), rel=5e-3)


def test_one_workload_is_enough() -> None:
    """A slow board has time for a single one."""
    sustained = {"narrow": MACHINE.result()["sustained"]["narrow"]}
    assert fitted(sustained=sustained).time_factor.value == pytest.approx(1.0, rel=5e-3)


def test_busy_cores_widen_the_range() -> None:
    """Downwards, for alone the machine is quicker; a fifth of the cores is what any machine has."""
    calm, idle, busy = (fitted(busy_cores=cores).time_factor for cores in (None, 0.7, 2.0))
    assert idle == calm
    assert busy.low == pytest.approx(calm.low * 4 / 6, rel=2e-3)
    assert (busy.value, busy.high) == (calm.value, calm.high)


def test_an_older_torch_leaves_kinds_out() -> None:
    """Operations that its torch lacks are predicted from the general figures."""
    result = MACHINE.result(machine={"torch": "1.10.2"})
    missing = ("fused_adamw", "layer_norm", "layer_norm_backward", "bmm_tn")
    result["samples"] = [sample for sample in result["samples"] if sample["case"] not in missing]
    profile = fit_profile(parse_result(result, "a test"), "old")
    assert profile.rates is not None
    assert set(profile.rates.products) == set(PRODUCTS) - {"bmm_tn"}
    assert set(profile.rates.streams) == set(STREAMS) - {"fused", "norm"}
    work = Work("norm", moved=2**24)
    assert predicted(profile, work) == pytest.approx(2**24 / (profile.bandwidth_gbs.value * 1e9))


@pytest.mark.parametrize(
    ("kind", "torch", "expected"),
    [
        ("cpu", "1.10.2", ("eager", False, 64, 4)),
        ("cpu", "2.13.0+cpu", ("math", False, 64, 4)),
        ("cuda", "1.10.2", ("eager", False, 512, 1)),
        ("cuda", "2.4.0a0+nv24.5", ("fused", True, 512, 1)),
    ],
)
def test_software_follows_device_and_version(kind: str, torch: str, expected: tuple[object, ...]) -> None:
    """Attention of ordinary modules, the optimizer's kernel, allocator blocks, bytes of a mask."""
    p = fitted(machine={"kind": kind, "torch": torch})
    found = (p.attention, p.foreach, p.allocator_block_bytes.value, p.dropout_mask_bytes.value)
    assert (p.kind, p.torch, found) == (kind, torch, expected)


def test_general_figures_are_medians_with_their_spread() -> None:
    """Products, batched products and bandwidth are those of the cases, recomputed from the raw times."""
    result, profile = MACHINE.result(), fitted()
    for figure, cases in (
        (profile.gemm_gflops, ("gemm_nt", "gemm_nn", "gemm_tn")),
        (profile.bmm_gflops, ("bmm_nt", "bmm_nn", "bmm_tn")),
    ):
        rates = [
            work_of(sample["case"], tuple(sample["dims"])).flops / (sample["seconds"] - OVERHEAD_S) / 1e9
            for sample in result["samples"]
            if sample["case"] in cases
        ]
        assert (figure.low, figure.value, figure.high) == pytest.approx(
            (min(rates), float(np.median(rates)), max(rates)), rel=1e-3
        )
    # 200 us a MiB, whatever the size
    assert profile.bandwidth_gbs.value == pytest.approx(2**20 / 200e-6 / 1e9, rel=1e-3)


def test_memory_is_what_was_measured() -> None:
    """Visible, of others and of a bare process, with room upwards; what was not measured is assumed and says so."""
    profile = fitted()
    assert (profile.visible_mib.value, profile.os_mib.value, profile.process_mib.value) == (8000, 1000, 400)
    assert (profile.os_mib.high, profile.process_mib.high) == (1506, 500)
    unknown = fitted(memory={"others_mib": None, "process_mib": None})
    assert (unknown.os_mib.basis, unknown.process_mib.basis) == ("assumed", "assumed")
    assert unknown.available_mib[0] > 0
    crowded = fitted(memory={"others_mib": 7200.0})
    assert crowded.available_mib[0] > 0


def test_the_profile_has_the_conditions() -> None:
    """Date, software, clocks before and after, and the load of other programs."""
    profile = fitted(
        busy_cores=1.5, conditions={"before": {"power_mode": "10W", "c": "1"}, "after": {"power_mode": "10W", "c": "2"}}
    )
    assert profile.rates is not None
    conditions = profile.rates.conditions
    assert (conditions["date"], conditions["torch"], conditions["c"]) == ("2025-03-02", "2.4.0", "1, then 2")
    assert profile.power_mode == "10W"
    assert "1.5 of 4 cores" in profile.note
    assert profile.power_w is None
    assert all(figure.source for figure in profile.figures().values())


def test_round_trip_and_a_price(tmp_path: Path) -> None:
    """A fitted profile is written and read back the same, and prices a job under each of its plans."""
    profile = fitted()
    write_profile(profile, tmp_path / "known.toml")
    read = read_profile(tmp_path / "known.toml")
    assert read == profile
    assert read.digest == profile.digest
    pricer = Pricer(make_config("bert"), Head(), 4, 16, read)
    for plan in exact_plans(read):
        cost = pricer.price(full_fine_tuning(2), plan)
        low, high = cost.wall_time_range_s
        assert 0 < low <= cost.wall_time_s <= high < 1
        assert cost.energy_j is None


def test_a_faster_machine_is_priced_faster() -> None:
    """Half the time of each operation that is large gives about half the time of a step that is of such."""
    halved = {
        form: ProductRate(*(value / 2 for value in vars(rate).values())) for form, rate in MACHINE.products.items()
    }
    fast = KnownMachine(products=halved, us_per_mib=MACHINE.us_per_mib / 2)
    config = make_config("bert", hidden=384, neurons=1536, heads=12)
    slow_s, fast_s = (
        Pricer(config, Head(), 16, 128, fitted(machine)).price(full_fine_tuning(2)).step_time_s
        for machine in (MACHINE, fast)
    )
    assert fast_s == pytest.approx(slow_s / 2, rel=0.1)


def test_a_profile_is_fitted_in_a_process_that_has_traced_nothing() -> None:
    """Operations are traced without gradients, which must not depend on what was traced before."""
    code = "from tests.calibration.test_calibration_fit import fitted; print(fitted().basis)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "calibrated", done.stderr
