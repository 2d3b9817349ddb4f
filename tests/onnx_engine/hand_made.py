"""A small program written by hand, with its model in torch: an embedding, dropout, a split block, and a classifier.

The block has learners and frozen neurons, the latter with zero padding, as farsearch's split feed-forward blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from farsearch.runtime.onnx_engine.weights import write_tensors
from farsearch.runtime.program_file import Program, read_program

__all__ = ["FROZEN", "LEARNERS", "P", "make_weights", "program_values", "torch_logits", "torch_step", "write_engine"]

WIDTH, CLASSES, NEURONS, PADDING = 8, 2, 12, 4
LEARNERS = (1, 4, 5, 10)
FROZEN = tuple(i for i in range(NEURONS) if i not in LEARNERS)
P = 0.25

_TRAINED = ("block.learner_up", "block.learner_down", "classifier.weight", "classifier.bias")
_MASKED = np.float32(np.finfo(np.float32).min)


class _Graph:
    """A graph under construction, whose inputs and outputs are float unless given."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def write(self, path: Path, inputs: Mapping[str, int], outputs: tuple[str, ...]) -> None:
        entries = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self._nodes, "g", entries, results, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=7)
        path.write_bytes(model.SerializeToString())


_F, _I, _B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _pooling(path: Path) -> None:
    """Mean of the embeddings of a row's tokens; also each token's share in it."""
    g = _Graph()
    g.add("Gather", ["table", "ids"], "x")
    g.add("Greater", ["mask", g.constant("half", _MASKED / 2)], "kept")
    g.add("Cast", ["kept"], "ones", to=_F)
    g.add("Squeeze", ["ones", g.constant("axes", [1, 2], np.int64)], "m")
    g.add("ReduceSum", ["m", g.constant("last", [1], np.int64)], "count")
    g.add("Div", ["m", "count"], "share")
    g.add("Unsqueeze", ["share", g.constant("two", [2], np.int64)], "s")
    g.add("Mul", ["x", "s"], "weighted")
    g.add("ReduceSum", ["weighted", "last"], "pooled", keepdims=0)
    g.write(path, {"table": _F, "ids": _I, "mask": _F}, ("pooled", "share"))


def _dropout(path: Path, p: float = P) -> None:
    """Set what is dropped to 0 and scale the rest; its own gradient too."""
    g = _Graph()
    g.add("Where", ["drop", g.constant("zero", 0.0), "x"], "rest")
    g.add("Mul", ["rest", g.constant("scale", 1.0 / (1.0 - p))], "y")
    g.write(path, {"x": _F, "drop": _B}, ("y",))


def _half(path: Path) -> None:
    """Half of the block: ``relu(x up') down'``."""
    g = _Graph()
    g.add("Transpose", ["up"], "up_t", perm=[1, 0])
    g.add("MatMul", ["x", "up_t"], "before")
    g.add("Relu", ["before"], "after")
    g.add("Transpose", ["down"], "down_t", perm=[1, 0])
    g.add("MatMul", ["after", "down_t"], "y")
    g.write(path, {"x": _F, "up": _F, "down": _F}, ("after", "y"))


def _head(path: Path) -> None:
    g = _Graph()
    g.add("Add", ["a", "b"], "h")
    g.add("Gemm", ["h", "weight", "bias"], "logits", transB=1)
    g.write(path, {"a": _F, "b": _F, "weight": _F, "bias": _F}, ("h", "logits"))


def _loss(path: Path) -> None:
    """Mean cross entropy, and its gradient by the logits."""
    g = _Graph()
    g.add("LogSoftmax", ["logits"], "log", axis=-1)
    g.add("OneHot", ["labels", g.constant("depth", [CLASSES], np.int64), g.constant("values", [0.0, 1.0])], "true")
    g.add("Mul", ["log", "true"], "at")
    g.add("ReduceSum", ["at", g.constant("last", [1], np.int64)], "rows", keepdims=0)
    g.add("ReduceMean", ["rows"], "mean", keepdims=0)
    g.add("Neg", ["mean"], "loss")
    g.add("Exp", ["log"], "p")
    g.add("Sub", ["p", "true"], "difference")
    g.add("Shape", ["labels"], "shape")
    g.add("Cast", ["shape"], "count", to=_F)
    g.add("Div", ["difference", "count"], "gradient")
    g.write(path, {"logits": _F, "labels": _I}, ("loss", "gradient"))


