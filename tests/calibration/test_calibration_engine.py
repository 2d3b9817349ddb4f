"""Calibration of the engine without torch: its graphs, a small measurement, the fit, and the file for a board."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from farsearch.calibration import engine_steps, payload, result
from farsearch.calibration.engine_steps import STEPS, TINY, EngineStep
from farsearch.calibration.fit import fit_engine
from farsearch.calibration.measure import cases
from farsearch.calibration.measure.cases import BY_NUMPY, CASES, make_call
from farsearch.calibration.measure.onnx_command import measure_engine
from farsearch.calibration.payload import case_graph, case_inputs, engine_payload
from farsearch.calibration.result import Calibration, parse_result
from farsearch.calibration.script import board_script
from farsearch.devices.profile import Profile, read_profile, write_profile
from farsearch.devices.registry import load_profile
from farsearch.errors import BadInput
from farsearch.records import FarConfig
from tests.calibration.known import OVERHEAD_S, KnownMachine

MACHINE = KnownMachine()
BOARD = load_profile("raspberry-pi-4")
OWN = {"add_in_place", "fill_masked", "layer_norm_backward"}
"""Cases whose graphs compute in another way than torch's calls."""

SMALL = EngineStep(2, 8, 24, 48, FarConfig((0.5,), 1e-5, 1.0), heads=2)


def fitted(**changes: Any) -> Profile:
    """Return the board's profile with the figures of a known machine's engine."""
    return fit_engine(parse_result(MACHINE.compiled_result(**changes), "a test"), BOARD)


def dims_of(case: str) -> tuple[int, ...]:
    """Return the smallest dimensions of a case."""
    every = [*cases.cases("products"), *cases.cases("streams")]
    return min((dims for name, dims in every if name == case), key=sum)


@pytest.mark.parametrize("case", sorted(set(CASES) - BY_NUMPY - OWN - {"clone"}))
def test_graph_computes_what_torch_does(case: str) -> None:
    """At sizes that are not those for which it was made."""
    dims = dims_of(case)
    operands = [torch.rand(shape) for shape, _ in case_inputs(case, dims)]
    session = onnxruntime.InferenceSession(case_graph(case), providers=["CPUExecutionProvider"])
    found = session.run(None, {f"operand_{i}": each.numpy() for i, each in enumerate(operands)})
    with torch.no_grad():
        expected: Any = make_call(case, dims, lambda *_: [each.clone() for each in operands])()
    by_shape = {tuple(each.shape): each.numpy() for each in _flat(expected)}
    for values in found:
        np.testing.assert_allclose(values, by_shape[values.shape], rtol=1e-4, atol=1e-4)


def _flat(values: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [values] if isinstance(values, Tensor) else list(values)


def test_graphs_have_no_operation_in_place() -> None:
    """They return the sum, and the elements that are not masked."""
    x, y = np.arange(4, dtype=np.float32), np.full(4, 0.5, np.float32)
    for case, other, expected in (("add_in_place", y, x + y), ("fill_masked", x > 1, [0, 1, 0, 0])):
        session = onnxruntime.InferenceSession(case_graph(case), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"operand_0": x, "operand_1": other})[0], expected)


