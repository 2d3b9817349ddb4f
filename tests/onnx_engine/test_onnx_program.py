"""A program's graphs in onnxruntime: loss, gradients and logits equal torch's, and values are freed early."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from farsearch.runtime.memory import host_peak_mib
from farsearch.runtime.onnx_engine.program import Runner
from farsearch.runtime.onnx_engine.weights import load_weights
from farsearch.runtime.program_file import Program
from tests.onnx_engine.hand_made import make_weights, torch_logits, torch_step, write_engine

VOCABULARY = 50
ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(tmp_path: Path) -> tuple[Program, list[str], dict[str, np.ndarray]]:
    """Program, paths of its graphs, and its weights."""
    program = write_engine(tmp_path, VOCABULARY)
    trained, frozen = load_weights(str(tmp_path / "weights.safetensors"), program)
    return program, [str(tmp_path / name) for name in program.graphs], {**frozen, **trained}


def make_batch(rows: int, length: int, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    """A batch as the program and as torch take it; the first row is half padding."""
    draw = np.random.default_rng(seed)
    tokens = np.ones((rows, length), np.int64)
    tokens[0, length // 2 + 1 :] = 0
    ids, labels = draw.integers(0, VOCABULARY, (rows, length)), draw.integers(0, 2, rows)
    additive = np.where(tokens, np.float32(0), np.finfo(np.float32).min)[:, None, None, :].astype(np.float32)
    mine = {"input_ids": ids, "attention_mask": additive, "labels": labels}
    theirs = {"input_ids": ids, "attention_mask": tokens, "labels": labels}
    return mine, {name: torch.from_numpy(value) for name, value in theirs.items()}


def a_mask(_number: int, shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(7).random(shape) < 0.25


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize(("rows", "length"), [(4, 9), (1, 1), (7, 30)])
def test_loss_and_gradients_equal_torch(engine: Any, rows: int, length: int, redraw: bool) -> None:
    program, paths, weights = engine
    batch, theirs = make_batch(rows, length)
    found: dict[str, np.ndarray] = {}
    runner = Runner(program, paths, weights, 1, redraw)
    loss = runner.step(batch, a_mask, lambda name, gradient: found.update({name: gradient.copy()}))
    tensors = {name: torch.from_numpy(value) for name, value in make_weights(VOCABULARY).items()}
    expected, gradients = torch_step(tensors, theirs, torch.from_numpy(a_mask(0, (rows, 8))))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], gradient.numpy(), atol=1e-5)


def test_logits_equal_torch(engine: Any) -> None:
    program, paths, weights = engine
    batch, theirs = make_batch(5, 12)
    logits = Runner(program, paths, weights).predict({name: batch[name] for name in ("input_ids", "attention_mask")})
    tensors = {name: torch.from_numpy(value) for name, value in make_weights(VOCABULARY).items()}
    np.testing.assert_allclose(logits, torch_logits(tensors, theirs).numpy(), atol=1e-5)


def test_weights_changed_in_place_are_seen(engine: Any) -> None:
    program, paths, weights = engine
    runner = Runner(program, paths, weights)
    batch, _ = make_batch(3, 5)
    before = runner.predict(batch)
    weights["classifier.bias"] += 1.0
    np.testing.assert_allclose(runner.predict(batch), before + 1.0, atol=1e-5)


def test_a_gradient_comes_when_no_graph_takes_its_tensor_any_more(engine: Any) -> None:
    """A tensor that is changed as soon as its gradient comes changes no other gradient."""
    program, paths, weights = engine
    batch, _ = make_batch(4, 9)
    plain: dict[str, np.ndarray] = {}
    stepped: dict[str, np.ndarray] = {}

    def spoil(name: str, gradient: np.ndarray) -> None:
        stepped[name] = gradient.copy()
        weights[name][...] = np.nan

    runner = Runner(program, paths, weights)
    runner.step(batch, a_mask, lambda name, gradient: plain.update({name: gradient.copy()}))
    runner.step(batch, a_mask, spoil)
    for name, gradient in plain.items():
        np.testing.assert_array_equal(stepped[name], gradient)


def test_steps_do_not_take_more_and_more_memory(engine: Any) -> None:
    program, paths, weights = engine
    runner = Runner(program, paths, weights, 1)
    batch, _ = make_batch(64, 64)
    for _ in range(5):
        runner.step(batch, a_mask, lambda *_: None)
    before = host_peak_mib()
    for _ in range(100):
        runner.step(batch, a_mask, lambda *_: None)
    assert host_peak_mib() - before < 4.0


def test_a_broken_graph_is_refused_in_one_line(engine: Any) -> None:
    program, paths, weights = engine
    Path(paths[2]).write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"graph-02\.onnx fails: ") as caught:
        Runner(program, paths, weights)
    assert "\n" not in str(caught.value)


def test_another_graph_than_the_program_calls_is_refused_when_it_is_loaded(engine: Any) -> None:
    program, paths, weights = engine
    shutil.copyfile(paths[0], paths[3])
    with pytest.raises(ValueError, match=r"graph-03\.onnx is another graph than the program calls: '"):
        Runner(program, paths, weights)


def test_a_graph_with_a_tensor_in_another_file_is_refused(engine: Any) -> None:
    program, paths, weights = engine
    model = onnx.load(paths[0])
    constant = model.graph.initializer[0]
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="other.bin")
    Path(paths[0]).write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"graph-00\.onnx has another file"):
        Runner(program, paths, weights)


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
def test_a_graph_with_a_loop_is_refused(engine: Any, operator: str) -> None:
    """It may never end."""
    program, paths, weights = engine
    model = onnx.load(paths[0])
    model.graph.node[0].op_type = operator
    Path(paths[0]).write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"graph-00\.onnx has a loop"):
        Runner(program, paths, weights)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits and reports address space")
def test_memory_that_runs_out_in_a_graph_is_a_memory_error(tmp_path: Path) -> None:
    """In a process that may take 100 MiB more, for a batch that takes 128."""
    write_engine(tmp_path, VOCABULARY)
    code = f"""
import resource
from pathlib import Path
import numpy as np
from farsearch.runtime.onnx_engine.program import Runner
from farsearch.runtime.onnx_engine.weights import load_weights
from tests.onnx_engine.hand_made import program_values, read_program
folder = Path({str(tmp_path)!r})
program = read_program(program_values({VOCABULARY}))
trained, frozen = load_weights(str(folder / "weights.safetensors"), program)
runner = Runner(program, [str(folder / name) for name in program.graphs], {{**frozen, **trained}}, 1)
batch = {{"input_ids": np.zeros((4000, 1000), np.int64), "attention_mask": np.zeros((4000, 1, 1, 1000), np.float32),
          "labels": np.zeros(4000, np.int64)}}
taken = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (taken * 1024 + 100 * 2**20,) * 2)
try:
    runner.step(batch, lambda _, shape: np.zeros(shape, bool), lambda *_: None)
except MemoryError:
    print("memory ran out")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "memory ran out\n", done.stderr


def test_a_failing_graph_is_one_line(engine: Any) -> None:
    """Labels outside of the classes, or a gradient of another shape."""
    program, paths, weights = engine
    batch, _ = make_batch(3, 5)
    batch["attention_mask"] = batch["attention_mask"][:2]
    with pytest.raises(ValueError, match=r"graph-00\.onnx fails: ") as caught:
        Runner(program, paths, weights).step(batch, a_mask, lambda *_: None)
    assert "\n" not in str(caught.value)