def _head_backward(path: Path) -> None:
    g = _Graph()
    g.add("Gemm", ["g", "h"], "by_weight", transA=1)
    g.add("ReduceSum", ["g", g.constant("rows", [0], np.int64)], "by_bias", keepdims=0)
    g.add("MatMul", ["g", "weight"], "by_h")
    g.write(path, {"g": _F, "h": _F, "weight": _F}, ("by_weight", "by_bias", "by_h"))


def _half_backward(path: Path) -> None:
    """Gradients of a half's maps."""
    g = _Graph()
    g.add("Gemm", ["g", "after"], "by_down", transA=1)
    g.add("MatMul", ["g", "down"], "by_after")
    g.add("Greater", ["after", g.constant("zero", 0.0)], "active")
    g.add("Where", ["active", "by_after", "zero"], "by_before")
    g.add("Gemm", ["by_before", "x"], "by_up", transA=1)
    g.write(path, {"g": _F, "x": _F, "after": _F, "down": _F}, ("by_up", "by_down"))


_GRAPHS = (_pooling, _dropout, _half, _head, _loss, _head_backward, _half_backward)


def _call(graph: Any, inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
    return {"graph": _GRAPHS.index(graph), "inputs": inputs, "outputs": outputs}


def _forward(dropout: bool, logits: str) -> list[dict[str, Any]]:
    x = "v2" if dropout else "v0"
    pooling = {"table": "weight:embeddings", "ids": "batch:input_ids", "mask": "batch:attention_mask"}
    calls = [_call(_pooling, pooling, {"pooled": "v0", "share": "v1"})]
    if dropout:
        calls.append(_call(_dropout, {"x": "v0", "drop": "dropout:0"}, {"y": "v2"}))
    for i, kind in enumerate(("learner", "frozen")):
        maps = {"up": f"weight:block.{kind}_up", "down": f"weight:block.{kind}_down"}
        calls.append(_call(_half, {"x": x, **maps}, {"after": f"v{3 + 2 * i}", "y": f"v{4 + 2 * i}"}))
    head = {"a": "v4", "b": "v6", "weight": "weight:classifier.weight", "bias": "weight:classifier.bias"}
    return [*calls, _call(_head, head, {"h": "v7", "logits": logits})]


def _step() -> list[dict[str, Any]]:
    back = {"by_weight": "gradient:classifier.weight", "by_bias": "gradient:classifier.bias", "by_h": "v10"}
    half = {"g": "v10", "x": "v2", "after": "v3", "down": "weight:block.learner_down"}
    return [
        *_forward(True, "v8"),
        _call(_loss, {"logits": "v8", "labels": "batch:labels"}, {"loss": "loss", "gradient": "v9"}),
        _call(_head_backward, {"g": "v9", "h": "v7", "weight": "weight:classifier.weight"}, back),
        _call(_half_backward, half,
              {"by_up": "gradient:block.learner_up", "by_down": "gradient:block.learner_down"}),
    ]  # fmt: skip


def make_weights(vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in the reconfigured layout; the frozen neurons end with zero padding."""
    draw = np.random.default_rng(seed)
    shapes = {
        "embeddings": (vocabulary, WIDTH),
        "block.learner_up": (len(LEARNERS), WIDTH),
        "block.learner_down": (WIDTH, len(LEARNERS)),
        "block.frozen_up": (len(FROZEN) + PADDING, WIDTH),
        "block.frozen_down": (WIDTH, len(FROZEN) + PADDING),
        "classifier.weight": (CLASSES, WIDTH),
        "classifier.bias": (CLASSES,),
    }
    weights = {name: draw.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["block.frozen_up"][len(FROZEN) :] = 0.0
    weights["block.frozen_down"][:, len(FROZEN) :] = 0.0
    return weights


def program_values(vocabulary: int, p: float = P) -> dict[str, Any]:
    """The program as the JSON of ``program.json``."""
    weights = make_weights(vocabulary)
    frozen = [name for name in weights if name not in _TRAINED]

    def merged(name: str, kind: str, axis: int, shape: list[int]) -> dict[str, Any]:
        parts = [{"value": f"block.learner_{kind}", "index": list(LEARNERS)},
                 {"value": f"block.frozen_{kind}", "index": [*FROZEN, *[-1] * PADDING]}]  # fmt: skip
        return {"name": name, "parts": parts, "axis": axis, "shape": shape}

    def whole(name: str) -> dict[str, Any]:
        parts = [{"value": name, "index": None}]
        return {"name": name, "parts": parts, "axis": 0, "shape": list(weights[name].shape)}

    return {
        "schema_version": 1,
        "opset": 15,
        "graphs": [f"graph-{i:02}.onnx" for i in range(len(_GRAPHS))],
        "batch": [
            {"name": "input_ids", "form": "ids"},
            {"name": "attention_mask", "form": "additive"},
            {"name": "labels", "form": "targets"},
        ],
        "trained": [{"name": name, "shape": list(weights[name].shape)} for name in _TRAINED],
        "frozen": [{"name": name, "shape": list(weights[name].shape), "dtype": "float32"} for name in frozen],
        "dropouts": [{"value": "dropout:0", "shape": ["rows", WIDTH], "p": p}],
        "step": _step(),
        "predict": _forward(False, "logits"),
        "merge": [
            whole("embeddings"),
            merged("block.up", "up", 0, [NEURONS, WIDTH]),
            merged("block.down", "down", 1, [WIDTH, NEURONS]),
            whole("classifier.weight"),
            whole("classifier.bias"),
        ],
    }


def write_engine(folder: Path, vocabulary: int, p: float = P) -> Program:
    """Write ``program.json``, its graphs and its weights; return the program."""
    folder.mkdir(parents=True, exist_ok=True)
    values = program_values(vocabulary, p)
    for name, write in zip(values["graphs"], _GRAPHS, strict=True):
        write(folder / name)
    _dropout(folder / values["graphs"][_GRAPHS.index(_dropout)], p)
    (folder / "program.json").write_text(json.dumps(values))
    weights = make_weights(vocabulary)
    tensors = [(name, "float32", array.shape) for name, array in weights.items()]
    write_tensors(str(folder / "weights.safetensors"), tensors, weights.values())
    return read_program(values)


def torch_logits(weights: Mapping[str, Tensor], batch: Mapping[str, Tensor], drop: Tensor | None = None) -> Tensor:
    """The same model in torch, with an ordinary mask of tokens."""
    mask = batch["attention_mask"].float()[:, :, None]
    x = (weights["embeddings"][batch["input_ids"]] * mask).sum(1) / mask.sum(1)
    x = x if drop is None else x.masked_fill(drop, 0.0) / (1.0 - P)
    h = torch.zeros_like(x)
    for kind in ("learner", "frozen"):
        h = h + torch.relu(x @ weights[f"block.{kind}_up"].T) @ weights[f"block.{kind}_down"].T
    return h @ weights["classifier.weight"].T + weights["classifier.bias"]


def torch_step(
    weights: Mapping[str, Tensor], batch: Mapping[str, Tensor], drop: Tensor
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the trained tensors by autograd."""
    leaves = {name: value.clone().requires_grad_(name in _TRAINED) for name, value in weights.items()}
    loss = torch.nn.functional.cross_entropy(torch_logits(leaves, batch, drop), batch["labels"])
    gradients = torch.autograd.grad(loss, [leaves[name] for name in _TRAINED])
    return float(loss.detach()), dict(zip(_TRAINED, gradients, strict=True))
