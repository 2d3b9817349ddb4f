"""Compile the FAR step of a reconfigured model into a folder that the onnx engine runs without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from farsearch.errors import BadInput
from farsearch.far.execution import Execution
from farsearch.far.ffn import SplitFeedForward
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.loss import PLAIN, LossForm
from farsearch.far.split_linear import SplitLinear
from farsearch.files import save_tensors, write_json
from farsearch.graph.builder import OPSET
from farsearch.graph.narrow import narrowed
from farsearch.graph.operation import Extent
from farsearch.graph.program import Call, Graphs, calls_of
from farsearch.graph.rewrite import Dropout, rewritten
from farsearch.graph.trace import Trace, trace_prediction, trace_step
from farsearch.models.heads import Head
from farsearch.plan_execution import execution_of, for_engine
from farsearch.records import StepPlan
from farsearch.runtime.program_file import SCHEMA_VERSION

__all__ = ["PROGRAM", "WEIGHTS", "Compiled", "compile_step", "compile_training", "engine_execution"]

PROGRAM, WEIGHTS = "program.json", "weights.safetensors"
"""Files of a compiled engine, beside its graphs."""

PORTION = 512
"""Tokens that a graph computes at once."""

_ALL_ROWS = 1 << 20
"""Rows of a portion that no batch has: the traced step computes all rows at once, its graphs are run on portions."""

_BATCH = {
    "input_ids": "ids", "token_type_ids": "ids", "attention_mask": "additive", "class_weights": "classes"
}  # fmt: skip


def engine_execution(layout: ModelLayout, plan: StepPlan | None = None) -> Execution:
    """Return how a step is compiled. LayerNorms stay ordinary: ``rewrite`` saves only their normalised input.

    Args:
        plan: of the engine ``onnx``; None for its exact one that stores the pre-activations.
    """
    plan = for_engine(plan or StepPlan(), "onnx", layout)
    return execution_of(dataclasses.replace(plan, layer_norm="modules"), _ALL_ROWS)


@dataclass(frozen=True)
class Compiled:
    """A compiled engine.

    Attributes:
        program: as JSON types.
        graphs: as files, in the program's order.
        tensors: trained and frozen ones by name.
    """

    program: Mapping[str, Any]
    graphs: tuple[bytes, ...]
    tensors: Mapping[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write the program, its graphs and its weights into an empty folder."""
        for name, graph in zip(self.program["graphs"], self.graphs, strict=True):
            (folder / name).write_bytes(graph)
        save_tensors(folder / WEIGHTS, {name: value.detach() for name, value in self.tensors.items()})
        write_json(folder / PROGRAM, dict(self.program))


def compile_step(
    model: nn.Module, layout: ModelLayout, head: Head, names: Sequence[str], form: LossForm = PLAIN
) -> Compiled:
    """Compile the training step and the prediction of a model that is reconfigured with ``engine_execution``.

    Args:
        names: tensors of the merged model that are saved, by transformers' names.
        form: of the loss. Weights of the classes are an input, which a board computes from its rows.

    Raises:
        BadInput: for a model that can't be compiled.
    """
    training, graphs = compile_training(model, layout, head, form)
    prediction, _ = rewritten(trace_prediction(model, layout, head))
    predict = [_call(call) for call in calls_of(narrowed(prediction), graphs)]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    merged = _merged(model, layout, names)
    calls = [*training["step"], *predict]
    used = {value.removeprefix("weight:") for call in calls for value in call["inputs"].values()}
    used.update(part["value"] for entry in merged for part in entry["parts"])
    trained = [entry["name"] for entry in training["trained"]]
    frozen = [name for name in tensors if name in used and name not in trained]
    program = {
        "schema_version": SCHEMA_VERSION,
        "opset": max(OPSET, graphs.opset),
        "graphs": [f"graph-{number:02}.onnx" for number in range(len(graphs.models))],
        "batch": [
            {"name": name, "form": _BATCH.get(name, "targets")}
            for name in [*head.batch(1, 2).inputs, *["class_weights"] * form.weighted]
        ],
        **training,
        "frozen": [
            {"name": name, "shape": list(tensors[name].shape), "dtype": str(tensors[name].dtype).split(".")[1]}
            for name in frozen
        ],
        "predict": predict,
        "merge": merged,
        "portion": PORTION,
    }
    return Compiled(program, tuple(graphs.models), {name: tensors[name] for name in [*trained, *frozen]})


