"""What the engine without torch executes in a calibration: small graphs of operations, and compiled steps."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import onnx
import torch
from torch import Tensor

from farsearch.calibration.engine_steps import HEAD, STEPS, TINY, EngineStep
from farsearch.calibration.measure.cases import BY_NUMPY, CASES, cases, make_call, most_elements
from farsearch.graph.compiler import Compiled
from farsearch.graph.configured import compile_config
from farsearch.graph.memory import EngineMemory
from farsearch.graph.program import Graphs, calls_of
from farsearch.graph.rewrite import rewritten
from farsearch.graph.trace import trace_function

__all__ = ["case_graph", "case_inputs", "engine_payload", "step_entry"]

_COLUMNS = 512


def _layer_norm_backward(g: Tensor, normal: Tensor, weight: Tensor, inverse: Tensor) -> list[Tensor]:
    """From the normalised input, which is what a compiled step saves (``farsearch.graph.operators.norms``)."""
    u = g * weight
    flat, along = u - u.mean(-1, keepdim=True), (u * normal).mean(-1, keepdim=True)
    return [(flat - normal * along) * inverse, (g * normal).sum(0), g.sum(0)]


def _rows(n: int) -> tuple[int, int]:
    return n // _COLUMNS, _COLUMNS


_OWN: Mapping[str, tuple[Callable[..., Any], Callable[[int], list[tuple[tuple[int, ...], str]]]]] = {
    # a graph has no operation in place
    "add_in_place": (lambda x, y: x + y, lambda n: [((n,), "float32")] * 2),
    "fill_masked": (
        lambda x, mask: x.masked_fill(mask, 0.0),
        lambda n: [((n,), "float32"), ((n,), "bool")],
    ),
    "layer_norm_backward": (
        _layer_norm_backward,
        lambda n: [(_rows(n), "float32")] * 2 + [((_COLUMNS,), "float32"), ((_rows(n)[0], 1), "float32")],
    ),
}
"""Cases that a compiled step computes in another way than torch: the function, and its operands for ``n`` elements."""


def case_inputs(case: str, dims: Sequence[int]) -> list[tuple[tuple[int, ...], str]]:
    """Return shape and type of each operand of a case."""
    if case in _OWN:
        return _OWN[case][1](*dims)
    shapes: list[tuple[int, ...]] = []

    def take(*wanted: tuple[int, ...]) -> list[Tensor]:
        shapes.extend(wanted)
        return [torch.empty(shape, device="meta") for shape in wanted]

    make_call(case, dims, take)
    return [(shape, "float32") for shape in shapes]


def case_graph(case: str) -> bytes:
    """Return the graph of a case for operands of any sizes; its inputs are ``operand_0``, ``operand_1`` and so on."""
    # distinct sizes, so that equal ones are told from those that only happen to be equal
    dims = {"gemm": (5, 7, 11), "bmm_": (3, 5, 7)}.get(case[:4], (48 * _COLUMNS,))
    examples = [torch.zeros(shape, dtype=getattr(torch, kind)) for shape, kind in case_inputs(case, dims)]

    def call(*tensors: Tensor) -> Any:
        return _OWN[case][0](*tensors) if case in _OWN else make_call(case, dims, lambda *_: list(tensors))()

    trace, _ = rewritten(trace_function(call, examples))
    graphs = Graphs()
    (made,) = calls_of(trace, graphs)
    return _resized(onnx.load_from_string(graphs.models[made.graph]), made.inputs)


def _resized(model: onnx.ModelProto, inputs: Mapping[str, str]) -> bytes:
    """The graph with names for its sizes, and with its inputs named by their position."""
    for info in (*model.graph.input, *model.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.dim_value not in (1, _COLUMNS):
                dimension.dim_param = f"size_{dimension.dim_value}"
    names = {local: f"operand_{number}" for local, number in inputs.items()}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
    for info in model.graph.input:
        info.name = names[info.name]
    return bytes(model.SerializeToString(deterministic=True))


@cache
def engine_payload() -> str:
    """Return cases, graphs and compiled steps as one text: JSON, compressed, in base 64."""
    # a compiled step has no plain copies
    named = {group: [each for each in cases(group) if each[0] != "clone"] for group in ("products", "streams")}
    values = {
        **{group: [[case, dims, case_inputs(case, dims)] for case, dims in some] for group, some in named.items()},
        "graphs": {case: _text(case_graph(case)) for case in CASES if case not in BY_NUMPY | {"clone"}},
        "most_elements": most_elements(),
        "tiny": _entry(TINY),
        "steps": {name: _entry(step) for name, step in STEPS.items()},
    }
    packed = zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 9)
    return base64.b64encode(packed).decode()


def _entry(step: EngineStep) -> dict[str, Any]:
    made = compile_config(step.model_config, HEAD, step.config)
    return {**step_entry(made, step.batch_size, step.length, step.vocabulary), "token_targets": True}


def step_entry(made: Compiled, batch_size: int, length: int, vocabulary: int) -> dict[str, Any]:
    """Return what ``farsearch.calibration.measure.onnx_timing.compiled_step`` takes, as JSON types.

    The step is of a head with one target for each row.
    """
    return {
        "rows": batch_size,
        "length": length,
        "vocabulary": vocabulary,
        "token_targets": False,
        "program": json.loads(json.dumps(made.program)),
        "graphs": [_text(graph) for graph in made.graphs],
        "mib": EngineMemory.of(made).step(batch_size, length).resident / 2**20,
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
