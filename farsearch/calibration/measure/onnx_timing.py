"""Times of the operations and steps of the engine without torch: graphs by onnxruntime, all else by numpy."""

import base64
import json
import os
import zlib
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...runtime.onnx_engine.dropout import draw_mask
from ...runtime.onnx_engine.optimizer import ArrayOptimizer
from ...runtime.onnx_engine.program import Runner, as_value, load_session, table_gradient, vendor_errors
from ...runtime.program_file import Stored, read_program
from .rounds import OPERANDS, Slices, in_turn, is_product, repeated, sustained, timed_rounds

__all__ = ["GraphCases", "compiled_step", "engine_overheads", "engine_sustained", "unpacked"]

_DROPPED = 0.1
_RATE = 1e-9
_COLUMNS, _TOKENS = 512, 256
"""Of the embeddings whose gradient is timed, as with torch: width, and tokens of a batch."""


def unpacked(payload: str) -> Dict[str, Any]:
    """Return the cases, graphs and programs of the text that ``farsearch.calibration.payload`` makes."""
    values: Dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(payload)).decode("utf-8"))
    return values


def _write_graphs(graphs: Mapping[str, str], folder: str) -> Dict[str, str]:
    """Write graphs in base 64 as files; return their paths by name."""
    paths = {}
    for name, text in graphs.items():
        paths[name] = os.path.join(folder, name + ".onnx")
        with open(paths[name], "wb") as file:
            file.write(base64.b64decode(text))
    return paths