def compile_training(
    model: nn.Module, layout: ModelLayout, head: Head, form: LossForm = PLAIN
) -> tuple[dict[str, Any], Graphs]:
    """Compile the training step alone: the entries ``trained``, ``dropouts`` and ``step`` of a program, and its graphs.

    Raises:
        BadInput: as ``compile_step``.
    """
    graphs = Graphs()
    step, dropouts = rewritten(trace_step(model, layout, head, form))
    calls, tables = calls_of(narrowed(step), graphs), _tables(step)
    trained = [(name, list(value.shape)) for name, value in model.named_parameters() if value.requires_grad]
    entries = {
        "trained": [{"name": name, "shape": shape, **tables.get(name, {})} for name, shape in trained],
        "dropouts": [_dropout(mask) for mask in dropouts],
        "step": [_call(call) for call in calls],
    }
    return entries, graphs


def _call(call: Call) -> dict[str, Any]:
    return {
        "graph": call.graph, "inputs": dict(call.inputs), "outputs": dict(call.outputs), "rows": list(call.rows),
    }  # fmt: skip


def _dropout(mask: Dropout) -> dict[str, Any]:
    return {"value": mask.value, "shape": [_dimension(size) for size in mask.shape], "p": mask.p}


def _dimension(size: int | Extent) -> int | str:
    if isinstance(size, int):
        return size
    if size.factor != 1 or size.offset or size.rows == size.length:
        raise BadInput("a dropout of this model drops parts that can't be compiled; use `engine` torch")
    return "rows" if size.rows else "length"


def _tables(step: Trace) -> dict[str, dict[str, Any]]:
    """The trained tables whose gradient is left as rows: the ids of the rows, and the id without a gradient."""
    found = {}
    for name, (ids, padding) in step.tables.items():
        if ids.name != "input":
            raise BadInput(f"the ids of the table {name} are no input, and can't be compiled; use `engine` torch")
        found[name] = {"ids": ids.args[0], "padding": padding if padding >= 0 else None}
    return found


def _merged(model: nn.Module, layout: ModelLayout, names: Sequence[str]) -> list[dict[str, Any]]:
    """How the tensors of the merged model follow from those of the reconfigured one."""
    split: dict[str, dict[str, Any]] = {}
    for block in layout.blocks:
        module = get_module(model, block.split)
        if isinstance(module, SplitFeedForward):
            for entry in _merged_block(module, block.split, block.up, block.down):
                split[entry["name"]] = entry
    for path in (path for layer in layout.layers for path in layer.attention):
        linear = get_module(model, path)
        if isinstance(linear, SplitLinear):
            split.update((entry["name"], entry) for entry in _merged_linear(linear, path))
    state = model.state_dict()
    parameters = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    names_now = {
        id(value): name for name, value in {**dict(model.named_buffers()), **dict(model.named_parameters())}.items()
    }
    return [
        split[name] if name in split else _alone(name, names_now[id(parameters[name])], state[name]) for name in names
    ]


def _alone(name: str, now: str, value: Tensor) -> dict[str, Any]:
    return {"name": name, "parts": [{"value": now, "index": None}], "axis": 0, "shape": list(value.shape)}


def _merged_block(module: SplitFeedForward, path: str, up: str, down: str) -> list[dict[str, Any]]:
    """The entries of a split block's two maps. A gated block's ``up`` has the rows of its two halves."""
    learners, frozen = module.learners, module.frozen
    width = len(learners) + len(frozen)
    entries = []
    for linear, where in (("up", up), ("down", down)):
        for name, value in module.whole(linear).items():
            if linear == "down" and name == "bias":
                entries.append(_alone(f"{where}.bias", f"{path}.bias", value))
                continue
            axis = 1 if linear == "down" else 0
            kind = {("up", "weight"): "up", ("up", "bias"): "bias", ("down", "weight"): "down"}[linear, name]
            parts = []
            for part, places in (("learner", learners), ("frozen", frozen)):
                tensor = getattr(module, f"{part}_{kind}")
                if places:
                    times = value.shape[axis] // width
                    each = tensor.shape[axis] // times
                    index = [
                        half * width + places[i] if i < len(places) else -1
                        for half in range(times)
                        for i in range(each)
                    ]
                    parts.append({"value": f"{path}.{part}_{kind}", "index": index})
            entries.append({"name": f"{where}.{name}", "parts": parts, "axis": axis, "shape": list(value.shape)})
    return entries


def _merged_linear(module: SplitLinear, path: str) -> list[dict[str, Any]]:
    """The entries of a split map's weight and bias."""
    entries = []
    for name, value in module.whole().items():
        if name == "bias" and module.learner_bias is None:
            entries.append(_alone(f"{path}.bias", f"{path}.bias", value))
            continue
        tensors = ("learner_weight", "frozen_weight") if name == "weight" else ("learner_bias", "bias")
        parts = [
            {"value": f"{path}.{tensor}", "index": [i for start, stop in ranges for i in range(start, stop)]}
            for tensor, ranges in zip(tensors, (module.places.learners, module.places.frozen), strict=True)
            if ranges
        ]
        entries.append(
            {"name": f"{path}.{name}", "parts": parts, "axis": module.places.dim, "shape": list(value.shape)}
        )
    return entries
