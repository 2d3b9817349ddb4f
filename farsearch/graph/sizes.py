"""A graph of a compiled step at the sizes of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from farsearch.runtime.onnx_engine.buffers import size_of

__all__ = ["with_sizes"]


def with_sizes(graph: bytes, rows: int, length: int) -> Any:
    """Return a graph's model with the sizes of one batch in place of names such as ``2*rows*length``.

    onnx can infer all its shapes.
    """
    model = onnx.load_from_string(graph)
    for info in (*model.graph.input, *model.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = size_of(dimension.dim_param, rows, length)
    given = {"size:rows": rows, "size:length": length}
    for info in list(model.graph.input):
        if info.name in given:
            model.graph.input.remove(info)
            value = helper.make_tensor(info.name, onnx.TensorProto.INT64, [1], [given[info.name]])
            model.graph.initializer.append(value)
    _fold_sizes(model.graph)
    for node in model.graph.node:
        if node.domain:
            _use_standard(node)
    return model


def _use_standard(node: Any) -> None:
    """Replace a vendor's operator, whose shapes onnx does not infer, by a standard one with the same."""
    swapped = {attribute.name for attribute in node.attribute if attribute.i}
    node.domain = ""
    del node.attribute[:]
    if node.op_type == "FusedMatMul":
        left, right = ("ki" if "transA" in swapped else "ik"), ("jk" if "transB" in swapped else "kj")
        node.op_type = "Einsum"
        node.attribute.append(helper.make_attribute("equation", f"...{left},...{right}->...ij"))
    else:
        assert node.op_type == "Gelu", node.op_type
        node.op_type = "Sigmoid"


_OF_SIZES: Mapping[str, Callable[..., Any]] = {
    "Mul": np.multiply,
    "Add": np.add,
    "Concat": lambda *parts: np.concatenate(parts),
    "Squeeze": lambda size, *_axes: size.reshape(()),
}
"""Operators that compute sizes from sizes, all of one dimension, or a scalar from a size."""


def _fold_sizes(graph: Any) -> None:
    """Replace what is computed from sizes alone by its result.

    onnx takes the pads of a Pad, and the ends of a Range, from constants only.
    """
    known = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in list(graph.node):
        if node.op_type in _OF_SIZES and all(name in known and known[name].dtype == np.int64 for name in node.input):
            (name,) = node.output
            known[name] = _OF_SIZES[node.op_type](*(known[each] for each in node.input))
            graph.initializer.append(numpy_helper.from_array(known[name], name))
            graph.node.remove(node)
