"""The calibration measurement, run on small cases."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from farsearch.calibration import fit
from farsearch.calibration.fit import fit_profile
from farsearch.calibration.measure import cases, command, host, memory, rounds, session, timing
from farsearch.calibration.measure.cases import CASES
from farsearch.calibration.measure.command import measure
from farsearch.calibration.measure.host import demanded_cores
from farsearch.calibration.measure.workloads import WORKLOADS, workload
from farsearch.calibration.result import Calibration, parse_result
from farsearch.calibration.steps import allocated_peak

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small() -> Any:
    """Replace the cases and workloads by short ones, whose dimensions the script measures too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "_TOKENS", (32,))
        patch.setattr(cases, "_WIDTHS", ((384, 1536),))
        patch.setattr(cases, "_ATTENTION", ((12, 32, 32),))
        patch.setattr(cases, "_STREAMS", (1 << 13, 1 << 16, 1 << 19))
        for name, (rows, _, _, _, learners, layers) in WORKLOADS.items():
            patch.setitem(WORKLOADS, name, (rows, 4, 48, 96, min(learners, 16), layers))
        # traces of the original workloads, then of these, are cached
        fit._workload_operations.cache_clear()
        yield patch
    fit._workload_operations.cache_clear()


@pytest.fixture(scope="module")
def measured(small: Any) -> tuple[dict[str, Any], list[str], torch.Tensor]:
    """Return the result of a short measurement, its messages, and the gradient mode after it."""
    messages: list[str] = []
    return measure(4.0, messages.append), messages, torch.ones(1, requires_grad=True) * 2


def test_measurement_covers_every_supported_case(measured: tuple[dict[str, Any], list[str], torch.Tensor]) -> None:
    """Every case has at least one round, and the result is valid."""
    result = parse_result(json.loads(json.dumps(measured[0])), "this machine")
    assert isinstance(result, Calibration)
    assert {sample.case for sample in result.samples} == set(CASES)
    assert all(sample.rounds >= 1 and 0 < sample.seconds < 5 for sample in result.samples)
    assert {sample.dims for sample in result.samples if sample.case == "add"} <= {(1 << 13,), (1 << 16,), (1 << 19,)}
    # the time of a compiled step is another engine's
    assert all(0 < seconds < 5 for seconds in vars(result.launch).values() if seconds is not None)
    # a single operation takes less than hundreds of them
    assert result.launch.operation < result.launch.tiny_step
    assert result.sustained
    for course in result.sustained.values():
        assert course.steps >= 3
        assert min(course.first, course.last) <= 2 * course.seconds
    memory = result.memory
    # a process with torch takes more than 50 MiB and fits this machine; None if it did not end in time
    assert memory.process_mib is None or 50 < memory.process_mib < memory.visible_mib
    assert result.machine.torch == torch.__version__
    assert result.machine.threads == torch.get_num_threads()
    assert result.took_s > 0


def test_measurement_gives_a_plausible_profile(measured: tuple[dict[str, Any], list[str], torch.Tensor]) -> None:
    """Every kind has a rate."""
    profile = fit.fit_profile(parse_result(measured[0], "this machine"), "here")
    assert profile.rates is not None
    assert (len(profile.rates.products), len(profile.rates.streams)) == (6, 13)
    assert 0.1 < profile.gemm_gflops.value < 1e6
    assert 0.01 < profile.bandwidth_gbs.value < 1e5
    low, high = profile.available_mib
    assert 0 < low <= high <= profile.visible_mib.value
    assert profile.torch == torch.__version__


def test_progress_is_reported(measured: tuple[dict[str, Any], list[str], torch.Tensor]) -> None:
    """Messages cover memory, overheads and each round; gradients are enabled afterwards."""
    _, messages, doubled = measured
    messages = [line for line in messages if not line.startswith("other programs")]  # on a busy machine
    assert messages[:3] == ["memory of a bare process", "overheads", "products, round 1 of at most 9"]
    assert any(text.startswith("streams, round ") for text in messages)
    assert doubled.requires_grad


def timed(group: str, elements: int, seconds: float = 5.0) -> dict[str, list[tuple[int, ...]]]:
    """Return the timed dimensions by case, for operands of ``elements`` numbers."""
    with torch.no_grad():
        samples = timing.timed_cases(group, CPU, timing.Pool(CPU, elements), seconds, lambda _: None)
    found: dict[str, list[tuple[int, ...]]] = {}
    for sample in samples:
        found.setdefault(sample["case"], []).append(tuple(sample["dims"]))
    return found