def test_layer_norm_gradient_is_that_of_autograd() -> None:
    """From the normalised input and 1 / deviation, which a compiled step saves."""
    x = torch.randn(16, 512, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(512, dtype=torch.float64, requires_grad=True) for _ in range(2))
    gradient = torch.randn(16, 512, dtype=torch.float64)
    expected = torch.autograd.grad(torch.layer_norm(x, (512,), weight, bias), (x, weight, bias), gradient)
    inverse = 1 / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    normal = (x - x.mean(-1, keepdim=True)) * inverse
    operands = [each.detach().float().numpy() for each in (gradient, normal, weight, inverse)]
    session = onnxruntime.InferenceSession(case_graph("layer_norm_backward"), providers=["CPUExecutionProvider"])
    found = session.run(None, {f"operand_{i}": each for i, each in enumerate(operands)})
    for values, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, exact.numpy(), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def small() -> str:
    """Return a payload of short cases, and steps of a single narrow layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "_TOKENS", (32,))
        patch.setattr(cases, "_WIDTHS", ((384, 1536),))
        patch.setattr(cases, "_ATTENTION", ((12, 32, 32),))
        patch.setattr(cases, "_STREAMS", (1 << 13, 1 << 16))
        patch.setattr(payload, "TINY", SMALL)
        patch.setattr(payload, "STEPS", {"narrow": SMALL})
        return engine_payload.__wrapped__()


@pytest.fixture(scope="module")
def measured(small: str) -> dict[str, Any]:
    """Return the result of a short measurement, as its file has it."""
    found: dict[str, Any] = json.loads(json.dumps(measure_engine(small, 3.0)))
    return found


def test_measurement_covers_every_case(measured: dict[str, Any]) -> None:
    """By graphs or by numpy, but plain copies, of which a compiled step has none; it names the libraries."""
    found = parse_result(measured, "a test")
    assert {sample.case for sample in found.samples} == set(CASES) - {"clone"}
    assert (found.engine, found.machine.torch, found.machine.onnxruntime) == ("onnx", "", onnxruntime.__version__)
    assert found.machine.numpy == np.__version__
    assert set(found.sustained) == {"narrow"}
    assert found.launch.graph is not None
    assert found.launch.operation < found.launch.graph < found.launch.tiny_step
    # Python, numpy and onnxruntime, without torch
    assert found.memory.process_mib is None or 20 < found.memory.process_mib < 150


def test_fitted_profile_has_figures_of_both_engines(tmp_path: Path) -> None:
    """Those of torch and of the board are unchanged, and the file has all."""
    profile = fitted()
    write_profile(profile, tmp_path / "raspberry-pi-4.toml")
    assert read_profile(tmp_path / "raspberry-pi-4.toml") == profile
    assert profile.for_engine("torch") == BOARD.for_engine("torch")
    assert profile.onnx is not None
    assert {figure.basis for figure in profile.onnx.figures().values()} == {"measured"}
    assert profile.onnx.process_mib.value == 60 + 10  # for the runner
    rates = profile.for_engine("onnx").rates
    assert rates is not None
    assert (rates.conditions["onnxruntime"], "torch" in rates.conditions) == ("1.22.0", False)


@pytest.mark.parametrize("form", ["gemm_nt", "gemm_nn", "gemm_tn"])
def test_overhead_of_a_run_is_no_part_of_a_rate(form: str) -> None:
    """Each coefficient of the machine's law agrees to the digits of the file."""
    profile = fitted()
    assert profile.onnx is not None
    assert profile.onnx.rates is not None
    assert profile.onnx.rates.bare_us == pytest.approx(OVERHEAD_S * 1e6, rel=1e-3)
    for name, value in vars(MACHINE.products[form]).items():
        assert getattr(profile.onnx.rates.products[form], name) == pytest.approx(value, rel=2e-3), name


def test_factor_and_overhead_follow_whole_steps() -> None:
    """The prediction of the tiny step is the measured one; steps of twice the time have twice the factor."""
    once = fitted()
    twice = fitted(sustained={name: {"seconds": 1.0, "first": 1.0, "last": 1.0, "steps": 3} for name in STEPS})
    assert once.onnx is not None
    assert twice.onnx is not None
    assert twice.onnx.time_factor.value == pytest.approx(2 * once.onnx.time_factor.value, rel=1e-3)
    figures = dataclasses.replace(once.onnx, time_factor=dataclasses.replace(BOARD.time_factor, low=1.0, high=1.0))
    engine = dataclasses.replace(once, onnx=figures).for_engine("onnx")
    assert engine_steps.predicted_step_s(TINY, engine) == pytest.approx(0.01, rel=1e-2)


def test_profile_of_a_gpu_gets_no_figures() -> None:
    found = parse_result(MACHINE.compiled_result(), "a test")
    with pytest.raises(BadInput, match="is of a GPU"):
        fit_engine(found, load_profile("jetson-nano"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine": {"onnxruntime": "new"}}, "machine.onnxruntime is 'new'; it must be a version"),
        ({"machine": {"torch": "2.4.0"}}, "torch and onnxruntime"),
        ({"launch": {"graph": None}}, "launch.graph"),
        ({"launch": {"graph": -1.0}}, "launch.graph is -1.0"),
        ({"sustained": {"more": {"seconds": 1.0, "first": 1.0, "last": 1.0, "steps": 3}}}, "the workload 'more'"),
    ],
)
def test_wrong_result_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_result(MACHINE.compiled_result(**changes), "a test")


def test_results_of_torch_have_no_overhead_of_graphs() -> None:
    with pytest.raises(BadInput, match=r"launch\.graph"):
        parse_result(MACHINE.result(launch={"graph": 1e-5}), "a test")


@pytest.fixture
def script(small: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the file for a board, with the small payload."""
    monkeypatch.setattr(payload, "engine_payload", lambda: small)
    return board_script("onnx")


def test_script_needs_numpy_and_onnxruntime_alone(script: str) -> None:
    """Its syntax is that of Python 3.6."""
    tree = ast.parse(script, feature_version=(3, 6))
    imported = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_script_measures_without_farsearch(script: str, tmp_path: Path) -> None:
    """Its result is that of the engine."""
    (tmp_path / "calibrate.py").write_text(script)
    words = [sys.executable, "-I", "calibrate.py", "--out", "r.json", "--seconds", "2", "--threads", "1"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = result.read_result(tmp_path / "r.json")
    assert isinstance(found, Calibration)
    assert (found.engine, found.machine.threads) == ("onnx", 1)
