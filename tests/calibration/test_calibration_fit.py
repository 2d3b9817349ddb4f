"""Fit of a profile: the rates of a machine with known rates are recovered."""

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
    """Return the profile of a known machine."""
    return fit_profile(parse_result(known.result(**changes), "a test"), "known")


@cache
def with_power(power: float = 1.0) -> Profile:
    """Return the cached profile of a machine whose stream times follow this power of the bytes."""
    return fitted(KnownMachine(power=power))


def predicted(profile: Profile, work: Work) -> float:
    """Predict the seconds of an operation by a profile, without overhead and factor."""
    left = work.left + work.moved
    kinds = np.array([OPERATION_KINDS.index(work.kind)])
    features = np.array([[work.flops, left, work.right, work.out, work.matrices]], dtype=float)
    return float(operation_seconds(kinds, features, profile)[0]) - profile.launch_us.value * 1e-6


@pytest.mark.parametrize("form", ["gemm_nt", "gemm_nn", "gemm_tn"])
def test_product_rates_are_recovered(form: str) -> None:
    """Each coefficient of the machine's linear law agrees to the four digits of the file."""
    profile = with_power()
    assert profile.rates is not None
    for name, value in vars(MACHINE.products[form]).items():
        assert getattr(profile.rates.products[form], name) == pytest.approx(value, rel=2e-3), name


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("size", [(32, 384, 24), (512, 768, 2000), (4096, 768, 3072)])
def test_unmeasured_products_are_predicted(form: str, size: tuple[int, int, int]) -> None:
    """Sizes lie between and beyond the measured ones, also if the terms of the law are indistinguishable."""
    dims = size if form.startswith("gemm") else (24, 4 * size[0] // 32, 48)
    work = work_of(form, dims)
    assert predicted(with_power(), work) == pytest.approx(MACHINE.seconds(work), rel=5e-3)


def test_noisy_times_give_no_negative_rate() -> None:
    """Times that follow no law still give valid rates."""
    result = MACHINE.result()
    draw = np.random.default_rng(0)
    for sample in result["samples"]:
        sample["seconds"] = float(10 ** draw.uniform(-6, -1))
    rates = fit_profile(parse_result(result, "a test"), "noise").rates
    assert rates is not None
    assert all(value >= 0 for rate in rates.products.values() for value in vars(rate).values())


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("power", [1.0, 0.7, 1.2])
def test_stream_times_are_recovered(kind: str, power: float) -> None:
    """Between the smallest and the largest number of bytes the time is that of the machine's power law."""
    machine, profile = KnownMachine(power=power), with_power(power)
    assert profile.rates is not None
    sizes = profile.rates.streams[kind].mib
    assert sizes[0] < 1
    assert sizes[-1] > 30
    for mib in np.geomspace(sizes[0], sizes[-1], 7):
        work = Work(kind, moved=int(mib * 2**20))
        assert predicted(profile, work) == pytest.approx(machine.seconds(work), rel=5e-3)


def test_overheads_are_recovered() -> None:
    """Overheads inside autograd, outside it, of an optimizer's call and of a token."""
    profile = fitted()
    assert profile.rates is not None
    assert profile.launch_us.value == pytest.approx(LAUNCH_S * 1e6, rel=1e-3)
    assert profile.rates.bare_us == pytest.approx(OVERHEAD_S * 1e6, rel=1e-3)
    # two of its operations are priced besides the call
    assert profile.step_us.value == pytest.approx(90 - 2 * 2, rel=1e-3)
    assert profile.token_us.value == pytest.approx(256 / 512, rel=1e-3)


def test_overhead_is_at_most_half_of_a_short_operation() -> None:
    """This applies if a short operation took less than the separately measured overhead."""
    machine = dataclasses.replace(MACHINE, us_per_mib=1e-3)
    profile = fitted(machine)
    assert profile.rates is not None
    assert all(us > 0 for rate in profile.rates.streams.values() for us in rate.us)


RATIOS = {"narrow": 1.02, "wide": 0.8, "long": 1.3, "learners": 1.1}


def test_factor_is_the_ratio_of_whole_steps_to_their_operations() -> None:
    """The value is the median of the workloads' ratios, and its range has all of them."""
    machine = KnownMachine(ratios=RATIOS)
    result = parse_result(machine.result(), "a test")
    profile = fit_profile(result, "known")
    assert workload_ratios(profile, result) == pytest.approx(RATIOS, rel=5e-3)
    factor = profile.time_factor
    assert factor.value == pytest.approx((1.02 + 1.1) / 2, rel=5e-3)
    assert (factor.low, factor.high) == pytest.approx((0.8, 1.3), rel=5e-3)
    assert "wide 0.80" in factor.source


def test_range_is_at_least_20_percent() -> None:
    """Machines vary from day to day even if all workloads agree."""
    factor = fitted(KnownMachine(ratios=dict.fromkeys(WORKLOADS, 1.5))).time_factor
    assert (factor.low / factor.value, factor.high / factor.value) == pytest.approx((0.8, 1.2), rel=5e-3)


def test_one_workload_is_enough() -> None:
    """A slow board has time for a single one."""
    sustained = {"narrow": MACHINE.result()["sustained"]["narrow"]}
    assert fitted(sustained=sustained).time_factor.value == pytest.approx(1.0, rel=5e-3)


def test_busy_cores_widen_the_range() -> None:
    """The low end falls, because an idle machine is faster; a load of a fifth of the cores is normal."""
    calm, idle, busy = (fitted(busy_cores=cores).time_factor for cores in (None, 0.7, 2.0))
    assert idle == calm
    assert busy.low == pytest.approx(calm.low * 4 / 6, rel=2e-3)
    assert (busy.value, busy.high) == (calm.value, calm.high)


def test_kinds_missing_in_an_older_torch_are_left_out() -> None:
    """Their operations are predicted from the general figures."""
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
    """Attention of ordinary modules, optimizer kernel, allocator blocks, and bytes of a mask."""
    p = fitted(machine={"kind": kind, "torch": torch})
    found = (p.attention, p.foreach, p.allocator_block_bytes.value, p.dropout_mask_bytes.value)
    assert (p.kind, p.torch, found) == (kind, torch, expected)


def test_general_figures_are_medians_with_their_spread() -> None:
    """Recompute products, batched products and bandwidth from the raw times of the cases."""
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
    # 200 us per MiB at any size
    assert profile.bandwidth_gbs.value == pytest.approx(2**20 / 200e-6 / 1e9, rel=1e-3)


def test_memory_is_measured_or_marked_as_assumed() -> None:
    """Visible memory, memory of other programs and of a bare process, with a margin upwards."""
    profile = fitted()
    assert (profile.visible_mib.value, profile.os_mib.value, profile.process_mib.value) == (8000, 1000, 400)
    assert (profile.os_mib.high, profile.process_mib.high) == (1506, 500)
    unknown = fitted(memory={"others_mib": None, "process_mib": None})
    assert (unknown.os_mib.basis, unknown.process_mib.basis) == ("assumed", "assumed")
    assert unknown.available_mib[0] > 0
    crowded = fitted(memory={"others_mib": 7200.0})
    assert crowded.available_mib[0] > 0


def test_profile_records_the_conditions() -> None:
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


def test_fitted_profile_round_trips_and_prices_every_plan(tmp_path: Path) -> None:
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


def test_faster_machine_has_lower_costs() -> None:
    """Half the time of each large operation gives about half the time of a step that consists of such operations."""
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


def test_fit_does_not_depend_on_earlier_traces() -> None:
    """Fit in a new process: operations are traced without gradients."""
    code = "from tests.calibration.test_calibration_fit import fitted; print(fitted().basis)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "calibrated", done.stderr