class GraphCases:
    """The cases of a calibration, as the engine computes them.

    Args:
        values: of ``unpacked``.
        folder: for the files of the graphs.
        elements: most numbers that the operands of a case may have.
        threads: of a graph; None for onnxruntime's choice.
    """

    def __init__(self, values: Mapping[str, Any], folder: str, elements: int, threads: Optional[int]) -> None:
        numbers = np.arange(elements, dtype=np.float32)
        np.remainder(numbers, np.float32(997.0), out=numbers)
        numbers /= np.float32(997.0)
        self._numbers, self._slices = numbers, Slices(elements)
        self._inputs: Dict[Tuple[str, Tuple[int, ...]], List[Any]] = {}
        self._groups: Dict[str, List[Tuple[str, Tuple[int, ...]]]] = {}
        for group in ("products", "streams"):
            for case, dims, inputs in values[group]:
                self._inputs[(case, tuple(dims))] = inputs
                self._groups.setdefault(group, []).append((case, tuple(dims)))
        paths = _write_graphs(values["graphs"], folder)
        self._sessions = {name: load_session(path, name, threads) for name, path in paths.items()}

    def timed(self, group: str, seconds: float, report: Callable[[str], None]) -> List[Dict[str, Any]]:
        """Return the median seconds of each case of a group that fits, and for which the time suffices."""
        return timed_rounds(group, self._groups[group], self._calls, seconds, report)

    def run_of(self, case: str, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        """Return the run of a case's graph on arrays."""
        session = self._sessions[case]
        feeds = {"operand_{}".format(i): as_value(array) for i, array in enumerate(arrays)}
        outputs = [output.name for output in session.get_outputs()]

        def run(arrays: Sequence[np.ndarray] = arrays) -> Any:  # they are the memory of the values
            with vendor_errors(case):
                return session.run_with_ort_values(outputs, feeds)

        return run

    def _calls(self, case: Tuple[str, Tuple[int, ...]]) -> Callable[[], Any]:
        """The call of a case; the operands of products change from call to call, as with torch."""
        name, dims = case
        inputs = self._inputs[case]
        if name not in self._sessions:
            return _array_call(name, dims[0], self._arrays(inputs))
        count = OPERANDS if is_product(name) else 1
        return in_turn([self.run_of(name, self._arrays(inputs)) for _ in range(count)])

    def _arrays(self, inputs: Sequence[Tuple[Sequence[int], str]]) -> List[np.ndarray]:
        places = self._slices.take([shape for shape, _ in inputs])
        arrays = []
        for (start, end), (shape, kind) in zip(places, inputs):
            values = self._numbers[start:end].reshape(shape)
            arrays.append(np.zeros(shape, bool) if kind == "bool" else values)
        return arrays


def _array_call(case: str, n: int, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
    """What the engine computes by numpy, on ``n`` elements."""
    if case in ("random_bits", "bernoulli"):
        return lambda: draw_mask((0, 0, 0, 0), (n,), _DROPPED)
    if case == "zeros":
        return lambda: np.zeros(n, np.float32)
    if case == "embedding_gradient":
        table = Stored("table", (n // _COLUMNS, _COLUMNS))
        ids = np.arange(_TOKENS, dtype=np.int64) % table.shape[0]
        return lambda: table_gradient(table, arrays[0], ids)
    if case == "fused_adamw":
        optimizer = ArrayOptimizer("adamw", {"w": arrays[0]})
        return lambda: optimizer.step("w", arrays[1], 0, _RATE)
    raise ValueError("there is no call of {}".format(case))


def compiled_step(entry: Mapping[str, Any], folder: str, threads: Optional[int]) -> Callable[[], Any]:
    """Return a training step of a compiled program with random weights and tokens: AdamW and dropout included.

    Args:
        entry: of the payload's steps.
        folder: for the files of its graphs.
    """
    program = read_program(entry["program"])
    names = [name.rsplit(".", 1)[0] for name in program.graphs]
    paths = _write_graphs(dict(zip(names, entry["graphs"])), folder)
    draw = np.random.RandomState(0)
    weights = {}
    for tensor in program.trained + program.frozen:
        weights[tensor.name] = (
            draw.standard_normal(tensor.shape).astype(np.float32) * np.float32(0.02)
            if tensor.dtype == "float32"
            else np.zeros(tensor.shape, tensor.dtype)
        )
    runner = Runner(program, [paths[name] for name in names], weights, threads, redraw=True)
    trained = {tensor.name: weights[tensor.name] for tensor in program.trained}
    optimizer = ArrayOptimizer("adamw", trained)
    rows, length = entry["rows"], entry["length"]
    forms = {
        "ids": draw.randint(1, entry["vocabulary"], (rows, length)).astype(np.int64),
        "additive": np.zeros((rows, 1, 1, length), np.float32),
        "targets": np.zeros((rows, length) if entry["token_targets"] else rows, np.int64),
    }
    batch = {each.name: forms[each.form] for each in program.batch}
    if "token_type_ids" in batch:
        batch["token_type_ids"] = np.zeros((rows, length), np.int64)

    def mask(number: int, shape: Tuple[int, ...]) -> np.ndarray:
        return draw_mask((0, 0, 0, number), shape, program.dropouts[number].p)

    def step_tensor(name: str, gradient: np.ndarray) -> None:
        optimizer.step(name, gradient, 0, _RATE)

    return lambda: runner.step(batch, mask, step_tensor)


def engine_overheads(cases: GraphCases, tiny_step: Callable[[], Any], seconds: float) -> Dict[str, float]:
    """Return overheads in seconds: of numpy's operation, a graph's run, a tiny step, an optimizer's call, a batch."""
    number = np.zeros(1, np.float32)
    few = {"w{}".format(i): np.zeros(8, np.float32) for i in range(32)}
    optimizer = ArrayOptimizer("adamw", few)
    gradient = np.ones(8, np.float32)

    def step_all() -> None:
        for name in few:
            optimizer.step(name, gradient, 0, _RATE)

    rows = [list(range(64 - row)) for row in range(8)]

    def collate() -> None:
        np.array([row + [0] * (64 - len(row)) for row in rows]).astype(np.int64, copy=False)
        mask = np.array([[True] * len(row) + [False] * (64 - len(row)) for row in rows])
        np.where(mask[:, None, None, :], np.float32(0.0), np.finfo(np.float32).min)

    calls: List[Tuple[str, Callable[[], Any], int]] = [
        ("operation", lambda: np.add(number, number, out=number), 200),
        ("graph", cases.run_of("add", [number, number]), 50),
        ("tiny_step", tiny_step, 2), ("optimizer_call", step_all, 1), ("batch_of_512_tokens", collate, 20),
    ]  # fmt: skip
    medians = repeated(calls, seconds)
    medians["optimizer_call"] /= len(few)
    return medians


def engine_sustained(
    steps: Mapping[str, Any], folder: str, threads: Optional[int], room_mib: float, seconds: float,
    report: Callable[[str], None],
) -> Dict[str, Any]:  # fmt: skip
    """Return the times of the payload's steps that take at most ``room_mib``."""
    makers = [
        (name, _maker(entry, folder, threads)) for name, entry in sorted(steps.items()) if entry["mib"] <= room_mib
    ]
    return sustained(makers, seconds, report)


def _maker(entry: Mapping[str, Any], folder: str, threads: Optional[int]) -> Callable[[], Callable[[], Any]]:
    return lambda: compiled_step(entry, folder, threads)
