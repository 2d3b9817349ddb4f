"""Lower a step's graph to an ONNX model: one pass over its nodes, each by its function in ``operators``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx

from farsearch.graph.builder import Builder, Value
from farsearch.graph.operators import OPERATORS
from farsearch.graph.trace import StepGraph

__all__ = ["OPSET", "WEIGHTS", "lower_step", "write_step"]

OPSET = 15
"""The newest that onnxruntime 1.10 knows, the last one with a wheel for Python 3.6."""
WEIGHTS = "frozen.bin"
"""File of the frozen weights, beside the model."""
_EXTERNAL_BYTES = 1024
"""Frozen tensors of at least this size are written beside the model."""


def lower_step(step: StepGraph, frozen: dict[str, Tensor]) -> tuple[onnx.ModelProto, bytes]:
    """Lower a traced step.

    Args:
        frozen: values of ``step.frozen``.

    Returns:
        The model, and the content of the file ``WEIGHTS`` beside it. Inputs are the batch's and the trained tensors by
        name; outputs are ``loss`` and ``gradient of NAME`` for each trained tensor.

    Raises:
        NotImplementedError: for an operator that has no lowering, with its name.
    """
    graph = step.graph.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    names = [*step.trained, *step.frozen, *step.inputs]
    trained, held, inputs = (
        placeholders[: len(step.trained)],
        placeholders[len(step.trained) : len(names) - len(step.inputs)],
        placeholders[len(names) - len(step.inputs) :],
    )
    builder = Builder(length_of=(step.inputs[0], inputs[0].meta["val"]))
    values: dict[fx.Node, Any] = {}
    for name, node in zip(names, placeholders, strict=True):
        values[node] = Value(name, builder.shape(node.meta["val"].shape))
    storage = _Storage(WEIGHTS)
    initializers = [storage.add(name, frozen[name]) for name, node in zip(step.frozen, held, strict=True) if node.users]
    for node in graph.nodes:
        if node.op == "call_function" and builder.is_tensor(node):
            values[node] = OPERATORS.lower(builder, node, values)
        elif node.op == "get_attr":
            values[node] = builder.constant(getattr(step.graph, node.target).detach().numpy())
        elif node.op == "output":
            results = [values[result] for result in node.args[0]]
    outputs = ["loss", *(f"gradient of {name}" for name in step.trained)]
    for name, result in zip(outputs, results, strict=True):
        builder.node("Identity", [builder.dense(result)], [name])
    used = [(name, node) for name, node in zip([*step.trained, *step.inputs], [*trained, *inputs], strict=True)]
    model = helper.make_model(
        helper.make_graph(
            builder.nodes, "step",
            [_info(name, node, builder) for name, node in used if node.users],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, list(result.shape))
                for name, result in zip(outputs, results, strict=True)
            ],
            [*initializers, *builder.initializers],
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)],
    )  # fmt: skip
    model.ir_version = 8
    return model, storage.content()


class _Storage:
    """The file of the frozen weights: each once, aligned to a page, so that it can be mapped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, name: str, value: Tensor) -> onnx.TensorProto:
        array = np.ascontiguousarray(value.detach().numpy())
        if array.nbytes < _EXTERNAL_BYTES:
            return numpy_helper.from_array(array, name)
        data = array.tobytes()
        proto = onnx.TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", self._name), ("offset", self._size), ("length", len(data))):
            proto.external_data.add(key=key, value=str(entry))
        self._pieces += [data, bytes(-len(data) % 4096)]
        self._size += len(data) + -len(data) % 4096
        return proto

    def content(self) -> bytes:
        return b"".join(self._pieces)


def _info(name: str, node: fx.Node, builder: Builder) -> onnx.ValueInfoProto:
    value = node.meta["val"]
    shape = [size if isinstance(size, int) else "length" for size in builder.shape(value.shape)]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(str(value.dtype).split(".")[1]))
    return helper.make_tensor_value_info(name, element, shape)


def write_step(folder: Path, model: onnx.ModelProto, weights: bytes) -> Path:
    """Write model and weights into a folder, and return the model's path."""
    (folder / WEIGHTS).write_bytes(weights)
    path = folder / "step.onnx"
    onnx.save(model, path)
    return path