def test_cases_with_too_large_operands_are_left_out(small: Any) -> None:
    room = 4 * (1 << 13) + 4 * 512
    found = timed("streams", room)
    assert found["clone"] == found["fused_adamw"] == [(1 << 13,)]
    # two operands of 65,536 numbers exceed the limit
    assert found["add"] == [(1 << 13,)]
    products = timed("products", 12 * 32 * 32 * 2)
    assert products["bmm_nt"] == [(12, 32, 32)]
    assert ("gemm_nt" in products) == any(
        32 * k + k * n + n <= 12 * 32 * 32 * 2 for k, n in [(384, 1536), (384, 24), (384, 144), (384, 384)]
    )


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError, MemoryError])
def test_cases_unsupported_by_this_torch_are_left_out(
    small: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Other cases are still timed, whether the failure is at construction or at the call."""

    def fails(*_: object) -> Any:
        raise error("not in this version")

    monkeypatch.setitem(CASES, "gelu", fails)
    monkeypatch.setitem(CASES, "fused_adamw", lambda take, n: fails)
    found = timed("streams", 1 << 22)
    assert set(found) == {name for name in CASES if name[:4] not in ("gemm", "bmm_")} - {"gelu", "fused_adamw"}


def test_exhausted_time_still_gives_a_result(small: Any) -> None:
    """The reader decides whether the result is sufficient."""
    found = timed("products", 1 << 22, seconds=0.0)
    assert sum(len(dims) for dims in found.values()) == 1


def test_case_of_more_than_a_tenth_of_the_time_is_left_out(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a case is for a faster machine."""

    def slow(take: Any, n: int) -> Callable[[], None]:
        return lambda: time.sleep(0.3)

    monkeypatch.setitem(CASES, "gelu", slow)
    assert "gelu" not in timed("streams", 1 << 22, seconds=1.0)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload_step_trains_only_its_learners(small: Any, name: str) -> None:
    """The last bias changes (other sums over a LayerNorm hardly do), frozen neurons stay, gradients are freed."""
    torch.manual_seed(0)
    step = workload(name, CPU)
    (stack,) = (cell.cell_contents for cell in step.__closure__ or () if _is_stack(cell.cell_contents))
    before = {key: value.clone() for key, value in stack.state_dict().items()}
    step()
    moved = {key for key, value in stack.state_dict().items() if not torch.equal(value, before[key])}
    assert f"{WORKLOADS[name][-1] - 1}.last_norm.bias" in moved
    assert not any("frozen" in key for key in moved)
    assert all(parameter.grad is None for parameter in stack.parameters())


def _is_stack(value: object) -> bool:
    return isinstance(value, torch.nn.Module)


def test_operands_are_views_of_one_tensor() -> None:
    """All cases are timed with the same memory."""
    pool = timing.Pool(CPU, 1 << 20)
    assert allocated_peak(lambda: (pool((512, 512), (512, 512)), torch.empty(1))) < 100


def test_median_agrees_with_the_standard_library() -> None:
    """The script does not import ``statistics``."""
    assert rounds.median([3.0, 1.0, 2.0]) == 2.0
    assert rounds.median([4.0, 1.0, 2.0, 3.0]) == 2.5


def test_name_of_a_board_is_one_line() -> None:
    """Zero bytes, tabs, line ends and escapes become single spaces."""
    assert host.plain("NVIDIA\tJetson\x00\n  Nano\x1b") == "NVIDIA Jetson Nano"


def test_memory_is_limited_by_the_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit, or with a larger one, it is the physical memory."""
    physical, reason = memory._visible()[0], "limit of the control group in memory.max"
    monkeypatch.setattr(memory, "read_text", lambda path: str(512 * 2**20) if path.endswith("memory.max") else None)
    assert memory._visible() == (512.0, reason)
    for text in ("max", str(2**62)):
        monkeypatch.setattr(memory, "read_text", lambda path, text=text: text)
        total, reason = memory._visible()
        assert reason == "physical pages"
        assert total >= physical
        assert math.isfinite(total)


def test_script_imports_nothing_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file torch.py there is not executed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("print('of the folder')")
    assert memory.run_python("import json; print(json.dumps(1))", 60.0) == ["1"]


@pytest.mark.parametrize("held", ["text,label\n", "{}", "[1]"])
def test_script_refuses_to_replace_a_foreign_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    """It fails before the measurement."""
    (tmp_path / "data.csv").write_text(held)
    monkeypatch.setattr("sys.argv", ["calibrate.py", "--out", str(tmp_path / "data.csv")])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert (tmp_path / "data.csv").read_text() == held


def test_script_replaces_its_own_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"schema_version": 1, "machine": {}, "samples": []}))
    assert session._may_write(str(tmp_path / "result.json"))


@pytest.mark.parametrize(("used", "cores", "asked"), [(0.0, 4, 0.0), (1.0, 2, 2.0), (2.0, 4, 4.0), (0.4, 4, 0.444)])
def test_load_of_other_programs_is_their_demand(used: float, cores: int, asked: float) -> None:
    """Two programs that need two cores each get one each: a use of one core is a demand of two."""
    assert demanded_cores(used, cores) == pytest.approx(asked, abs=1e-3)


@pytest.mark.slow
def test_busy_machine_has_a_wider_range() -> None:
    """As many busy processes as cores are reported in a line, and the low end is the time of an idle machine."""
    cores = os.cpu_count() or 1
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    messages: list[str] = []
    try:
        result = parse_result(measure(15.0, messages.append), "a busy machine")
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert result.busy_cores is not None
    assert result.busy_cores > 0.5 * result.machine.cores
    assert any("waiting" in line for line in messages)
    assert any("wider range" in line for line in messages)
    factor = fit_profile(result, "busy").time_factor
    assert factor.low <= 0.8 * factor.value * result.machine.cores / (result.machine.cores + result.busy_cores) + 1e-3
